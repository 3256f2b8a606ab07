//! Builds the indexes from the finished datasets, one index shard after the other: streams each of its parts once, in order, and
//! joins a chunk to its queries within their part.

mod dense;
mod shard;
mod sparse;

use std::path::Path;

use super::{
    EngineError,
    selection::{self, Selector},
};
use crate::{
    job::{Job, Progress},
    store::{
        Dataset, StoreError,
        dataset::count_rows,
        index_shards,
        manifest::{Determinism, IndexShard, IndexSummary, Indexes},
        progress::{Journal, Meter, Tally},
        sync_tree,
    },
};
use dense::{Dense, Side};
use shard::Shard;

pub const SELECTION: &str = "index-selection";
pub const SPARSE: &str = "index-sparse";
pub const DENSE_TEXT: &str = "index-dense-text";
pub const DENSE_QUERIES: &str = "index-dense-queries";
pub const STAGES: [&str; 4] = [DENSE_TEXT, SELECTION, SPARSE, DENSE_QUERIES];

/// Builds what the job asks for and the journal does not have yet; tells what there is, for the manifest. `parts`: of each
/// dataset.
pub fn build(
    job: &Job,
    generation: &Path,
    parts: usize,
    dim: usize,
    journal: &mut Journal,
    progress: &dyn Progress,
) -> Result<Indexes, EngineError> {
    let shards = shards(job, generation, parts)?;
    let dense = Dense {
        factory: &job.dense.factory,
        dim,
        vocabulary: job.expand.vocabulary,
    };
    let mut steps = Steps {
        generation,
        shards: &shards,
        journal,
        progress,
    };
    // First, as queries may be selected by what it finds for them.
    if job.dense.enabled {
        steps.dense(DENSE_TEXT, &dense, Side::Text)?;
    }
    if selection::is_partial(&job.expand) {
        let selector = Selector {
            job,
            generation,
            shards: parts,
        };
        steps.selection(&selector)?;
    }
    if job.sparse.enabled {
        steps.sparse(job)?;
    }
    if has_queries(job) {
        steps.dense(DENSE_QUERIES, &dense, Side::Queries)?;
    }
    let summaries = (0..shards.len()).map(|number| steps.summary(job, number));
    let summaries = summaries.collect();
    let taken = shards.iter().map(Shard::count_taken);
    let taken = taken.sum::<Result<u64, _>>()?;
    let lowest = selection::lowest(generation, parts)?;
    Ok(Indexes::of(summaries, lowest, taken))
}

fn has_queries(job: &Job) -> bool {
    job.dense.enabled && job.expand.enabled
}

/// The index shards, which may be fewer than the job asks for.
fn shards<'a>(job: &Job, generation: &'a Path, parts: usize) -> Result<Vec<Shard<'a>>, StoreError> {
    let chunks = (0..parts).map(|part| count_rows(&Dataset::Chunks.part(generation, part)));
    let chunks: Vec<usize> = chunks.collect::<Result<_, _>>()?;
    let ranges = index_shards::split(&chunks, job.index.shards);
    let (wanted, count) = (job.index.shards, ranges.len());
    if count < wanted {
        tracing::warn!(
            "index.shards is {wanted}, but the corpus makes no more than {count} parts with chunks, so that there are \
             {count} index shards; a lower engine.shard_documents makes more parts"
        );
    }
    let shard = |(number, parts)| Shard {
        generation,
        parts,
        folder: generation.join(index_shards::prefix(number, count)),
    };
    Ok(ranges.into_iter().enumerate().map(shard).collect())
}

fn dense_summary(factory: &str, rows: u64) -> IndexSummary {
    let kind = crate::index::dense::resolve(factory, rows as usize);
    let determinism = match kind.as_str() {
        "Flat" => Determinism::yes(),
        _ => Determinism::no("FAISS builds graphs and clusters on several threads"),
    };
    IndexSummary {
        rows,
        kind,
        determinism,
    }
}

