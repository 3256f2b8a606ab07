//! The rows of one shard, as the checks need them.

use std::collections::{BTreeSet, HashMap};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{UInt32Type, UInt64Type},
};

use super::{Findings, Subject, part};
use crate::{
    engine::stage::Stage,
    expand::queries::Origin,
    store::{Dataset, dataset::text},
};

pub struct Document {
    pub id: String,
    pub title: Option<String>,
    pub text: String,
    pub position: u64,
}

pub struct Intent {
    pub document: String,
    pub ordinal: u32,
    pub text: String,
}

pub struct Chunk {
    pub id: String,
    pub document: String,
    pub title: Option<String>,
    pub ordinal: u32,
    /// Code points into the document.
    pub start: u64,
    pub end: u64,
    pub text: String,
    pub tokens: u32,
    pub intents: Vec<String>,
}

pub struct Query {
    pub id: String,
    pub chunk: String,
    pub text: String,
    /// Words for the sparse index alone.
    pub is_vocabulary: bool,
    /// Whether the indexes took it.
    pub taken: bool,
}

/// What the parts of a shard hold; None where a part cannot be read, which is reported already.
pub struct Rows {
    pub documents: Option<Vec<Document>>,
    pub intents: Option<Vec<Intent>>,
    pub chunks: Option<Vec<Chunk>>,
    pub queries: Option<Vec<Query>>,
    /// The ids of chunks with topics and keywords, and of queries with scores.
    pub described: Option<Vec<String>>,
    pub scored: Option<Vec<String>>,
    pub failed: Failed,
}

impl Rows {
    pub fn read(subject: &Subject, shard: usize, findings: &mut Findings) -> Self {
        Self {
            documents: documents(subject, shard, findings),
            intents: intents(subject, shard, findings),
            chunks: chunks(subject, shard, findings),
            queries: queries(subject, shard, findings),
            described: ids(subject, (Dataset::ChunkTopics, shard), "chunk_id", findings),
            scored: ids(subject, (Dataset::Scores, shard), "query_id", findings),
            failed: Failed::read(subject, shard, findings),
        }
    }
}

/// Reads a part, row by row; a dataset that the generation does not have has no rows.
fn read<T>(
    subject: &Subject,
    (dataset, shard): (Dataset, usize),
    columns: &[&str],
    findings: &mut Findings,
    row: impl Fn(&RecordBatch, usize) -> T,
) -> Option<Vec<T>> {
    let name = part::name(dataset, shard);
    if !subject.manifest.datasets.contains_key(dataset.folder()) && !subject.path(&name).exists() {
        return Some(Vec::new());
    }
    if !subject.is_sound(&name) {
        return None;
    }
    let mut rows = Vec::new();
    let read = part::each_batch(subject, &name, columns, |batch| {
        rows.extend((0..batch.num_rows()).map(|i| row(batch, i)));
        Ok(())
    });
    match read {
        Ok(()) => Some(rows),
        Err(finding) => {
            findings.push(finding);
            None
        }
    }
}

fn owned(batch: &RecordBatch, column: &str, i: usize) -> String {
    text(batch, column, i).unwrap_or_default().to_owned()
}

fn narrow(batch: &RecordBatch, column: &str, i: usize) -> u32 {
    let column = batch.column_by_name(column);
    column.map_or(0, |c| c.as_primitive::<UInt32Type>().value(i))
}

fn wide(batch: &RecordBatch, column: &str, i: usize) -> u64 {
    let column = batch.column_by_name(column);
    column.map_or(0, |c| c.as_primitive::<UInt64Type>().value(i))
}

fn documents(subject: &Subject, shard: usize, findings: &mut Findings) -> Option<Vec<Document>> {
    let columns = ["doc_id", "title", "text", "position"];
    let row = |batch: &RecordBatch, i| Document {
        id: owned(batch, "doc_id", i),
        title: text(batch, "title", i).map(str::to_owned),
        text: owned(batch, "text", i),
        position: wide(batch, "position", i),
    };
    read(
        subject,
        (Dataset::Documents, shard),
        &columns,
        findings,
        row,
    )
}

fn intents(subject: &Subject, shard: usize, findings: &mut Findings) -> Option<Vec<Intent>> {
    let columns = ["doc_id", "ordinal", "text"];
    let row = |batch: &RecordBatch, i| Intent {
        document: owned(batch, "doc_id", i),
        ordinal: narrow(batch, "ordinal", i),
        text: owned(batch, "text", i),
    };
    read(subject, (Dataset::Intents, shard), &columns, findings, row)
}

