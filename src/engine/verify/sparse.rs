//! The sparse index and its CIFF copy, followed document by document along the chunks.

use super::{
    Finding, Findings, Subject,
    indexes::Sample,
    part::{Checked, guarded},
    rows::Chunk,
    step::{Entry, InStep},
};
use crate::{
    corpus::error::one_line,
    index::{CiffReader, SparseDocument, SparseError, SparseIndex, SparseWeights},
    store::manifest::IndexSummary,
};

const CHECK: &str = "sparse";
/// How far down a chunk may find itself.
const TOP: usize = 10;
/// Only the field that holds the text itself.
const TEXT: SparseWeights = SparseWeights {
    title: 0.0,
    text: 1.0,
    queries: 0.0,
};

/// Both copies of the postings; each None where it is not there or cannot be followed any further.
pub struct Sparse {
    index: Option<Index>,
    ciff: Option<Ciff>,
    rows: usize,
    /// Documents that the manifest says it has.
    summary: Option<u64>,
    folder: String,
    ciff_file: String,
}

struct Index {
    index: SparseIndex,
    step: InStep,
    sampled: usize,
    outranked: Vec<String>,
}

struct Ciff {
    reader: CiffReader,
    step: InStep,
}

impl Sparse {
    /// `prefix`: what the paths of the index shard begin with below the generation.
    pub fn open(
        subject: &Subject,
        prefix: &str,
        summary: Option<&IndexSummary>,
        findings: &mut Findings,
    ) -> Self {
        let mut sparse = Self {
            index: None,
            ciff: None,
            rows: 0,
            summary: summary.map(|summary| summary.rows),
            folder: format!("{prefix}sparse"),
            ciff_file: format!("{prefix}sparse.ciff.gz"),
        };
        if summary.is_some() {
            let (folder, ciff) = (&sparse.folder, &sparse.ciff_file);
            for name in [folder, ciff] {
                if !subject.path(name).exists() && !subject.damaged.contains(name) {
                    findings.add(CHECK, name, "is missing");
                }
            }
            sparse.index = opened(subject, folder, findings, Index::open);
            sparse.ciff = opened(subject, ciff, findings, Ciff::open);
        }
        sparse
    }

    /// Compares the next document with the chunk it was made of, and the queries it was indexed with. `sampled`: it
    /// must find itself too.
    pub fn follow(
        &mut self,
        chunk: &Chunk,
        queries: &[&str],
        sampled: bool,
        findings: &mut Findings,
    ) {
        self.rows += 1;
        if let Some(index) = &mut self.index {
            let document = SparseDocument {
                chunk_id: &chunk.id,
                doc_id: &chunk.document,
                title: chunk.title.as_deref(),
                text: &chunk.text,
                queries,
            };
            let folder = &self.folder;
            let followed = guarded(CHECK, folder, || {
                let followed = index.follow(&document, sampled, folder, findings);
                followed.map_err(failed(folder))
            });
            if let Err(finding) = followed {
                findings.push(finding);
                self.index = None;
            }
        }
        if let Some(Ciff { reader, step }) = &mut self.ciff {
            let (_, message) = step.expect(&chunk.id, || name(reader));
            if let Some(message) = message {
                findings.add("ciff", &self.ciff_file, message);
            }
        }
    }

    /// The chunks that come next cannot be read, so that documents cannot be told apart from here on.
    pub fn lose(&mut self, part: &str, findings: &mut Findings) {
        if self.index.take().is_some() | self.ciff.take().is_some() {
            let message = format!("is not compared any further, as {part} cannot be read");
            findings.add(CHECK, &self.folder, message);
        }
    }

    /// Chunks that the index need not find are added to `sampled`.
    pub fn finish(&mut self, sampled: &mut Sample, findings: &mut Findings) {
        if let Some(index) = &self.index {
            let (there, wanted) = (index.index.len(), self.rows as u64);
            if there != wanted {
                let message = format!("has {there} documents where {wanted} belong");
                findings.add(CHECK, &self.folder, message);
            } else if let Some(rows) = self.summary.filter(|rows| *rows != wanted) {
                let message = format!("has {wanted} documents; the manifest says {rows}");
                findings.add(CHECK, &self.folder, message);
            }
            sampled.rows += index.sampled;
            let outranked = index.outranked.iter().map(|id| {
                let message = format!("`{id}` does not find itself in the first {TOP}");
                Finding::new(CHECK, &self.folder, message)
            });
            sampled.missed.extend(outranked);
        }
        if let Some(Ciff { reader, step }) = &mut self.ciff {
            let counted = (reader.header().num_docs.max(0) as usize != self.rows).then(|| {
                let there = reader.header().num_docs;
                format!("has {there} documents where {} belong", self.rows)
            });
            let left = step.finish(|| name(reader));
            for message in [counted, left].into_iter().flatten() {
                findings.add("ciff", &self.ciff_file, message);
            }
        }
    }
}

