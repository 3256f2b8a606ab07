//! Checks a corpus before its first row is read: every file's footer, and the columns the job names.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rayon::prelude::*;

use super::CorpusError;
use super::files::{CorpusFile, find};
use super::schema::{Strings, difference, open, shown, string_list, strings, with_types_of};
use super::source::Source;
use crate::job::nearest;
use crate::job::spec::Corpus;

const FOOTERS_AT_ONCE: usize = 32;

/// Reads every footer: the files with their rows, and the columns they all have.
pub fn footers(corpus: &Corpus) -> Result<(Vec<CorpusFile>, Schema), CorpusError> {
    let mut files = find(&corpus.path)?;
    let mut first: Option<(PathBuf, Schema)> = None;
    let read = footers_of(&files)?;
    for (file, footer) in files.iter_mut().zip(read) {
        let (rows, columns) = footer?;
        file.rows = rows;
        match &mut first {
            None => first = Some((file.path.clone(), columns)),
            Some((path, first)) => {
                if let Some(difference) = difference(first, &columns) {
                    return Err(CorpusError::Differs {
                        path: file.path.clone(),
                        first: path.clone(),
                        difference,
                    });
                }
                *first = with_types_of(first, &columns);
            }
        }
    }
    let columns = first.map(|(_, columns)| columns);
    Ok((files, columns.unwrap_or_else(Schema::empty)))
}

/// A file's rows and columns.
type Footer = Result<(u64, Schema), CorpusError>;

/// Rows and columns of each file. Many are read at once, as each waits for its storage.
fn footers_of(files: &[CorpusFile]) -> Result<Vec<Footer>, CorpusError> {
    let read = |file: &CorpusFile| {
        let source = Source::open(file)?;
        let footer = open(&file.path, &source).map_err(|error| source.blame(error));
        let (stored, metadata) = footer?;
        let rows = metadata.metadata().file_metadata().num_rows().max(0) as u64;
        Ok((rows, shown(&stored)))
    };
    let threads = FOOTERS_AT_ONCE.min(files.len());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| CorpusError::Query(error.to_string()))?;
    Ok(pool.install(|| files.par_iter().map(read).collect()))
}

/// The columns of the documents; fails on a named column that is missing or of another type.
pub fn output_schema(
    file: &CorpusFile,
    columns: &Schema,
    corpus: &Corpus,
) -> Result<SchemaRef, CorpusError> {
    let find = |key: &str, column: &str, expected, fits: &dyn Fn(&DataType) -> bool| {
        typed_column(file, columns, key, column, expected, fits)
    };
    let is_string = |data_type: &DataType| strings(data_type) == Some(Strings::One);
    let is_id = |data_type: &DataType| is_string(data_type) || data_type.is_integer();
    let is_list = |data_type: &DataType| strings(data_type) == Some(Strings::List);
    find("corpus.id", &corpus.id, "a string or an integer", &is_id)?;
    find("corpus.text", &corpus.text, "a string", &is_string)?;
    let mut fields = vec![
        Field::new("doc_id", DataType::Utf8, false),
        Field::new("title", DataType::Utf8, true),
        Field::new("text", DataType::Utf8, false),
    ];
    if let Some(title) = &corpus.title {
        // A column that never had a value has no type.
        let is_title = |data_type: &DataType| is_string(data_type) || data_type.is_null();
        find("corpus.title", title, "a string", &is_title)?;
    }
    if let Some(intents) = &corpus.intents {
        find("corpus.intents", intents, "a list of strings", &is_list)?;
        fields.push(Field::new("intents", string_list(), true));
    }
    for column in &corpus.passthrough {
        let found = find("corpus.passthrough", column, "anything", &|_| true)?;
        fields.push(found.clone());
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn typed_column<'a>(
    file: &CorpusFile,
    columns: &'a Schema,
    key: &str,
    column: &str,
    expected: &'static str,
    fits: &dyn Fn(&DataType) -> bool,
) -> Result<&'a Field, CorpusError> {
    let path = file.path.clone();
    let Ok(field) = columns.field_with_name(column) else {
        let names: Vec<&str> = columns.fields().iter().map(|f| f.name().as_str()).collect();
        let near = nearest(column, &names).map(|near| format!("did you mean `{near}`? "));
        return Err(CorpusError::NoColumn {
            path,
            column: column.into(),
            key: key.into(),
            hint: format!("{}it has: {}", near.unwrap_or_default(), names.join(", ")),
        });
    };
    if fits(field.data_type()) {
        return Ok(field);
    }
    Err(CorpusError::ColumnType {
        path,
        column: column.into(),
        key: key.into(),
        found: field.data_type().to_string(),
        expected,
    })
}
