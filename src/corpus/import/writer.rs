//! Writes documents to a Parquet file that appears under its name only when it is whole.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use super::{Document, ImportError, NewFile};
use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

const BATCH_ROWS: usize = 1024;
const BATCH_BYTES: usize = 8 << 20;
/// A row group is closed once its encoded bytes reach this.
const GROUP_BYTES: usize = 64 << 20;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("doc_id", DataType::Utf8, false),
        Field::new("title", DataType::Utf8, true),
        Field::new("text", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
    ]))
});

/// The file being written; dropped before [`Writer::publish`], it leaves nothing behind.
pub struct Writer {
    out: PathBuf,
    file: NewFile,
    parquet: ArrowWriter<File>,
    columns: [StringBuilder; 5],
    rows: usize,
    bytes: usize,
}

impl Writer {
    pub fn create(out: &Path) -> Result<Self, ImportError> {
        let failed = |error: &dyn Display| write_error(out, error);
        let file = NewFile::create(out).map_err(|error| failed(&error))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let handle = file.handle().map_err(|error| failed(&error))?;
        let parquet = ArrowWriter::try_new(handle, SCHEMA.clone(), Some(properties))
            .map_err(|error| failed(&error))?;
        Ok(Self {
            out: out.to_path_buf(),
            file,
            parquet,
            columns: Default::default(),
            rows: 0,
            bytes: 0,
        })
    }

    pub fn write(&mut self, document: &Document) -> Result<(), ImportError> {
        let [id, title, text, source, kind] = &mut self.columns;
        id.append_value(&document.id);
        title.append_option(document.title.as_deref());
        text.append_value(&document.text);
        source.append_value(&document.source);
        kind.append_value(document.kind);
        self.rows += 1;
        self.bytes += document.text.len();
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ImportError> {
        let columns = self.columns.iter_mut();
        let columns: Vec<ArrayRef> = columns.map(|c| Arc::new(c.finish()) as ArrayRef).collect();
        let failed = |error: &dyn Display| write_error(&self.out, error);
        let batch = RecordBatch::try_new(SCHEMA.clone(), columns).map_err(|e| failed(&e))?;
        self.parquet.write(&batch).map_err(|e| failed(&e))?;
        if self.parquet.in_progress_size() >= GROUP_BYTES {
            self.parquet.flush().map_err(|e| failed(&e))?;
        }
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// Writes what is left and gives the file its name.
    pub fn publish(mut self) -> Result<(), ImportError> {
        self.flush()?;
        let failed = |error: &dyn Display| write_error(&self.out, error);
        self.parquet.close().map_err(|e| failed(&e))?;
        self.file.publish().map_err(|e| failed(&e))
    }
}

fn write_error(out: &Path, error: &dyn Display) -> ImportError {
    ImportError::Write {
        path: out.to_path_buf(),
        message: error.to_string(),
    }
}
