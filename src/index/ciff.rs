//! Export of the sparse index as CIFF (Common Index File Format, Lin et al., SIGIR 2020), for engines that are not
//! Tantivy: <https://github.com/osirrc/ciff>.
//!
//! A CIFF document has one bag of words, so the three fields are added up: a chunk is exported as if its title, its
//! text and its indexed queries were one text, which is how expansion is indexed elsewhere (doc2query). Field
//! weights are a matter of search and are not in the file. Document lengths are exact token counts (Tantivy's own
//! are rounded), documents are numbered as in the index, terms sorted by bytes, document names are chunk ids.

mod reader;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use tantivy::index::InvertedIndexReader;
use tantivy::postings::{Postings, TermInfo};
use tantivy::schema::IndexRecordOption;
use tantivy::termdict::TermMerger;
use tantivy::{DocSet, SegmentReader, TERMINATED, TantivyError};

use super::sparse::{SparseError, SparseIndex};
pub use reader::CiffReader;

/// `CommonIndexFileFormat.proto`, message Header.
#[derive(Clone, PartialEq, Message)]
pub struct Header {
    #[prost(int32, tag = "1")]
    pub version: i32,
    /// Postings lists in this file.
    #[prost(int32, tag = "2")]
    pub num_postings_lists: i32,
    /// Documents in this file.
    #[prost(int32, tag = "3")]
    pub num_docs: i32,
    /// Postings lists of the whole collection; the same here.
    #[prost(int32, tag = "4")]
    pub total_postings_lists: i32,
    /// Documents of the whole collection; the same here.
    #[prost(int32, tag = "5")]
    pub total_docs: i32,
    /// Tokens of all documents.
    #[prost(int64, tag = "6")]
    pub total_terms_in_collection: i64,
    /// Tokens per document.
    #[prost(double, tag = "7")]
    pub average_doclength: f64,
    #[prost(string, tag = "8")]
    pub description: String,
}

/// `CommonIndexFileFormat.proto`, message PostingsList.
#[derive(Clone, PartialEq, Message)]
pub struct PostingsList {
    #[prost(string, tag = "1")]
    pub term: String,
    /// Documents with the term.
    #[prost(int64, tag = "2")]
    pub df: i64,
    /// Occurrences of the term.
    #[prost(int64, tag = "3")]
    pub cf: i64,
    #[prost(message, repeated, tag = "4")]
    pub postings: Vec<Posting>,
}

/// `CommonIndexFileFormat.proto`, message Posting.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Posting {
    /// The document's number less that of the posting before; the first is the number itself.
    #[prost(int32, tag = "1")]
    pub docid: i32,
    #[prost(int32, tag = "2")]
    pub tf: i32,
}

