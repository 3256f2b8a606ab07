//! Rows that failed: which stage, which row, why, and what it was given.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::SchemaRef,
};

use super::{Dataset, StoreError, dataset::PartWriter, schema};
use crate::job::spec::VectorType;

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

/// Rows held before they are written.
const ROWS_AT_ONCE: usize = 256;

/// Writes one file of failures; none leave no file.
pub struct Writer {
    path: PathBuf,
    schema: SchemaRef,
    open: Option<PartWriter>,
    held: Vec<Failure>,
    count: u64,
}

impl Writer {
    pub fn new(generation: &Path, file: &str) -> Self {
        Self {
            path: generation
                .join(Dataset::Quarantine.folder())
                .join(format!("{file}.parquet")),
            schema: schema::schema(Dataset::Quarantine, &[], (VectorType::F32, 0)),
            open: None,
            held: Vec::new(),
            count: 0,
        }
    }

    pub fn add(&mut self, failure: Failure) -> Result<(), StoreError> {
        self.count += 1;
        self.held.push(failure);
        if self.held.len() < ROWS_AT_ONCE {
            return Ok(());
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let column = |get: fn(&Failure) -> &str| {
            Arc::new(StringArray::from_iter_values(self.held.iter().map(get))) as _
        };
        let columns = vec![
            column(|f| &f.stage),
            column(|f| &f.id),
            column(|f| &f.reason),
            column(|f| &f.input),
        ];
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| {
            StoreError::Invalid {
                path: self.path.clone(),
                message: e.to_string(),
            }
        })?;
        self.held.clear();
        let writer = match self.open.take() {
            Some(writer) => writer,
            None => PartWriter::create(&self.path, self.schema.clone())?,
        };
        self.open.insert(writer).write(&batch)
    }

    /// How many there were.
    pub fn finish(mut self) -> Result<u64, StoreError> {
        if !self.held.is_empty() {
            self.write()?;
        }
        match self.open {
            Some(writer) => writer.finish().map(|_| ())?,
            None => match std::fs::remove_file(&self.path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io(&self.path)(e));
                }
                _ => {}
            },
        }
        Ok(self.count)
    }
}
