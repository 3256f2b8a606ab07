//! A document of a generation with its chunks, their intents and questions, and where other methods would cut it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use datafusion::common::DataFusionError;
use datafusion::prelude::{Expr, col, lit};

use crate::chunk::ChunkError;
use crate::corpus;
use crate::engine::functions::cut;
use crate::job::spec::{self, ChunkMethod};
use crate::model::Embed;
use crate::search::passages::ordinal;
use crate::store::Dataset;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    pub doc_id: String,
    pub title: Option<String>,
    pub text: String,
    /// In order.
    pub chunks: Vec<Chunk>,
    pub others: Vec<Cuts>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    pub chunk_id: String,
    /// Code points into the document's text, half open.
    pub start: usize,
    pub end: usize,
    pub tokens: u32,
    /// With the cosine of each to the chunk, best first.
    pub intents: Vec<(String, f32)>,
    pub keywords: Vec<String>,
    pub questions: Vec<Question>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    pub text: String,
    /// `intent`, `sample`, `keyword` or `vocabulary`.
    pub origin: String,
    /// By the job's filter, or else log P(question | chunk) − log P(question | empty passage), per token.
    pub score: Option<f32>,
    /// Whether the indexes took it.
    pub indexed: bool,
}

impl Question {
    pub fn shown_score(&self) -> String {
        self.score.map_or("–".into(), |score| format!("{score:.3}"))
    }
}

/// Where a method begins chunks.
#[derive(Debug, Clone, PartialEq)]
pub struct Cuts {
    pub method: &'static str,
    pub chunks: usize,
    /// Code points in order, without the document's beginning.
    pub starts: Vec<usize>,
}

/// The methods that cut before a part of a chunk, and its text.
pub type Part<'a> = (Vec<&'static str>, &'a str);

/// Methods that are shown beside the document's own.
const OTHERS: [ChunkMethod; 5] = [
    ChunkMethod::Boundary,
    ChunkMethod::Fixed,
    ChunkMethod::Paragraph,
    ChunkMethod::Recursive,
    ChunkMethod::Cluster,
];

/// Reads a document; None if the generation has none of this id.
pub async fn read(generation: &Path, doc_id: &str) -> Result<Option<Document>, ReadError> {
    let of_document = || col("doc_id").eq(lit(doc_id));
    let columns = ["doc_id", "title", "text"];
    let documents = rows(generation, Dataset::Documents, of_document(), &columns).await?;
    let Some(batch) = documents.iter().find(|batch| batch.num_rows() > 0) else {
        return Ok(None);
    };
    let title = batch.column(1).as_string::<i32>();
    let mut document = Document {
        doc_id: doc_id.to_owned(),
        title: title.is_valid(0).then(|| title.value(0).to_owned()),
        text: batch.column(2).as_string::<i32>().value(0).to_owned(),
        ..Document::default()
    };
    let columns = ["chunk_id", "start", "end", "tokens", "intents"];
    for batch in rows(generation, Dataset::Chunks, of_document(), &columns).await? {
        document.chunks.extend(chunks(&batch));
    }
    document
        .chunks
        .sort_by_key(|chunk| (chunk.start, chunk.end));
    if !document.chunks.is_empty() {
        let ids = document.chunks.iter().map(|c| lit(&*c.chunk_id));
        let of_chunks = col("chunk_id").in_list(ids.collect(), false);
        let mut keywords = keywords(generation, &of_chunks).await?;
        let mut questions = questions(generation, &of_chunks).await?;
        for chunk in &mut document.chunks {
            chunk.keywords = keywords.remove(&chunk.chunk_id).unwrap_or_default();
            let of_chunk = questions.remove(&chunk.chunk_id).unwrap_or_default();
            chunk.questions = of_chunk.into_values().collect();
        }
    }
    Ok(Some(document))
}

fn has(generation: &Path, dataset: Dataset) -> bool {
    let parts = dataset.parts(generation);
    parts.is_ok_and(|parts| !parts.is_empty())
}

