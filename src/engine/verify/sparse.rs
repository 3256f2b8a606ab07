//! The sparse index and its CIFF copy, followed document by document along the chunks.

use super::{
    Finding, Findings, Subject,
    part::{Checked, guarded},
    rows::Chunk,
    step::{Entry, InStep},
};
use crate::{
    corpus::error::one_line,
    index::{CiffReader, SparseDocument, SparseError, SparseIndex, SparseWeights},
    store::Dataset,
};

const CHECK: &str = "sparse";
const FOLDER: &str = "sparse";
const CIFF: &str = "sparse.ciff.gz";
/// How far down a chunk may find itself.
const TOP: usize = 10;
/// One of so many sampled chunks may stand lower: texts of a few common words are outranked by longer ones.
const OUTRANKED: usize = 10;
/// Only the field that holds the text itself.
const TEXT: SparseWeights = SparseWeights {
    title: 0.0,
    text: 1.0,
    queries: 0.0,
};

/// Both copies of the postings; each None where it is not there or cannot be followed any further.
pub struct Sparse {
    index: Option<Index>,
    ciff: Option<Ciff>,
    rows: usize,
}

struct Index {
    index: SparseIndex,
    step: InStep,
    sampled: usize,
    outranked: Vec<String>,
}

struct Ciff {
    reader: CiffReader,
    step: InStep,
}

impl Sparse {
    pub fn open(subject: &Subject, findings: &mut Findings) -> Self {
        let (mut index, mut ciff) = (None, None);
        if let Some(summary) = &subject.manifest.indexes.sparse {
            for name in [FOLDER, CIFF] {
                if !subject.path(name).exists() && !subject.damaged.contains(name) {
                    findings.add(CHECK, name, "is missing");
                }
            }
            let chunks = subject.rows(Dataset::Chunks);
            if summary.rows != chunks {
                let message = format!(
                    "has {} documents for {chunks} chunks, as the manifest says",
                    summary.rows
                );
                findings.add(CHECK, FOLDER, message);
            }
            index = opened(subject.is_sound(FOLDER), findings, || Index::open(subject));
            ciff = opened(subject.is_sound(CIFF), findings, || Ciff::open(subject));
        }
        let rows = 0;
        Self { index, ciff, rows }
    }

    /// Compares the next document with the chunk it was made of, and the queries it was indexed with. `sampled`: it
    /// must find itself too.
    pub fn follow(
        &mut self,
        chunk: &Chunk,
        queries: &[&str],
        sampled: bool,
        findings: &mut Findings,
    ) {
        self.rows += 1;
        if let Some(index) = &mut self.index {
            let document = SparseDocument {
                chunk_id: &chunk.id,
                doc_id: &chunk.document,
                title: chunk.title.as_deref(),
                text: &chunk.text,
                queries,
            };
            let followed = guarded(CHECK, FOLDER, || {
                index.follow(&document, sampled, findings).map_err(failed)
            });
            if let Err(finding) = followed {
                findings.push(finding);
                self.index = None;
            }
        }
        if let Some(Ciff { reader, step }) = &mut self.ciff {
            let (_, message) = step.expect(&chunk.id, || name(reader));
            if let Some(message) = message {
                findings.add("ciff", CIFF, message);
            }
        }
    }

    /// The chunks that come next cannot be read, so that documents cannot be told apart from here on.
    pub fn lose(&mut self, part: &str, findings: &mut Findings) {
        if self.index.take().is_some() | self.ciff.take().is_some() {
            let message = format!("is not compared any further, as {part} cannot be read");
            findings.add(CHECK, FOLDER, message);
        }
    }

