//! Runs a job: its stages, shard by shard, through DataFusion; then the indexes; then publication.

pub mod build;
mod clock;
#[cfg(feature = "cluster")]
pub mod cluster;
mod failures;
pub mod fingerprint;
pub mod functions;
mod indexes;
mod ingest;
mod join;
pub mod merge;
pub mod models;
mod place;
pub mod plan;
mod reuse;
mod selection;
pub mod stage;
mod table;
mod topics;
pub mod verify;

use std::path::{Path, PathBuf};

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::{
    corpus::CorpusError,
    index::{CiffError, DenseError, SparseError},
    model::ModelError,
    store::{FREE_SPACE, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sparse(#[from] SparseError),
    #[error(transparent)]
    Ciff(#[from] CiffError),
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// Of the session, outside any shard.
    #[error("{during}: {source}")]
    DataFusion {
        during: String,
        source: DataFusionError,
    },
    #[error("stage {stage}, shard {shard}: {source}")]
    Stage {
        stage: &'static str,
        shard: usize,
        source: DataFusionError,
    },
    #[error("{}: {source}", path.display())]
    Batch { path: PathBuf, source: ArrowError },
    #[error("stage topics: {0}; set `expand.topics = 0` to do without")]
    Topics(faiss::error::Error),
    #[error("{0}")]
    Refused(String),
    #[error("this build is not published: {} of its checks failed, the first of them {}; the folder {} holds it; `intendex build --from` and its first stage builds it again, taking nothing over", findings.len(), findings[0], folder.display())]
    Unsound {
        folder: PathBuf,
        findings: Vec<verify::Finding>,
    },
    #[error("{failed} rows have failed, and engine.max_failures allows {limit}; see the quarantine in {}, mend them or raise the limit, and run again: it continues where it stopped", folder.display())]
    TooManyFailures {
        failed: u64,
        limit: u64,
        folder: PathBuf,
    },
    #[error("stage {stage} failed for every row ({failed}), for the reasons in {}; nothing is published; mend the cause, and run `intendex build --from {stage}`", folder.display())]
    AllFailed {
        stage: &'static str,
        failed: u64,
        folder: PathBuf,
    },
    #[error("{0}{FREE_SPACE}")]
    DiskFull(String),
    #[error("{0}; raise engine.memory_mib and run again: it continues where it stopped")]
    MemoryFull(String),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
}

impl EngineError {
    fn in_stage(stage: &'static str, shard: usize) -> impl Fn(DataFusionError) -> Self {
        move |source| Self::Stage {
            stage,
            shard,
            source,
        }
    }

    fn during(what: impl Into<String>) -> impl Fn(DataFusionError) -> Self {
        let during = what.into();
        move |source| Self::DataFusion {
            during: during.clone(),
            source,
        }
    }

    fn batch(path: &Path) -> impl Fn(ArrowError) -> Self + '_ {
        move |source| Self::Batch {
            path: path.to_owned(),
            source,
        }
    }

    /// Adds what to do where the disk or DataFusion's memory is full and the error is a library's, which does not
    /// say so.
    pub fn with_remedy(self) -> Self {
        let text = self.to_string();
        // Its text is all that some libraries leave of the error.
        if text.contains("No space left on device") && !text.contains(FREE_SPACE) {
            return Self::DiskFull(text);
        }
        match text.contains("Resources exhausted") {
            true => Self::MemoryFull(text),
            false => self,
        }
    }
}