/// By chunk.
async fn keywords(
    generation: &Path,
    of_chunks: &Expr,
) -> Result<BTreeMap<String, Vec<String>>, ReadError> {
    let mut keywords = BTreeMap::new();
    if !has(generation, Dataset::ChunkTopics) {
        return Ok(keywords);
    }
    let columns = ["chunk_id", "keywords"];
    for batch in rows(
        generation,
        Dataset::ChunkTopics,
        of_chunks.clone(),
        &columns,
    )
    .await?
    {
        let (ids, lists) = (
            batch.column(0).as_string::<i32>(),
            batch.column(1).as_list::<i32>(),
        );
        for row in 0..batch.num_rows() {
            let list = lists.value(row);
            let texts = list.as_struct().column(0).as_string::<i32>();
            let texts = texts.iter().flatten().map(str::to_owned).collect();
            keywords.insert(ids.value(row).to_owned(), texts);
        }
    }
    Ok(keywords)
}

/// By chunk, and in it by the number of the question.
type Questions = BTreeMap<String, BTreeMap<Option<u64>, Question>>;

async fn questions(generation: &Path, of_chunks: &Expr) -> Result<Questions, ReadError> {
    let mut questions = Questions::new();
    if !has(generation, Dataset::Queries) {
        return Ok(questions);
    }
    let columns = ["chunk_id", "query_id", "text", "origin"];
    let batches = rows(generation, Dataset::Queries, of_chunks.clone(), &columns).await?;
    let text = |batch: &RecordBatch, column: usize, row: usize| {
        batch
            .column(column)
            .as_string::<i32>()
            .value(row)
            .to_owned()
    };
    let all = || {
        batches
            .iter()
            .flat_map(|b| (0..b.num_rows()).map(move |row| (b, row)))
    };
    let ids: Vec<Expr> = all().map(|(batch, row)| lit(text(batch, 1, row))).collect();
    let decided = decided(generation, ids).await?;
    for (batch, row) in all() {
        let id = text(batch, 1, row);
        let (score, indexed) = decided.get(&id).copied().unwrap_or((None, true));
        let question = Question {
            text: text(batch, 2, row),
            origin: text(batch, 3, row),
            score,
            indexed,
        };
        let of_chunk = questions.entry(text(batch, 0, row)).or_default();
        of_chunk.insert(ordinal(&id), question);
    }
    Ok(questions)
}

/// The scores of these questions, and whether the indexes took them.
async fn decided(
    generation: &Path,
    ids: Vec<Expr>,
) -> Result<BTreeMap<String, (Option<f32>, bool)>, ReadError> {
    let mut decided = BTreeMap::new();
    // What selected them comes second, as it knows better.
    for (dataset, columns) in [
        (Dataset::Scores, &["query_id", "gain"][..]),
        (Dataset::Selection, &["query_id", "score", "taken"]),
    ] {
        if ids.is_empty() || !has(generation, dataset) {
            continue;
        }
        let wanted = col("query_id").in_list(ids.clone(), false);
        for batch in rows(generation, dataset, wanted, columns).await? {
            let scores = batch.column(1).as_primitive::<Float32Type>();
            for (row, id) in batch.column(0).as_string::<i32>().iter().enumerate() {
                let score = scores.is_valid(row).then(|| scores.value(row));
                let taken = columns.len() < 3 || batch.column(2).as_boolean().value(row);
                let known = decided.entry(id.unwrap_or_default().to_owned());
                let known: &mut (Option<f32>, bool) = known.or_default();
                *known = (score.or(known.0), taken);
            }
        }
    }
    Ok(decided)
}

fn chunks(batch: &RecordBatch) -> impl Iterator<Item = Chunk> {
    let ids = batch.column(0).as_string::<i32>();
    let point = |column: usize, row| {
        let points = batch.column(column).as_primitive::<UInt64Type>();
        points.value(row) as usize
    };
    (0..batch.num_rows()).map(move |row| Chunk {
        chunk_id: ids.value(row).to_owned(),
        start: point(1, row),
        end: point(2, row),
        tokens: batch.column(3).as_primitive::<UInt32Type>().value(row),
        intents: intents(&batch.column(4).as_list::<i32>().value(row)),
        keywords: Vec::new(),
        questions: Vec::new(),
    })
}

fn intents(list: &ArrayRef) -> Vec<(String, f32)> {
    let list = list.as_struct();
    let texts = list.column(0).as_string::<i32>();
    let relevances = list.column(1).as_primitive::<Float32Type>();
    let intent = |i| (texts.value(i).to_owned(), relevances.value(i));
    (0..list.len()).map(intent).collect()
}