    pub fn finish(&mut self, findings: &mut Findings) {
        if let Some(index) = &self.index {
            if index.index.len() != self.rows as u64 {
                let (there, wanted) = (index.index.len(), self.rows);
                let message = format!("has {there} documents where {wanted} belong");
                findings.add(CHECK, FOLDER, message);
            }
            if index.outranked.len() > index.sampled.div_ceil(OUTRANKED) {
                for id in &index.outranked {
                    let message = format!("`{id}` does not find itself in the first {TOP}");
                    findings.add(CHECK, FOLDER, message);
                }
            }
        }
        if let Some(Ciff { reader, step }) = &mut self.ciff {
            let counted = (reader.header().num_docs.max(0) as usize != self.rows).then(|| {
                let there = reader.header().num_docs;
                format!("has {there} documents where {} belong", self.rows)
            });
            let left = step.finish(|| name(reader));
            for message in [counted, left].into_iter().flatten() {
                findings.add("ciff", CIFF, message);
            }
        }
    }
}

fn opened<T>(sound: bool, findings: &mut Findings, open: impl FnOnce() -> Checked<T>) -> Option<T> {
    if !sound {
        return None;
    }
    open().map_err(|finding| findings.push(finding)).ok()
}

fn failed(error: SparseError) -> Finding {
    Finding::new(CHECK, FOLDER, one_line(&error))
}

/// The next document's name.
fn name(reader: &mut CiffReader) -> Entry {
    let record = reader.next_document().map_err(|e| e.to_string())?;
    Ok(record.map(|record| record.collection_docid))
}

impl Index {
    fn open(subject: &Subject) -> Checked<Self> {
        let index = guarded(CHECK, FOLDER, || {
            SparseIndex::open(&subject.path(FOLDER)).map_err(failed)
        })?;
        // Tantivy opens an index without its positions and answers phrases wrongly.
        if let Some(file) = index.missing_files().first() {
            return Err(Finding::new(
                CHECK,
                &format!("{FOLDER}/{file}"),
                "is missing",
            ));
        }
        Ok(Self {
            index,
            step: InStep::new("document", 0),
            sampled: 0,
            outranked: Vec::new(),
        })
    }

    fn follow(
        &mut self,
        document: &SparseDocument,
        sampled: bool,
        findings: &mut Findings,
    ) -> Result<(), SparseError> {
        let Self { index, step, .. } = self;
        let mut row = step.read() as u32;
        let (place, message) = step.expect(document.chunk_id, || {
            if u64::from(row) == index.len() {
                return Ok(None);
            }
            row += 1;
            let ids = index.ids(row - 1).map_err(|e| one_line(&e));
            ids.map(|(chunk_id, _)| Some(chunk_id))
        });
        if let Some(message) = message {
            findings.add(CHECK, FOLDER, message);
        }
        match place {
            Some(row) if sampled => self.search(row as u32, document, findings),
            _ => Ok(()),
        }
    }

    fn search(
        &mut self,
        row: u32,
        document: &SparseDocument,
        findings: &mut Findings,
    ) -> Result<(), SparseError> {
        self.sampled += 1;
        let id = document.chunk_id;
        let (_, doc_id) = self.index.ids(row)?;
        if doc_id != document.doc_id {
            let message = format!(
                "`{id}` is of `{doc_id}` where `{}` belongs",
                document.doc_id
            );
            findings.add(CHECK, FOLDER, message);
        }
        if let Some(field) = self.index.unlike(row, document)? {
            let message = format!("document {row} (`{id}`) was not indexed with its {field}");
            findings.add(CHECK, FOLDER, message);
        }
        if !self.index.is_in_first(row, document.text, TOP, TEXT)? {
            self.outranked.push(id.to_owned());
        }
        Ok(())
    }
}

impl Ciff {
    /// Opens the file and reads past its postings, which must add up to what its header says.
    fn open(subject: &Subject) -> Checked<Self> {
        let finding = |message: String| Finding::new("ciff", CIFF, message);
        let path = subject.path(CIFF);
        let mut reader = CiffReader::open(&path).map_err(|e| finding(e.to_string()))?;
        let mut tokens = 0i64;
        while let Some(list) = reader.next_list().map_err(|e| finding(e.to_string()))? {
            tokens = tokens.saturating_add(list.cf);
        }
        let total = reader.header().total_terms_in_collection;
        if tokens != total {
            let message = format!("has {tokens} tokens in its postings, {total} in its header");
            return Err(finding(message));
        }
        Ok(Self {
            reader,
            step: InStep::new("document", 0),
        })
    }
}