/// `CommonIndexFileFormat.proto`, message DocRecord.
#[derive(Clone, PartialEq, Message)]
pub struct DocRecord {
    #[prost(int32, tag = "1")]
    pub docid: i32,
    /// The chunk id.
    #[prost(string, tag = "2")]
    pub collection_docid: String,
    /// Tokens.
    #[prost(int32, tag = "3")]
    pub doclength: i32,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CiffSummary {
    pub documents: u64,
    pub terms: u64,
    pub tokens: u64,
}

/// Writes `index` as gzipped CIFF to `path`. Memory: the longest postings list and 4 bytes per document.
pub fn export_ciff(
    index: &SparseIndex,
    path: &Path,
    description: &str,
) -> Result<CiffSummary, CiffError> {
    let failed = |source| CiffError::File {
        path: path.to_owned(),
        source,
    };
    let file = BufWriter::new(File::create(path).map_err(failed)?);
    // No name and no time in the gzip header: the same index gives the same bytes.
    let mut out = GzEncoder::new(file, Compression::default());
    let summary = write(index, &mut out, description).map_err(|e| match e {
        WriteError::Io(source) => failed(source),
        WriteError::Sparse(source) => CiffError::Sparse(source),
        WriteError::Tantivy(source) => CiffError::Index {
            path: path.to_owned(),
            source: Box::new(source),
        },
    })?;
    out.finish()
        .and_then(|mut file| file.flush())
        .map_err(failed)?;
    Ok(summary)
}

fn write(
    index: &SparseIndex,
    out: &mut impl Write,
    description: &str,
) -> Result<CiffSummary, WriteError> {
    let mut lengths = vec![0u32; index.len() as usize];
    let mut terms = 0u64;
    // The header comes first and holds totals, so the postings are read twice.
    for_each_list(index, |list| {
        terms += 1;
        let mut doc = 0;
        for posting in &list.postings {
            doc += posting.docid;
            lengths[doc as usize] += posting.tf as u32;
        }
        Ok(())
    })?;
    let tokens: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    let header = Header {
        version: 1,
        num_postings_lists: terms as i32,
        num_docs: lengths.len() as i32,
        total_postings_lists: terms as i32,
        total_docs: lengths.len() as i32,
        total_terms_in_collection: tokens as i64,
        average_doclength: tokens as f64 / lengths.len().max(1) as f64,
        description: description.to_owned(),
    };
    out.write_all(&header.encode_length_delimited_to_vec())?;
    for_each_list(index, |list| {
        out.write_all(&list.encode_length_delimited_to_vec())
    })?;
    for (row, &length) in lengths.iter().enumerate() {
        let (collection_docid, _) = index.ids(row as u32)?;
        let record = DocRecord {
            docid: row as i32,
            collection_docid,
            doclength: length as i32,
        };
        out.write_all(&record.encode_length_delimited_to_vec())?;
    }
    Ok(CiffSummary {
        documents: lengths.len() as u64,
        terms,
        tokens,
    })
}

/// Calls `each` with the postings list of every term over all fields, terms in order of bytes.
fn for_each_list(
    index: &SparseIndex,
    mut each: impl FnMut(PostingsList) -> io::Result<()>,
) -> Result<(), WriteError> {
    let Some(segment) = index.searcher().segment_readers().first() else {
        return Ok(());
    };
    let fields = fields(segment)?;
    let streams = fields
        .iter()
        .map(|field| field.terms().stream())
        .collect::<io::Result<Vec<_>>>()?;
    let mut merger = TermMerger::new(streams);
    while merger.advance() {
        let mut frequencies = BTreeMap::new();
        for (field, info) in merger.current_segment_ords_and_term_infos() {
            add_postings(&fields[field], &info, &mut frequencies)?;
        }
        each(postings_list(
            String::from_utf8_lossy(merger.key()).into_owned(),
            &frequencies,
        ))?;
    }
    Ok(())
}

fn fields(segment: &SegmentReader) -> Result<Vec<Arc<InvertedIndexReader>>, TantivyError> {
    let reader = |name| segment.inverted_index(segment.schema().get_field(name)?);
    ["title", "text", "queries"]
        .into_iter()
        .map(reader)
        .collect()
}

fn add_postings(
    field: &InvertedIndexReader,
    info: &TermInfo,
    frequencies: &mut BTreeMap<u32, u32>,
) -> io::Result<()> {
    let mut postings = field.read_postings_from_terminfo(info, IndexRecordOption::WithFreqs)?;
    while postings.doc() != TERMINATED {
        *frequencies.entry(postings.doc()).or_default() += postings.term_freq();
        postings.advance();
    }
    Ok(())
}

fn postings_list(term: String, frequencies: &BTreeMap<u32, u32>) -> PostingsList {
    let mut before = 0;
    let gap = |(&doc, &tf): (&u32, &u32)| {
        let posting = Posting {
            docid: (doc - before) as i32,
            tf: tf as i32,
        };
        before = doc;
        posting
    };
    PostingsList {
        term,
        df: frequencies.len() as i64,
        cf: frequencies.values().map(|&tf| i64::from(tf)).sum(),
        postings: frequencies.iter().map(gap).collect(),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CiffError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the sparse index cannot be exported to {}: {source}", path.display())]
    Index {
        path: PathBuf,
        source: Box<TantivyError>,
    },
    #[error(transparent)]
    Sparse(#[from] SparseError),
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sparse(#[from] SparseError),
    #[error(transparent)]
    Tantivy(#[from] TantivyError),
}

#[cfg(test)]
mod tests;
