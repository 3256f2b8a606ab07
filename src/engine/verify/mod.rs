//! Checks a generation against itself and its model. Damage is a finding, never an error.
//!
//! Shard by shard: part i of every dataset holds what came of part i of the documents, so that one shard at a time is
//! in memory, beside the FAISS indexes of its index shard, which are read whole as they are for a search. The rows of the indexes stand
//! in the order of the parts' rows and are followed in step.

mod datasets;
mod dense;
mod expansion;
mod files;
mod finding;
mod indexes;
mod model;
mod outcomes;
mod part;
mod rows;
mod shard;
mod sparse;
mod step;
mod tiling;
mod vectors;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

pub use finding::Finding;
pub use model::check_embedder;

use super::EngineError;
use crate::{
    job::Progress,
    model::Embed,
    store::{Dataset, Manifest},
};
use finding::Findings;

/// Name in run.json.
pub const STAGE: &str = "verify";

/// How many chunks look for themselves in the indexes and are embedded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// At most so many, spread evenly.
    Count(usize),
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub sample: Sample,
    /// Whether files are hashed; their sizes are compared in any case.
    pub hashes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sample: Sample::Count(100),
            hashes: true,
        }
    }
}

impl Sample {
    /// Every how many rows of `rows` one is taken; None: none.
    fn stride(self, rows: u64) -> Option<u64> {
        match self {
            Sample::All => Some(1),
            Sample::Count(0) => None,
            Sample::Count(n) => Some(rows.div_ceil(n as u64).max(1)),
        }
    }

    /// Rows taken of `rows`.
    pub fn of(self, rows: u64) -> u64 {
        self.stride(rows).map_or(0, |stride| rows.div_ceil(stride))
    }
}

/// What is wrong with a generation, published or about to be; nothing if it is whole. Without an embedder, nothing is
/// embedded again; one that [`check_embedder`] finds fault with makes every vector a finding.
///
/// Files that are not as the manifest says are reported and not read any further. An error means that there is no such
/// folder.
pub fn verify(
    generation: &Path,
    manifest: &Manifest,
    options: Options,
    embedder: Option<&dyn Embed>,
    progress: &dyn Progress,
) -> Result<Vec<Finding>, EngineError> {
    if !generation.is_dir() {
        let folder = generation.display();
        return Err(EngineError::Refused(format!(
            "{folder}: there is no such generation"
        )));
    }
    let mut findings = Findings::default();
    let mut subject = Subject {
        generation,
        manifest,
        options,
        damaged: BTreeSet::new(),
    };
    files::check(&mut subject, &mut findings, progress);
    let shards = datasets::check(&mut subject, &mut findings);
    let model = model::Model::new(&subject, embedder);
    let mut indexes = indexes::Indexes::open(&subject, shards, &mut findings);
    progress.start(STAGE, subject.rows(Dataset::Chunks), "chunks");
    for number in 0..shards {
        let rows = shard::check(&subject, &model, &mut indexes, number, &mut findings);
        progress.advance(rows as u64);
    }
    indexes.finish(&subject, &mut findings);
    progress.finish();
    Ok(findings.into_list())
}

/// The generation that is checked.
struct Subject<'a> {
    generation: &'a Path,
    manifest: &'a Manifest,
    options: Options,
    /// Files that are not as the manifest says, or cannot be read: not read any further.
    damaged: BTreeSet<String>,
}

impl Subject<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.generation.join(name)
    }

    /// Whether a file, or every file of a folder, may be read.
    fn is_sound(&self, name: &str) -> bool {
        let inside = |damaged: &str| {
            damaged
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.path(name).exists() && !self.damaged.iter().any(|damaged| inside(damaged))
    }

    /// Rows of a dataset, as the manifest says.
    fn rows(&self, dataset: Dataset) -> u64 {
        let summary = self.manifest.datasets.get(dataset.folder());
        summary.map_or(0, |summary| summary.rows)
    }
}