/// Runs what the journal does not have yet; what was written is synced before it counts as done.
struct Steps<'a> {
    generation: &'a Path,
    shards: &'a [Shard<'a>],
    journal: &'a mut Journal,
    progress: &'a dyn Progress,
}

impl Steps<'_> {
    fn dense(
        &mut self,
        stage: &'static str,
        settings: &Dense,
        side: Side,
    ) -> Result<(), EngineError> {
        let progress = self.progress;
        self.each_shard(
            (stage, "vectors"),
            |shard| shard.count_vectors(settings, side),
            |shard, rows| shard.dense(settings, side, rows, progress),
        )
    }

    fn sparse(&mut self, job: &Job) -> Result<(), EngineError> {
        let progress = self.progress;
        self.each_shard(
            (SPARSE, "chunks"),
            |shard| Ok(shard.rows(Dataset::Chunks)?),
            |shard, _| shard.sparse(job, progress),
        )
    }

    fn selection(&mut self, selector: &Selector) -> Result<(), EngineError> {
        if self.journal.is_done(SELECTION, None) {
            return Ok(());
        }
        self.record(SELECTION, None, |generation| {
            selector.write()?;
            let parts = Dataset::Selection.parts(generation)?;
            let rows = parts.iter().map(|part| count_rows(part));
            Ok(rows.sum::<Result<usize, _>>()? as u64)
        })
    }

    /// Runs a stage for every shard; `count` says how many rows a shard gives, `work` how many it gave.
    fn each_shard(
        &mut self,
        (stage, unit): (&'static str, &'static str),
        count: impl Fn(&Shard) -> Result<usize, EngineError>,
        work: impl Fn(&Shard, usize) -> Result<u64, EngineError>,
    ) -> Result<(), EngineError> {
        if self.journal.is_done(stage, None) {
            return Ok(());
        }
        let mut missing = Vec::new();
        for (number, shard) in self.shards.iter().enumerate() {
            let number = self.number(number);
            if !self.journal.is_done(stage, number) {
                missing.push((number, shard, count(shard)?));
            }
        }
        let total: usize = missing.iter().map(|(.., rows)| rows).sum();
        self.progress.start(stage, total as u64, unit);
        for (number, shard, rows) in missing {
            self.record(stage, number, |_| work(shard, rows))?;
        }
        self.progress.finish();
        if self.shards.len() > 1 {
            self.journal.record(stage, None, Tally::default())?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        stage: &'static str,
        shard: Option<usize>,
        work: impl FnOnce(&Path) -> Result<u64, EngineError>,
    ) -> Result<(), EngineError> {
        let mut tally = Tally::default();
        let meter = Meter::start();
        tally.rows = work(self.generation)?;
        meter.stop(&mut tally);
        tally.computed = tally.rows;
        for part in ["selection", "sparse", "sparse.ciff.gz", "dense", "shards"] {
            let path = self.generation.join(part);
            if path.exists() {
                sync_tree(&path)?;
            }
        }
        Ok(self.journal.record(stage, shard, tally)?)
    }

    /// What was built of a shard.
    fn summary(&self, job: &Job, shard: usize) -> IndexShard {
        let dense = |stage| dense_summary(&job.dense.factory, self.rows(stage, shard));
        let of_sparse =
            Determinism::no("Tantivy names segments at random; their postings are the same");
        IndexShard {
            parts: self.shards[shard].parts.len(),
            sparse: job.sparse.enabled.then(|| IndexSummary {
                rows: self.rows(SPARSE, shard),
                kind: "tantivy".into(),
                determinism: of_sparse,
            }),
            dense_text: job.dense.enabled.then(|| dense(DENSE_TEXT)),
            dense_queries: has_queries(job).then(|| dense(DENSE_QUERIES)),
        }
    }

    /// A shard's number in the journal; none where it is the only one.
    fn number(&self, shard: usize) -> Option<usize> {
        (self.shards.len() > 1).then_some(shard)
    }

    /// Rows that a stage wrote of a shard.
    fn rows(&self, stage: &str, shard: usize) -> u64 {
        self.journal.tally(stage, self.number(shard)).rows
    }
}