fn opened<T>(
    subject: &Subject,
    name: &str,
    findings: &mut Findings,
    open: impl FnOnce(&Subject, &str) -> Checked<T>,
) -> Option<T> {
    if !subject.is_sound(name) {
        return None;
    }
    open(subject, name).map_err(|f| findings.push(f)).ok()
}

fn failed(folder: &str) -> impl Fn(SparseError) -> Finding {
    move |error| Finding::new(CHECK, folder, one_line(&error))
}

/// The next document's name.
fn name(reader: &mut CiffReader) -> Entry {
    let record = reader.next_document().map_err(|e| e.to_string())?;
    Ok(record.map(|record| record.collection_docid))
}

impl Index {
    fn open(subject: &Subject, folder: &str) -> Checked<Self> {
        let index = guarded(CHECK, folder, || {
            SparseIndex::open(&subject.path(folder)).map_err(failed(folder))
        })?;
        // Tantivy opens an index without its positions and answers phrases wrongly.
        if let Some(file) = index.missing_files().first() {
            return Err(Finding::new(
                CHECK,
                &format!("{folder}/{file}"),
                "is missing",
            ));
        }
        Ok(Self {
            index,
            step: InStep::new("document", 0),
            sampled: 0,
            outranked: Vec::new(),
        })
    }

    fn follow(
        &mut self,
        document: &SparseDocument,
        sampled: bool,
        folder: &str,
        findings: &mut Findings,
    ) -> Result<(), SparseError> {
        let Self { index, step, .. } = self;
        let mut row = step.read() as u32;
        let (place, message) = step.expect(document.chunk_id, || {
            if u64::from(row) == index.len() {
                return Ok(None);
            }
            row += 1;
            let ids = index.ids(row - 1).map_err(|e| one_line(&e));
            ids.map(|(chunk_id, _)| Some(chunk_id))
        });
        if let Some(message) = message {
            findings.add(CHECK, folder, message);
        }
        match place {
            Some(row) if sampled => self.search(row as u32, document, folder, findings),
            _ => Ok(()),
        }
    }

    fn search(
        &mut self,
        row: u32,
        document: &SparseDocument,
        folder: &str,
        findings: &mut Findings,
    ) -> Result<(), SparseError> {
        self.sampled += 1;
        let id = document.chunk_id;
        let (_, doc_id) = self.index.ids(row)?;
        if doc_id != document.doc_id {
            let message = format!(
                "`{id}` is of `{doc_id}` where `{}` belongs",
                document.doc_id
            );
            findings.add(CHECK, folder, message);
        }
        if let Some(field) = self.index.unlike(row, document)? {
            let message = format!("document {row} (`{id}`) was not indexed with its {field}");
            findings.add(CHECK, folder, message);
        }
        if !self.index.is_in_first(row, document.text, TOP, TEXT)? {
            self.outranked.push(id.to_owned());
        }
        Ok(())
    }
}

impl Ciff {
    /// Opens the file and reads past its postings, which must add up to what its header says.
    fn open(subject: &Subject, name: &str) -> Checked<Self> {
        let finding = |message: String| Finding::new("ciff", name, message);
        let path = subject.path(name);
        let mut reader = CiffReader::open(&path).map_err(|e| finding(e.to_string()))?;
        let mut tokens = 0i64;
        while let Some(list) = reader.next_list().map_err(|e| finding(e.to_string()))? {
            tokens = tokens.saturating_add(list.cf);
        }
        let total = reader.header().total_terms_in_collection;
        if tokens != total {
            let message = format!("has {tokens} tokens in its postings, {total} in its header");
            return Err(finding(message));
        }
        Ok(Self {
            reader,
            step: InStep::new("document", 0),
        })
    }
}
