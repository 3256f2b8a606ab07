//! Tells the documents of a batch from the rows that cannot be one.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, StringBuilder,
};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, SchemaRef, UInt32Type, UInt64Type};

use super::CorpusError;
use super::files::CorpusFile;
use super::scan::query;
use super::table::{FILE, INVALID, ROW};
use crate::job::spec::Corpus;

/// Code points of a rejected row's text that are kept with the reason.
const EXCERPT_CHARS: usize = 300;

/// A row that cannot be a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The row's id, or its file and row number where it has none.
    pub id: String,
    /// What is wrong, where, and what to do about it.
    pub reason: String,
    /// The beginning of the row's text.
    pub input: String,
}

/// Where a row is: the index into [`CorpusScan::files`], and its number in the file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub file: usize,
    pub row: u64,
}

/// Some documents, in corpus order, and the rows among them that are none.
#[derive(Debug)]
pub struct CorpusBatch {
    /// Columns as in [`CorpusScan::schema`].
    pub documents: RecordBatch,
    /// Where each document is.
    pub positions: Vec<Position>,
    pub rejected: Vec<Rejected>,
}

/// File and row number, for messages.
pub fn place(files: &[CorpusFile], position: Position) -> String {
    let path = files[position.file].path.display();
    format!("{path}, row {}", position.row)
}

/// Looks at the rows of a corpus in order.
pub struct Judge {
    pub files: Arc<[CorpusFile]>,
    pub corpus: Corpus,
    /// Of the documents.
    pub schema: SchemaRef,
    /// Ids that occur more than once.
    pub duplicates: Arc<HashSet<String>>,
    /// Those of the duplicates that have been handed out once.
    pub kept: HashSet<String>,
}

impl Judge {
    pub fn split(&mut self, batch: &RecordBatch) -> Result<CorpusBatch, CorpusError> {
        let ids = cast(&column(batch, &self.corpus.id)?, &DataType::Utf8).map_err(query)?;
        let texts = column(batch, &self.corpus.text)?;
        let (ids, texts) = (ids.as_string::<i32>(), texts.as_string::<i32>());
        let invalid = column(batch, INVALID)?;
        let invalid = invalid.as_string::<i32>();
        let positions = positions(batch)?;
        let mut keep = Vec::with_capacity(batch.num_rows());
        let mut rejected = Vec::new();
        for (row, position) in positions.iter().enumerate() {
            let id = value(ids, row);
            let text = value(texts, row);
            let reason = self.fault(id, text, value(invalid, row));
            keep.push(reason.is_none());
            if let Some(reason) = reason {
                let place = place(&self.files, *position);
                rejected.push(Rejected {
                    id: id.filter(|id| !id.is_empty()).unwrap_or(&place).to_string(),
                    reason: format!("{place}: {reason}"),
                    input: text.unwrap_or("").chars().take(EXCERPT_CHARS).collect(),
                });
            }
        }
        let documents = self.documents(batch, ids)?;
        let kept = positions.iter().zip(&keep).filter(|(_, keep)| **keep);
        let positions = kept.map(|(position, _)| *position).collect();
        let documents = self.keep(&documents, &BooleanArray::from(keep))?;
        Ok(CorpusBatch {
            documents,
            positions,
            rejected,
        })
    }

    /// Why a row is no document, if it is none.
    fn fault(
        &mut self,
        id: Option<&str>,
        text: Option<&str>,
        invalid: Option<&str>,
    ) -> Option<String> {
        let corpus = &self.corpus;
        if let Some(column) = invalid {
            return Some(format!("`{column}` is not UTF-8; convert it"));
        }
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Some(format!(
                "`{}` is null or empty; every document needs an id",
                corpus.id
            ));
        };
        if id.contains(char::is_control) {
            return Some(format!(
                "`{}` has a line break or another control character; remove it",
                corpus.id
            ));
        }
        let Some(text) = text else {
            return Some(format!(
                "`{}` is null; fill it, or leave such rows out with `corpus.filter`",
                corpus.text
            ));
        };
        if text.trim().is_empty() {
            return Some(format!(
                "`{}` has no text; fill it, or leave such rows out with `corpus.filter`",
                corpus.text
            ));
        }
        if text.len() > corpus.max_document_bytes {
            return Some(format!(
                "`{}` has {} bytes; split it, or raise `corpus.max_document_bytes` ({})",
                corpus.text,
                text.len(),
                corpus.max_document_bytes
            ));
        }
        if self.duplicates.contains(id) && !self.kept.insert(id.to_string()) {
            return Some(format!(
                "`{}` {id} occurs before; ids must be unique",
                corpus.id
            ));
        }
        None
    }

    /// All rows of a batch under the documents' column names.
    fn documents(
        &self,
        batch: &RecordBatch,
        ids: &StringArray,
    ) -> Result<Vec<ArrayRef>, CorpusError> {
        let title = self.corpus.title.as_ref();
        let titles = title.map(|title| column(batch, title)).transpose()?;
        let titles = match titles.as_ref().and_then(|t| t.as_string_opt::<i32>()) {
            Some(titles) => filled_or_null(titles),
            None => Arc::new(StringArray::new_null(batch.num_rows())),
        };
        let mut columns: Vec<ArrayRef> = vec![Arc::new(ids.clone()), titles];
        columns.push(column(batch, &self.corpus.text)?);
        for name in self.corpus.intents.iter().chain(&self.corpus.passthrough) {
            columns.push(column(batch, name)?);
        }
        Ok(columns)
    }

    fn keep(&self, columns: &[ArrayRef], keep: &BooleanArray) -> Result<RecordBatch, CorpusError> {
        let columns = columns.iter().map(|column| filter(column, keep));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(query)?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(query)
    }
}

fn column(batch: &RecordBatch, name: &str) -> Result<ArrayRef, CorpusError> {
    let found = batch.column_by_name(name).cloned();
    found.ok_or_else(|| CorpusError::Query(format!("column {name} is missing")))
}

fn value(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

fn positions(batch: &RecordBatch) -> Result<Vec<Position>, CorpusError> {
    let files = column(batch, FILE)?;
    let rows = column(batch, ROW)?;
    let files = files.as_primitive::<UInt32Type>().values().iter();
    let rows = rows.as_primitive::<UInt64Type>().values().iter();
    let pairs = files.zip(rows).map(|(file, row)| Position {
        file: *file as usize,
        row: *row,
    });
    Ok(pairs.collect())
}

/// Titles of white space only become null.
fn filled_or_null(titles: &StringArray) -> ArrayRef {
    let mut out = StringBuilder::new();
    for title in titles {
        out.append_option(title.filter(|title| !title.trim().is_empty()));
    }
    Arc::new(out.finish())
}