/// The rows of a dataset for which `condition` holds.
async fn rows(
    generation: &Path,
    dataset: Dataset,
    condition: Expr,
    columns: &[&str],
) -> Result<Vec<RecordBatch>, ReadError> {
    let path = generation.join(dataset.folder());
    let selected = corpus::select(&path, condition, columns).await;
    selected.map_err(|source| ReadError {
        path,
        source: Box::new(source),
    })
}

impl Document {
    /// Cuts it by other methods, with the job's target and cap.
    pub fn compare(
        &mut self,
        settings: &spec::Chunk,
        embedder: &dyn Embed,
    ) -> Result<(), ChunkError> {
        for method in OTHERS {
            if method == settings.method {
                continue;
            }
            let settings = spec::Chunk {
                method,
                ..settings.clone()
            };
            let source = (self.title.as_deref(), self.text.as_str());
            let chunked = cut(&settings, source, &[], embedder)?;
            let starts = chunked.chunks.iter().skip(1).map(|chunk| chunk.start);
            self.others.push(Cuts {
                method: method.name(),
                chunks: chunked.chunks.len(),
                starts: starts.collect(),
            });
        }
        Ok(())
    }

    /// The parts of each chunk between the places where other methods cut, and the names of those that cut before each.
    pub fn parts(&self) -> Vec<Vec<Part<'_>>> {
        let mut cuts: Vec<(usize, &'static str)> = Vec::new();
        for other in &self.others {
            cuts.extend(other.starts.iter().map(|&start| (start, other.method)));
        }
        cuts.sort_by_key(|cut| cut.0);
        let mut bytes: Vec<usize> = self.text.char_indices().map(|(byte, _)| byte).collect();
        bytes.push(self.text.len());
        let text = |start: usize, end: usize| &self.text[bytes[start]..bytes[end]];
        let parts = |chunk: &Chunk| {
            let first = cuts.partition_point(|cut| cut.0 < chunk.start);
            let inside = cuts[first..].iter().take_while(|cut| cut.0 < chunk.end);
            let mut parts = vec![(chunk.start, Vec::new())];
            for &(start, method) in inside {
                if parts.last().is_none_or(|(last, _)| *last < start) {
                    parts.push((start, Vec::new()));
                }
                parts
                    .last_mut()
                    .into_iter()
                    .for_each(|part| part.1.push(method));
            }
            let ends: Vec<usize> = parts
                .iter()
                .skip(1)
                .map(|part| part.0)
                .chain([chunk.end])
                .collect();
            let part = |((start, methods), end)| (methods, text(start, end));
            parts.into_iter().zip(ends).map(part).collect()
        };
        self.chunks.iter().map(parts).collect()
    }
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct ReadError {
    path: PathBuf,
    source: Box<DataFusionError>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn document() -> Document {
        let question = |text: &str, score, indexed| Question {
            text: text.into(),
            origin: "sample".into(),
            score,
            indexed,
        };
        Document {
            doc_id: "d<1>".into(),
            title: Some("Ä & B".into()),
            text: "One é. Two.\n\nThree.".into(),
            chunks: vec![
                Chunk {
                    chunk_id: "d<1>#0".into(),
                    start: 0,
                    end: 11,
                    tokens: 6,
                    intents: vec![("What is <one>?".into(), 0.625)],
                    keywords: vec!["one".into(), "<two>".into()],
                    questions: vec![
                        question("why two?", Some(1.5), true),
                        question("who?", Some(-0.25), false),
                    ],
                },
                Chunk {
                    chunk_id: "d<1>#1".into(),
                    start: 13,
                    end: 19,
                    tokens: 2,
                    intents: Vec::new(),
                    keywords: Vec::new(),
                    questions: Vec::new(),
                },
            ],
            others: vec![
                Cuts {
                    method: "fixed",
                    chunks: 3,
                    starts: vec![7, 13],
                },
                Cuts {
                    method: "paragraph",
                    chunks: 2,
                    starts: vec![13],
                },
            ],
        }
    }

    #[test]
    fn a_chunk_is_parted_where_others_cut() {
        let document = document();
        let expected: [Vec<Part>; 2] = [
            vec![(vec![], "One é. "), (vec!["fixed"], "Two.")],
            vec![(vec!["fixed", "paragraph"], "Three.")],
        ];
        assert_eq!(document.parts(), expected);
    }
}