fn chunks(subject: &Subject, shard: usize, findings: &mut Findings) -> Option<Vec<Chunk>> {
    let columns = [
        "chunk_id", "doc_id", "title", "ordinal", "start", "end", "text", "tokens", "intents",
    ];
    let row = |batch: &RecordBatch, i| Chunk {
        id: owned(batch, "chunk_id", i),
        document: owned(batch, "doc_id", i),
        title: text(batch, "title", i).map(str::to_owned),
        ordinal: narrow(batch, "ordinal", i),
        start: wide(batch, "start", i),
        end: wide(batch, "end", i),
        text: owned(batch, "text", i),
        tokens: narrow(batch, "tokens", i),
        intents: served(batch, i),
    };
    read(subject, (Dataset::Chunks, shard), &columns, findings, row)
}

fn served(batch: &RecordBatch, i: usize) -> Vec<String> {
    let Some(lists) = batch.column_by_name("intents") else {
        return Vec::new();
    };
    let served = lists.as_list::<i32>().value(i);
    let texts = served.as_struct().column(0).as_string::<i32>().iter();
    texts.flatten().map(str::to_owned).collect()
}

fn ids(
    subject: &Subject,
    part: (Dataset, usize),
    column: &str,
    findings: &mut Findings,
) -> Option<Vec<String>> {
    read(subject, part, &[column], findings, |batch, i| {
        owned(batch, column, i)
    })
}

/// Which queries the indexes took is said beside them, if they did not take all.
fn queries(subject: &Subject, shard: usize, findings: &mut Findings) -> Option<Vec<Query>> {
    let columns = ["query_id", "chunk_id", "text", "origin"];
    let row = |batch: &RecordBatch, i| Query {
        id: owned(batch, "query_id", i),
        chunk: owned(batch, "chunk_id", i),
        text: owned(batch, "text", i),
        is_vocabulary: text(batch, "origin", i) == Some(Origin::Vocabulary.name()),
        taken: true,
    };
    let mut queries = read(subject, (Dataset::Queries, shard), &columns, findings, row)?;
    let columns = ["query_id", "taken"];
    let row = |batch: &RecordBatch, i| {
        let taken = batch
            .column_by_name("taken")
            .is_none_or(|c| c.as_boolean().value(i));
        (owned(batch, "query_id", i), taken)
    };
    let decided = read(
        subject,
        (Dataset::Selection, shard),
        &columns,
        findings,
        row,
    )?;
    let decided: HashMap<&str, bool> = decided
        .iter()
        .map(|(id, taken)| (id.as_str(), *taken))
        .collect();
    for query in &mut queries {
        query.taken = decided.get(query.id.as_str()).copied().unwrap_or(true);
    }
    Some(queries)
}

/// The rows of a shard that went to quarantine, by stage.
#[derive(Default)]
pub struct Failed(Vec<(Stage, BTreeSet<String>)>);

impl Failed {
    fn read(subject: &Subject, shard: usize, findings: &mut Findings) -> Self {
        let mut failed = Vec::new();
        for stage in Stage::ALL {
            let name = Self::file(stage, shard);
            if !subject.is_sound(&name) {
                continue;
            }
            let mut ids = BTreeSet::new();
            let read = part::each_batch(subject, &name, &["stage", "id"], |batch| {
                let rows = 0..batch.num_rows();
                let own = rows.filter(|i| text(batch, "stage", *i) == Some(stage.name()));
                ids.extend(own.map(|i| owned(batch, "id", i)));
                Ok(())
            });
            match read {
                Ok(()) => failed.push((stage, ids)),
                Err(finding) => findings.push(finding),
            }
        }
        Self(failed)
    }

    /// The file, below the generation.
    pub fn file(stage: Stage, shard: usize) -> String {
        let folder = Dataset::Quarantine.folder();
        format!("{folder}/{}-{shard:05}.parquet", stage.name())
    }

    pub fn has(&self, stage: Stage, id: &str) -> bool {
        let mut own = self.0.iter().filter(|(other, _)| *other == stage);
        own.any(|(_, ids)| ids.contains(id))
    }

    pub fn of(&self, stage: Stage) -> impl Iterator<Item = &str> {
        let own = self.0.iter().filter(move |(other, _)| *other == stage);
        own.flat_map(|(_, ids)| ids).map(String::as_str)
    }
}
