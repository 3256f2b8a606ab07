//! A set: documents, and questions with the spans of text that answer them.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::ChunksError;
use super::span::Span;
use crate::eval::half::Half;
use crate::model::Embed;
use crate::search::columns::{self, Columns};
use crate::text::CodePoints;

pub struct Set {
    pub documents: Vec<Document>,
    pub questions: Vec<Question>,
}

pub struct Document {
    pub id: String,
    pub text: String,
    /// The embedder's tokens, in code points.
    tokens: Vec<(usize, usize)>,
}

pub struct Question {
    pub id: String,
    pub text: String,
    /// All spans that answer it.
    pub answers: Vec<Span>,
}

impl Set {
    /// Reads a folder: `corpus.parquet` (doc_id, text), `queries.parquet` (query_id, text) and `answers.parquet`
    /// (query_id, doc_id, start, end: code points, half open). Only the half's documents, and the questions on them. Without
    /// `marks`, every line break becomes a space.
    pub fn read(
        folder: &Path,
        half: Option<Half>,
        marks: bool,
        embedder: &dyn Embed,
    ) -> Result<Self, ChunksError> {
        let corpus = columns::read(&folder.join("corpus.parquet"), "doc_id", "text", None)?;
        let ids: HashSet<String> = corpus.first.iter().cloned().collect();
        let texts = corpus.first.into_iter().zip(corpus.second);
        let texts = texts.filter(|(id, _)| half.is_none_or(|half| half.has(id)));
        let document = |(id, text): (String, String)| {
            let text = match marks {
                true => text,
                false => text.replace(['\n', '\r'], " "),
            };
            Document::new(id, text, embedder)
        };
        let documents: Vec<Document> = texts.map(document).collect::<Result<_, _>>()?;
        let path = folder.join("answers.parquet");
        let mut answers = read_answers(&path, &documents, &ids)?;
        let asked = columns::read(&folder.join("queries.parquet"), "query_id", "text", None)?;
        let questions = asked.first.into_iter().zip(asked.second);
        let questions = questions.filter_map(|(id, text)| {
            let answers = answers.remove(&id)?;
            Some(Question { id, text, answers })
        });
        let questions: Vec<Question> = questions.collect();
        if questions.is_empty() {
            return Err(ChunksError::NoQuestions(folder.to_owned()));
        }
        Ok(Self {
            documents,
            questions,
        })
    }
}

/// The spans in these documents, of all that there are, by question.
fn read_answers(
    path: &Path,
    documents: &[Document],
    ids: &HashSet<String>,
) -> Result<HashMap<String, Vec<Span>>, ChunksError> {
    let read = |end: &str| columns::read(path, "query_id", "doc_id", Some(end));
    let (starts, ends): (Columns, Columns) = (read("start")?, read("end")?);
    let by_id = documents
        .iter()
        .enumerate()
        .map(|(i, d)| (d.id.as_str(), i));
    let by_id: HashMap<&str, usize> = by_id.collect();
    let mut answers: HashMap<String, Vec<Span>> = HashMap::new();
    let rows = starts.first.into_iter().zip(starts.second);
    let spans = starts.integers.into_iter().zip(ends.integers);
    for (row, ((question, document), (start, end))) in rows.zip(spans).enumerate() {
        let Some(&document) = by_id.get(document.as_str()) else {
            if ids.contains(&document) {
                continue;
            }
            return Err(ChunksError::NoDocument {
                path: path.to_owned(),
                row,
                document,
            });
        };
        let points = documents[document].text.chars().count() as i64;
        if !(0 <= start && start < end && end <= points) {
            return Err(ChunksError::Answer {
                path: path.to_owned(),
                row,
                points,
            });
        }
        answers.entry(question).or_default().push(Span {
            document,
            start: start as usize,
            end: end as usize,
        });
    }
    Ok(answers)
}

impl Document {
    fn new(id: String, text: String, embedder: &dyn Embed) -> Result<Self, ChunksError> {
        let offsets = crate::chunk::token_offsets(&text, embedder)?;
        let (mut starts, mut ends) = (CodePoints::new(&text), CodePoints::new(&text));
        let tokens = offsets
            .into_iter()
            .map(|(start, end)| (starts.at(start), ends.at(end)))
            .collect();
        Ok(Self { id, text, tokens })
    }

    /// Tokens that begin in a part of it, as the whole is tokenised: the same for all chunkers.
    pub fn tokens(&self, start: usize, end: usize) -> usize {
        self.before(end) - self.before(start)
    }

    /// The end of a part that begins at `start` and has `tokens`, at least one.
    pub fn end_of(&self, start: usize, tokens: usize) -> usize {
        let last = self.before(start) + tokens - 1;
        self.tokens.get(last).map_or(start, |token| token.1)
    }

    fn before(&self, point: usize) -> usize {
        self.tokens.partition_point(|&(start, _)| start < point)
    }
}
