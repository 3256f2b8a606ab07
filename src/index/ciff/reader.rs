//! Reads CIFF from front to back: the header, the postings lists, the documents.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use prost::Message;

use super::{CiffError, DocRecord, Header, PostingsList};

/// A CIFF file being read. Memory: the longest postings list.
pub struct CiffReader {
    path: PathBuf,
    input: BufReader<GzDecoder<File>>,
    header: Header,
    lists: i32,
    documents: i32,
}

impl CiffReader {
    /// Opens a gzipped file and reads its header.
    pub fn open(path: &Path) -> Result<Self, CiffError> {
        let failed = |source| CiffError::File {
            path: path.to_owned(),
            source,
        };
        let mut input = BufReader::new(GzDecoder::new(File::open(path).map_err(failed)?));
        let header = message(&mut input).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            input,
            header,
            lists: 0,
            documents: 0,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next postings list; nothing after the last.
    pub fn next_list(&mut self) -> Result<Option<PostingsList>, CiffError> {
        if self.lists >= self.header.num_postings_lists {
            return Ok(None);
        }
        self.lists += 1;
        self.next().map(Some)
    }

    /// The next document, past any postings lists that have not been read; nothing after the last, which must be the
    /// end of the file.
    pub fn next_document(&mut self) -> Result<Option<DocRecord>, CiffError> {
        while self.next_list()?.is_some() {}
        if self.documents < self.header.num_docs {
            self.documents += 1;
            return self.next().map(Some);
        }
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(None),
            Ok(_) => Err(self.failed(invalid("it goes on after its last document"))),
            Err(source) => Err(self.failed(source)),
        }
    }

    fn next<M: Message + Default>(&mut self) -> Result<M, CiffError> {
        message(&mut self.input).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> CiffError {
        CiffError::File {
            path: self.path.clone(),
            source,
        }
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// A message behind its length. A length that the file does not have takes no memory.
fn message<M: Message + Default>(input: &mut impl Read) -> io::Result<M> {
    let length = varint(input)?;
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    M::decode(&bytes[..]).map_err(|e| invalid(&e.to_string()))
}

fn varint(input: &mut impl Read) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(invalid("a length is too long"))
}
