//! Rows of an evaluation as a Parquet file.

use std::path::{Path, PathBuf};

use arrow::{array::RecordBatch, error::ArrowError};
use parquet::arrow::ArrowWriter;

use crate::corpus::import::NewFile;

/// Writes batches of one schema; no file if there are none. It appears when it is whole.
pub fn write(
    path: &Path,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
) -> Result<(), RowsError> {
    let failed = |error: &dyn std::fmt::Display| RowsError {
        path: path.to_owned(),
        message: error.to_string(),
    };
    let file = NewFile::create(path).map_err(|e| failed(&e))?;
    let mut writer = None;
    for batch in batches {
        let batch = batch.map_err(|e| failed(&e))?;
        if writer.is_none() {
            let handle = file.handle().map_err(|e| failed(&e))?;
            let new = ArrowWriter::try_new(handle, batch.schema(), None);
            writer = Some(new.map_err(|e| failed(&e))?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch).map_err(|e| failed(&e))?;
        }
    }
    let Some(writer) = writer else {
        return Ok(());
    };
    writer.close().map_err(|e| failed(&e))?;
    file.publish().map_err(|e| failed(&e))
}

#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written: {message}", path.display())]
pub struct RowsError {
    path: PathBuf,
    message: String,
}
