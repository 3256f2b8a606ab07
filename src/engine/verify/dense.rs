//! A dense index and its id file, followed row by row along the vectors dataset.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    ops::RangeInclusive,
};

use super::{
    Finding, Findings, Subject,
    indexes::Sample,
    part::{Checked, guarded},
    step::{Entry, InStep},
};
use crate::{
    index::{DenseIndex, dense::DenseHit},
    store::manifest::IndexSummary,
};

const CHECK: &str = "dense";
/// Difference of an inner product that rounding may make.
const ROUNDING: f32 = 1e-5;
/// As far from length 1 the index takes vectors as they are; others are scaled to it.
const UNIT: f32 = 1e-3;
/// How far down a row may find itself in an index that does not compare all vectors.
const TOP: usize = 10;

/// `NAME.faiss` and `NAME.ids`; each None where it is not there or cannot be followed any further.
pub struct Dense {
    index: Option<Index>,
    ids: Option<IdFile>,
    rows: usize,
    /// Rows that the manifest says it has; None: the shard has no such index.
    summary: Option<u64>,
    names: [String; 2],
}

/// An open FAISS index.
struct Index {
    index: DenseIndex,
    storage: Storage,
    sampled: usize,
    missed: Vec<String>,
}

/// What an index of a kind can be asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Storage {
    /// Vectors are kept as they are.
    exact: bool,
    /// A search compares all of them.
    exhaustive: bool,
}

impl Storage {
    fn of(kind: &str) -> Self {
        let graph = kind.strip_prefix("HNSW");
        let links = graph.map(|g| g.strip_suffix(",Flat").unwrap_or(g));
        let plain = links.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        Self {
            exact: kind == "Flat" || plain,
            exhaustive: kind == "Flat",
        }
    }
}

impl Dense {
    /// `name`: of both files below the generation, without their endings.
    pub fn open(
        subject: &Subject,
        name: &str,
        summary: Option<&IndexSummary>,
        findings: &mut Findings,
    ) -> Self {
        let names = [format!("{name}.faiss"), format!("{name}.ids")];
        let mut dense = Self {
            index: None,
            ids: None,
            rows: 0,
            summary: summary.map(|summary| summary.rows),
            names,
        };
        let Some(summary) = summary else {
            return dense;
        };
        let [index, ids] = &dense.names;
        for name in [index, ids] {
            if !subject.path(name).exists() && !subject.damaged.contains(name) {
                findings.add(CHECK, name, "is missing");
            }
        }
        if subject.is_sound(ids) {
            match IdFile::open(subject, ids) {
                Ok(ids) => dense.ids = Some(ids),
                Err(finding) => findings.push(finding),
            }
        }
        if subject.is_sound(index) && subject.is_sound(ids) {
            match Index::open(subject, &dense.names, &summary.kind) {
                Ok(index) => dense.index = Some(index),
                Err(finding) => findings.push(finding),
            }
        }
        dense
    }

    /// Compares the next row with the vector it was made of. `sampled`: it must find itself too.
    pub fn follow(&mut self, id: &str, vector: &[f32], sampled: bool, findings: &mut Findings) {
        let [name, ids_name] = &self.names;
        self.rows += 1;
        let (row, message) = match &mut self.ids {
            Some(ids) => ids.expect(id),
            None => (None, None),
        };
        if let Some(message) = message {
            findings.add("ids", ids_name, message);
        }
        if let (Some(index), Some(row)) = (&mut self.index, row) {
            let checked = guarded(CHECK, name, || {
                index.compare(row, id, vector, name, findings);
                if sampled {
                    index.search(row, id, vector, name, findings);
                }
                Ok(())
            });
            if let Err(finding) = checked {
                findings.push(finding);
                self.index = None;
            }
        }
    }

    /// The vectors that come next cannot be read, so that rows cannot be told apart from here on.
    pub fn lose(&mut self, part: &str, findings: &mut Findings) {
        if self.index.take().is_some() | self.ids.take().is_some() {
            let message = format!("is not compared any further, as {part} cannot be read");
            findings.add(CHECK, &self.names[1], message);
        }
    }

    /// Rows that an index need not find are added to `sampled`.
    pub fn finish(&mut self, sampled: &mut Sample, findings: &mut Findings) {
        let [name, ids_name] = &self.names;
        if let Some(message) = self.ids.as_mut().and_then(IdFile::finish) {
            findings.add("ids", ids_name, message);
        }
        let Some(index) = &self.index else {
            return;
        };
        let (there, wanted) = (index.index.ids().len(), self.rows);
        if there != wanted {
            findings.add(
                CHECK,
                name,
                format!("has {there} rows where {wanted} belong"),
            );
        } else if let Some(rows) = self.summary.filter(|rows| *rows != wanted as u64) {
            let message = format!("has {wanted} rows; the manifest says {rows}");
            findings.add(CHECK, name, message);
        }
        let missed = index.missed.iter().map(|id| {
            Finding::new(
                CHECK,
                name,
                format!("`{id}` does not find itself ({ids_name})"),
            )
        });
        if index.storage.exhaustive {
            return missed.for_each(|finding| findings.push(finding));
        }
        sampled.rows += index.sampled;
        sampled.missed.extend(missed);
    }
}

