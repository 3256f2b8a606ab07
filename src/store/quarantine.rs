//! Rows that failed: which stage, which row, why, and what it was given.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};

use super::{Dataset, StoreError, dataset::PartWriter, schema};
use crate::job::spec::VectorType;
use std::path::Path;

/// Longest part of a failed input that is kept (bytes).
const INPUT_BYTES: usize = 2000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub stage: String,
    pub id: String,
    pub reason: String,
    pub input: String,
}

impl Failure {
    pub fn new(stage: &str, id: &str, reason: &str, input: &str) -> Self {
        let end = input.floor_char_boundary(INPUT_BYTES);
        Self {
            stage: stage.into(),
            id: id.into(),
            reason: reason.into(),
            input: input[..end].into(),
        }
    }
}

/// Writes one file of failures; an empty list leaves no file.
pub fn write(generation: &Path, file: &str, failures: &[Failure]) -> Result<(), StoreError> {
    let path = generation
        .join(Dataset::Quarantine.folder())
        .join(format!("{file}.parquet"));
    if failures.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(&path)(e)),
            _ => Ok(()),
        };
    }
    let schema = schema::schema(Dataset::Quarantine, &[], (VectorType::F32, 0));
    let column = |get: fn(&Failure) -> &str| {
        Arc::new(StringArray::from_iter_values(failures.iter().map(get))) as _
    };
    let columns = vec![
        column(|f| &f.stage),
        column(|f| &f.id),
        column(|f| &f.reason),
        column(|f| &f.input),
    ];
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|e| StoreError::Invalid {
        path: path.clone(),
        message: e.to_string(),
    })?;
    let mut writer = PartWriter::create(&path, schema)?;
    writer.write(&batch)?;
    writer.finish().map(|_| ())
}
