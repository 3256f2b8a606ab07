//! Makes a corpus from files: Markdown, text and HTML are a document each, JSONL and CSV a document a row.
//! A file or row that cannot be one is skipped and told of; the rest goes on.

mod document;
mod find;
mod new_file;
mod rows;
mod writer;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use find::{Found, Kind};
pub use new_file::NewFile;
use writer::Writer;

/// More than this in one document is surely a mistake, and past what a Parquet page holds (bytes).
const MOST_BYTES: u64 = 1 << 30;

/// What to import, and whereto.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Files, and folders read recursively.
    pub paths: Vec<PathBuf>,
    /// The Parquet file to write; columns doc_id, title, text, source, kind.
    pub out: PathBuf,
    /// Only files whose path below the given folder matches.
    pub glob: Option<String>,
    /// At most so many documents.
    pub limit: Option<u64>,
    pub keys: RowKeys,
}

/// Names of the JSONL keys or CSV columns to read; those not given are found by their usual names.
#[derive(Debug, Clone, Default)]
pub struct RowKeys {
    pub id: Option<String>,
    pub title: Option<String>,
    pub text: Option<String>,
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    pub documents: u64,
    /// Files and rows that could not be documents.
    pub skipped: u64,
    /// Documents whose ids have white space in them, and the first such id.
    pub spaced: u64,
    pub first_spaced: Option<String>,
}

/// A file or row that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: PathBuf,
    /// The row's line, from 1; none for a whole file.
    pub line: Option<u64>,
    pub reason: String,
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": skipped, {}", self.reason)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read {}", path.display())]
    Path {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("--glob {pattern} is not a glob")]
    Glob {
        pattern: String,
        source: globset::Error,
    },
    #[error(
        "no document found: of {files} files none could be used; known are .md, .markdown, .txt, .html, .htm, \
         .jsonl, .ndjson and .csv"
    )]
    NoDocuments { files: usize },
    #[error("cannot write {}: {message}", path.display())]
    Write { path: PathBuf, message: String },
}

/// One document, before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Document {
    id: String,
    title: Option<String>,
    text: String,
    source: String,
    kind: &'static str,
}

/// Imports files in path order; `skipped` hears of each file or row left out.
pub fn import(
    options: &ImportOptions,
    skipped: &dyn Fn(&Skipped),
) -> Result<Imported, ImportError> {
    let (files, lost) = find::find(&options.paths, options.glob.as_deref())?;
    let mut import = Import {
        writer: Writer::create(&options.out)?,
        limit: options.limit.unwrap_or(u64::MAX),
        ids: HashSet::new(),
        done: Imported::default(),
        skipped,
        failure: None,
    };
    for lost in lost {
        import.skip(&lost.path, None, lost.reason);
    }
    for file in &files {
        if import.file(file, &options.keys).is_break() {
            break;
        }
    }
    if let Some(failure) = import.failure {
        return Err(failure);
    }
    if import.done.documents == 0 {
        return Err(ImportError::NoDocuments { files: files.len() });
    }
    import.writer.publish()?;
    Ok(import.done)
}

struct Import<'a> {
    writer: Writer,
    limit: u64,
    /// The first 16 bytes of the BLAKE3 of each id so far: less memory than the ids.
    ids: HashSet<[u8; 16]>,
    done: Imported,
    skipped: &'a dyn Fn(&Skipped),
    failure: Option<ImportError>,
}

impl Import<'_> {
    fn file(&mut self, file: &Found, keys: &RowKeys) -> ControlFlow<()> {
        let Some(kind) = file.kind else {
            self.skip(&file.path, None, "its extension is not a known one".into());
            return ControlFlow::Continue(());
        };
        match kind {
            Kind::Jsonl => rows::jsonl(file, keys, &mut |line, row| self.row(file, line, row)),
            Kind::Csv => rows::csv(file, keys, &mut |line, row| self.row(file, line, row)),
            Kind::Markdown | Kind::Text | Kind::Html => match document::read(file, kind) {
                Ok(document) => self.take(&file.path, None, document),
                Err(reason) => {
                    self.skip(&file.path, None, reason);
                    ControlFlow::Continue(())
                }
            },
        }
    }

    fn row(
        &mut self,
        file: &Found,
        line: Option<u64>,
        row: Result<Document, String>,
    ) -> ControlFlow<()> {
        match row {
            Ok(document) => self.take(&file.path, line, document),
            Err(reason) => {
                self.skip(&file.path, line, reason);
                ControlFlow::Continue(())
            }
        }
    }

    fn take(&mut self, path: &Path, line: Option<u64>, document: Document) -> ControlFlow<()> {
        if self.done.documents == self.limit {
            return ControlFlow::Break(());
        }
        if document.text.trim().is_empty() {
            self.skip(path, line, "it has no text".into());
            return ControlFlow::Continue(());
        }
        if let Err(reason) = self.take_id(&document.id) {
            self.skip(path, line, reason);
            return ControlFlow::Continue(());
        }
        match self.writer.write(&document) {
            Ok(()) => {
                self.done.documents += 1;
                self.note_spaces(document.id);
                ControlFlow::Continue(())
            }
            Err(failure) => {
                self.failure = Some(failure);
                ControlFlow::Break(())
            }
        }
    }

    /// Refuses what a build would refuse: an id that has come before, or would break a line of an id file.
    fn take_id(&mut self, id: &str) -> Result<(), String> {
        if id.contains(char::is_control) {
            let id = id.escape_debug();
            return Err(format!("its doc_id {id} has a control character"));
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
        match self.ids.insert(hash) {
            true => Ok(()),
            false => Err(format!("its doc_id {id} occurs before")),
        }
    }

    fn note_spaces(&mut self, id: String) {
        if id.contains(char::is_whitespace) {
            self.done.spaced += 1;
            self.done.first_spaced.get_or_insert(id);
        }
    }

    fn skip(&mut self, path: &Path, line: Option<u64>, reason: String) {
        self.done.skipped += 1;
        (self.skipped)(&Skipped {
            path: path.to_path_buf(),
            line,
            reason,
        });
    }
}
