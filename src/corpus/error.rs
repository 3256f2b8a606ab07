//! What can be wrong with a corpus as a whole; a bad row is a [`Rejected`](super::Rejected) instead.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use datafusion::error::DataFusionError;

use crate::objects::ObjectError;

#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    #[error("corpus {0}")]
    Objects(#[from] ObjectError),
    #[error("corpus {path}: no such file or folder, and not a glob; set `corpus.path`")]
    Missing { path: String },
    #[error("corpus {path}: not a glob that can be read")]
    Glob {
        path: String,
        source: globset::Error,
    },
    #[error("corpus {path}: no .parquet file found; make one with `intendex import`")]
    NoFiles { path: String },
    #[error("corpus {path}: its files have no rows")]
    NoRows { path: String },
    #[error("corpus {path}: `corpus.filter` leaves no row of {rows}; the filter is {filter}")]
    NoRowsLeft {
        path: String,
        rows: u64,
        filter: String,
    },
    #[error("cannot read {}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{}: not a whole Parquet file ({message}); write it again, or take it out of the corpus",
        path.display()
    )]
    NotParquet { path: PathBuf, message: String },
    #[error(
        "{}: damaged near row {row} ({message}); write the file again, or take it out of the corpus",
        path.display()
    )]
    Damaged {
        path: PathBuf,
        row: u64,
        message: String,
    },
    #[error("{}: has no column `{column}`, named by `{key}`; {hint}", path.display())]
    NoColumn {
        path: PathBuf,
        column: String,
        key: String,
        hint: String,
    },
    #[error(
        "{}: column `{column}`, named by `{key}`, is {found}, but must be {expected}",
        path.display()
    )]
    ColumnType {
        path: PathBuf,
        column: String,
        key: String,
        found: String,
        expected: &'static str,
    },
    #[error(
        "{}: its columns differ from those of {}: {difference}; make them alike, or take one out of the corpus",
        path.display(), first.display()
    )]
    Differs {
        path: PathBuf,
        first: PathBuf,
        difference: String,
    },
    #[error(
        "`corpus.filter` cannot be used: {message}; the filter is `{filter}`; the columns are {columns}"
    )]
    Filter {
        filter: String,
        message: String,
        columns: String,
    },
    #[error("reading the corpus: {0}")]
    Query(String),
}

impl From<DataFusionError> for CorpusError {
    /// Gives back the error of ours that DataFusion carried through a plan.
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<CorpusError>() {
                Ok(own) => *own,
                Err(other) => CorpusError::Query(other.to_string()),
            },
            DataFusionError::Context(_, inner) => Self::from(*inner),
            other => CorpusError::Query(one_line(&other)),
        }
    }
}

impl From<CorpusError> for DataFusionError {
    fn from(error: CorpusError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

/// None where the reading panics: the parquet and arrow crates assert on some damaged files, which is the file's fault
/// and must not end the process.
pub fn guarded<T>(read: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(read)).ok()
}

/// The message of an error of another crate, without its backtrace and line breaks.
pub fn one_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let text = text.split("\n\nbacktrace").next().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