impl Index {
    fn open(subject: &Subject, [index, ids]: &[String; 2], kind: &str) -> Checked<Self> {
        let opened = guarded(CHECK, index, || {
            DenseIndex::open(&subject.path(index), &subject.path(ids))
                .map_err(|e| Finding::new(CHECK, index, format!("cannot be opened: {e}")))
        })?;
        if opened.dim() != subject.manifest.dim {
            let (dim, wanted) = (opened.dim(), subject.manifest.dim);
            let message = format!("has vectors of {dim} numbers where {wanted} belong");
            return Err(Finding::new(CHECK, index, message));
        }
        Ok(Self {
            index: opened,
            storage: Storage::of(kind),
            sampled: 0,
            missed: Vec::new(),
        })
    }

    /// The stored vector is the dataset's.
    fn compare(&self, row: usize, id: &str, vector: &[f32], name: &str, findings: &mut Findings) {
        let own = own_score(vector);
        // Nothing can be had past the end, which is told once, or out of inverted lists.
        let kept = self.index.score(vector, row).filter(|_| self.storage.exact);
        let is_same = |kept: f32| own.contains(&kept);
        if kept.is_some_and(|kept| !is_same(kept)) {
            let message = format!("row {row} (`{id}`) is not the vector of the dataset");
            findings.add(CHECK, name, message);
        }
    }

    fn search(
        &mut self,
        row: usize,
        id: &str,
        vector: &[f32],
        name: &str,
        findings: &mut Findings,
    ) {
        self.sampled += 1;
        let k = if self.storage.exhaustive { 1 } else { TOP };
        match self.index.search(vector, k) {
            Ok(hits) if self.is_found(row, vector, &hits) => {}
            Ok(_) => self.missed.push(id.to_owned()),
            Err(error) => findings.add(CHECK, name, format!("row {row} (`{id}`): {error}")),
        }
    }

    /// Among the hits, or pushed out of them by rows that are just as close.
    fn is_found(&self, row: usize, vector: &[f32], hits: &[DenseHit]) -> bool {
        let own = *own_score(vector).start();
        let tied = |hit: &DenseHit| hit.score >= own;
        hits.iter().any(|hit| hit.row == row) || (!hits.is_empty() && hits.iter().all(tied))
    }
}

/// The inner product of a vector with its own row, as the index may have taken it: as it is, or scaled to length 1.
fn own_score(vector: &[f32]) -> RangeInclusive<f32> {
    let square: f32 = vector.iter().map(|x| x * x).sum();
    let own = match square.sqrt() {
        0.0 => 0.0..=0.0,
        length if (length - 1.0).abs() < UNIT => square.min(1.0)..=square.max(1.0),
        _ => 1.0..=1.0,
    };
    own.start() - ROUNDING..=own.end() + ROUNDING
}

/// The lines of an id file.
struct IdFile {
    input: BufReader<File>,
    step: InStep,
}

impl IdFile {
    fn open(subject: &Subject, name: &str) -> Checked<Self> {
        let file =
            File::open(subject.path(name)).map_err(|e| Finding::new("ids", name, e.to_string()))?;
        Ok(Self {
            input: BufReader::new(file),
            step: InStep::new("line", 1),
        })
    }

    /// The row of the id that comes next, and what is wrong.
    fn expect(&mut self, id: &str) -> (Option<usize>, Option<String>) {
        let Self { input, step } = self;
        step.expect(id, || line(input))
    }

    fn finish(&mut self) -> Option<String> {
        let Self { input, step } = self;
        step.finish(|| line(input))
    }
}

fn line(input: &mut BufReader<File>) -> Entry {
    let mut bytes = Vec::new();
    input
        .read_until(b'\n', &mut bytes)
        .map_err(|e| e.to_string())?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Ok((!bytes.is_empty()).then(|| String::from_utf8_lossy(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_what_they_keep() {
        let storage = |exact, exhaustive| Storage { exact, exhaustive };
        for (kind, expected) in [
            ("Flat", storage(true, true)),
            ("HNSW32", storage(true, false)),
            ("HNSW32,Flat", storage(true, false)),
            ("HNSW32,SQ8", storage(false, false)),
            ("IVF4096,SQfp16", storage(false, false)),
            ("IVF256,Flat", storage(false, false)),
        ] {
            assert_eq!(Storage::of(kind), expected, "{kind}");
        }
    }
}
