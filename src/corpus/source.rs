//! A corpus file that is open: on disk, or on object storage.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::CorpusError;
use super::files::CorpusFile;
use crate::objects::{Object, ObjectFile, Objects, is_address};

#[derive(Clone)]
pub enum Source {
    File(Arc<File>),
    Object(ObjectFile),
}

impl Source {
    pub fn open(file: &CorpusFile) -> Result<Self, CorpusError> {
        let path = &file.path;
        if let Some(address) = path.to_str().filter(|path| is_address(path)) {
            let object = Object {
                name: String::new(),
                bytes: file.bytes,
                version: file.version.clone(),
            };
            let objects = Objects::open(address)?;
            return Ok(Source::Object(ObjectFile::open(&objects, object)?));
        }
        let opened = File::open(path).map_err(|source| CorpusError::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Source::File(opened.into()))
    }

    /// Says which columns are going to be read.
    pub fn expect(&self, metadata: &ParquetMetaData, mask: &ProjectionMask) {
        if let Source::Object(object) = self {
            object.expect(metadata, mask);
        }
    }

    /// The error, or that of the storage which is behind it: what cannot be read now is not damaged.
    pub fn blame(&self, error: CorpusError) -> CorpusError {
        match self {
            Source::Object(object) => object.failure().map_or(error, CorpusError::Objects),
            Source::File(_) => error,
        }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        match self {
            Source::File(file) => Length::len(&**file),
            Source::Object(object) => object.len(),
        }
    }
}

impl ChunkReader for Source {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(match self {
            Source::File(file) => Box::new(file.get_read(start)?),
            Source::Object(object) => Box::new(object.get_read(start)?),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Source::File(file) => file.get_bytes(start, length),
            Source::Object(object) => object.get_bytes(start, length),
        }
    }
}
