//! The vectors of a shard, and with them the rows of a dense index.

use std::collections::HashMap;

use arrow::{
    array::{AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float32Type},
};

use super::{
    Finding, Findings, Subject,
    dense::Dense,
    model::{Again, Model},
    part::{self, Checked},
};
use crate::{job::spec::VectorType, model::TextKind, store::Dataset};

const CHECK: &str = "vectors";

/// The chunks' texts, or the queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Text,
    Queries,
}

impl Side {
    pub fn dataset(self) -> Dataset {
        match self {
            Side::Text => Dataset::TextVectors,
            Side::Queries => Dataset::QueryVectors,
        }
    }

    pub fn kind(self) -> TextKind {
        match self {
            Side::Text => TextKind::Document,
            Side::Queries => TextKind::Query,
        }
    }
}

/// A row that was embedded, and so must have a vector.
pub struct Embedded<'a> {
    pub id: &'a str,
    pub title: Option<&'a str>,
    pub text: &'a str,
    /// Whether the dense index takes it.
    pub indexed: bool,
    pub sampled: bool,
}

/// Compares a part of vectors with the rows it was made of, and the next rows of the index with it.
pub fn check(
    subject: &Subject,
    model: &Model,
    (side, shard): (Side, usize),
    rows: &[Embedded],
    dense: &mut Dense,
    findings: &mut Findings,
) {
    let name = part::name(side.dataset(), shard);
    if rows.is_empty() && !subject.path(&name).exists() {
        return;
    }
    if !subject.is_sound(&name) {
        return dense.lose(&name, findings);
    }
    let mut walk = Walk {
        model,
        name: &name,
        dim: subject.manifest.dim,
        tolerance: match subject.manifest.parameters.output.vectors {
            VectorType::F32 => 1e-3,
            VectorType::F16 => 5e-3,
        },
        rows: InOrder::new(rows),
        again: Vec::new(),
    };
    let read = part::each_batch(subject, &name, &[id_column(side), "vector"], |batch| {
        walk.batch(batch, dense, findings)
    });
    if let Err(finding) = read {
        findings.push(finding);
        return dense.lose(&name, findings);
    }
    if let Some(message) = walk.rows.finish() {
        findings.add(CHECK, &name, message);
    }
    model.repeat(side, &walk.again, &name, findings);
}

fn id_column(side: Side) -> &'static str {
    match side {
        Side::Text => "chunk_id",
        Side::Queries => "query_id",
    }
}

/// A walk along one part.
struct Walk<'a> {
    model: &'a Model<'a>,
    name: &'a str,
    dim: usize,
    tolerance: f32,
    rows: InOrder<'a>,
    again: Vec<Again>,
}

impl Walk<'_> {
    fn batch(
        &mut self,
        batch: &RecordBatch,
        dense: &mut Dense,
        findings: &mut Findings,
    ) -> Checked<()> {
        let vectors = batch.column(1).as_fixed_size_list();
        let values = cast(vectors.values(), &DataType::Float32)
            .map_err(|e| Finding::new(CHECK, self.name, e.to_string()))?;
        let values = values.as_primitive::<Float32Type>().values();
        for (i, id) in batch.column(0).as_string::<i32>().iter().enumerate() {
            let vector = &values[i * self.dim..(i + 1) * self.dim];
            self.vector(id.unwrap_or_default(), vector, dense, findings);
        }
        Ok(())
    }

    fn vector(&mut self, id: &str, vector: &[f32], dense: &mut Dense, findings: &mut Findings) {
        let (row, message) = self.rows.next(id);
        for message in [message, self.odd(id, vector)].into_iter().flatten() {
            findings.add(CHECK, self.name, message);
        }
        let sampled = row.is_some_and(|row| row.sampled);
        if row.is_none_or(|row| row.indexed) {
            dense.follow(id, vector, sampled, findings);
        }
        if let Some(row) = row.filter(|_| sampled && self.model.is_there()) {
            self.again.push(Again {
                id: row.id.to_owned(),
                title: row.title.map(str::to_owned),
                text: row.text.to_owned(),
                vector: vector.to_vec(),
            });
        }
    }

    /// What is wrong with a vector's numbers.
    fn odd(&self, id: &str, vector: &[f32]) -> Option<String> {
        if let Some(x) = vector.iter().find(|x| !x.is_finite()) {
            return Some(format!("the vector of `{id}` is not finite: it has {x}"));
        }
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        let wrong = self.model.unit == Some(true) && (length - 1.0).abs() > self.tolerance;
        wrong.then(|| format!("the vector of `{id}` is of length {length}, not 1"))
    }
}

/// Rows that are to come in their order.
struct InOrder<'a> {
    rows: &'a [Embedded<'a>],
    places: HashMap<&'a str, usize>,
    next: usize,
}

impl<'a> InOrder<'a> {
    fn new(rows: &'a [Embedded<'a>]) -> Self {
        let places = rows
            .iter()
            .enumerate()
            .map(|(i, row)| (row.id, i))
            .collect();
        Self {
            rows,
            places,
            next: 0,
        }
    }

    /// The row of this id, and what is wrong with its coming now.
    fn next(&mut self, id: &str) -> (Option<&'a Embedded<'a>>, Option<String>) {
        let Some(&place) = self.places.get(id) else {
            return (None, Some(format!("`{id}` was not embedded, or failed")));
        };
        let message = match place.checked_sub(self.next) {
            Some(0) => None,
            Some(missing) => Some(self.missing(missing)),
            None => Some(format!("`{id}` is out of order, or there twice")),
        };
        self.next = self.next.max(place + 1);
        (self.rows.get(place), message)
    }

    fn missing(&self, n: usize) -> String {
        let first = self.rows.get(self.next).map_or("", |row| row.id);
        match n {
            1 => format!("`{first}` is missing"),
            n => format!("`{first}` and {} more after it are missing", n - 1),
        }
    }

    fn finish(&self) -> Option<String> {
        let missing = self.rows.len() - self.next;
        (missing > 0).then(|| self.missing(missing))
    }
}
