//! Two chunks of two documents, and files, for tests.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;

use super::expanded::{Chunk, Expanded, Query, Scores};
use crate::eval::chunks::span::Span;
use crate::eval::half::Half;

/// With these queries, (origin, text), by turns of the one and the other chunk.
pub fn expanded(queries: &[(&str, &str)]) -> Expanded {
    let chunk = |(document, text): (usize, &str)| Chunk {
        id: format!("{document}#0"),
        title: None,
        span: Span {
            document,
            start: 0,
            end: text.chars().count(),
        },
        text: text.to_owned(),
        keywords: Vec::new(),
    };
    let query = |(i, (origin, text)): (usize, &(&str, &str))| Query {
        id: format!("{}#0?{i}", i % 2),
        chunk: i % 2,
        text: (*text).to_owned(),
        origin: (*origin).to_owned(),
    };
    let texts = ["The tide follows the moon.", "A kitten sleeps."];
    Expanded {
        documents: vec!["0".to_owned(), "1".to_owned()],
        chunks: texts.into_iter().enumerate().map(chunk).collect(),
        queries: queries.iter().enumerate().map(query).collect(),
        scores: Vec::new(),
    }
}

/// With a query for every score, which is its text too, and one without a score.
pub fn scored(name: &str, values: &[f32], free: (&str, &str)) -> Expanded {
    let texts: Vec<String> = values.iter().map(f32::to_string).collect();
    let queries = texts.iter().map(|text| ("sample", text.as_str()));
    let mut expanded = expanded(&queries.chain([free]).collect::<Vec<_>>());
    let values = values.iter().copied().map(Some).chain([None]);
    expanded.scores.push(Scores {
        name: name.to_owned(),
        values: values.collect(),
    });
    expanded
}

/// Writes a Parquet file; columns may be null.
pub fn write(path: &Path, columns: &[(&str, ArrayRef)]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let columns = columns
        .iter()
        .map(|(name, column)| (*name, column.clone(), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

pub fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

pub fn integers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

pub fn floats(values: &[Option<f32>]) -> ArrayRef {
    Arc::new(Float32Array::from(values.to_vec()))
}

/// Two ids in each half, the first two in `tune`.
pub fn halved() -> [String; 4] {
    let ids = |half: Half| {
        (0..)
            .map(|i| format!("d{i}"))
            .filter(move |id| half.has(id))
    };
    let (mut tune, mut report) = (ids(Half::Tune), ids(Half::Report));
    let mut next = |half: Half| match half {
        Half::Tune => tune.next().unwrap(),
        Half::Report => report.next().unwrap(),
    };
    [Half::Tune, Half::Tune, Half::Report, Half::Report].map(&mut next)
}
