//! Stdout, or a file that appears when it is whole.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::corpus::import::NewFile;

/// Where results go. What a failure leaves of a file is what was there before.
pub struct Out {
    writer: BufWriter<Box<dyn Write>>,
    file: Option<NewFile>,
    path: Option<PathBuf>,
}

impl Out {
    pub fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let opened = match path {
            None => Ok((Box::new(io::stdout()) as Box<dyn Write>, None)),
            Some(path) => Self::open(path).with_context(|| cannot_write(path)),
        };
        let (writer, file) = opened?;
        Ok(Self {
            writer: BufWriter::new(writer),
            file,
            path: path.map(Path::to_owned),
        })
    }

    /// A pipe or a device is written as it is.
    fn open(path: &Path) -> io::Result<(Box<dyn Write>, Option<NewFile>)> {
        let is_stream = |found: std::fs::Metadata| !found.is_file() && !found.is_dir();
        if path.metadata().is_ok_and(is_stream) {
            return Ok((Box::new(File::options().write(true).open(path)?), None));
        }
        let file = NewFile::create(path)?;
        Ok((Box::new(file.handle()?), Some(file)))
    }

    /// Lets `write` write everything; then a file gets its name.
    pub fn write(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let written = write(&mut self.writer).and_then(|()| Ok(self.writer.flush()?));
        let written = written.and_then(|()| Ok(self.file.map_or(Ok(()), NewFile::publish)?));
        match &self.path {
            Some(path) => written.with_context(|| cannot_write(path)),
            None => written,
        }
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
