//! What a job comes to on other corpora and clusters: each stage at the rate that the last run had or that is given, rows, room and
//! memory in proportion to the documents, the map stages divided among executors.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Planner, Suppose, count::Counted, queries, work};
use crate::{
    engine::{EngineError, build::stages, indexes, ingest},
    index::dense,
};

/// Links of a vector in an HNSW index, in bytes: 2 · 32 neighbours of 4 bytes on the lowest level, and those above.
const LINKS: u64 = 2 * 32 * 4 + 16;

/// A build from nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scaled {
    pub documents: u64,
    pub executors: u64,
    pub seconds: f64,
    /// Of these, those that the building process spends alone, on documents, indexes and verification.
    pub alone_seconds: f64,
    /// Most that the output takes while it is built.
    pub disk_bytes: u64,
    /// The dense index of the most rows, which FAISS builds in memory.
    pub index_memory_bytes: u64,
    /// The factory strings of the dense indexes, or of each one's shards: of the chunks, and of the queries.
    pub dense_indexes: Vec<String>,
}

/// A dense index, or the largest of its shards: its step, its rows and its factory string.
type Dense = (&'static str, u64, String);

impl Planner<'_> {
    pub(super) fn scaled(&self, corpus: &Counted) -> Result<Vec<Scaled>, EngineError> {
        let mut scaled = Vec::new();
        let Suppose {
            documents: sizes,
            executors: clusters,
            ..
        } = self.suppose;
        if sizes.is_empty() {
            return Ok(scaled);
        }
        let disk = self.disk_of_first(corpus) as f64;
        let own = corpus.all.documents.max(1) as f64;
        let rows = (corpus.all.chunks, queries(self.job, &corpus.all));
        let mut alone = self.known_seconds(ingest::STAGE, corpus.all.documents)?;
        for (step, rows) in self.steps(rows) {
            alone += self.known_seconds(step, rows)?;
        }
        let mut spread = 0.0;
        for stage in stages(self.job) {
            spread +=
                self.known_seconds(stage.name(), work(stage, self.job, &corpus.all).compute)?;
        }
        let of_size = |&documents: &u64| self.dense_indexes(rows, documents as f64 / own);
        let dense: Vec<Vec<Dense>> = sizes.iter().map(of_size).collect();
        self.warn_of_rates(&dense);
        for (&documents, indexes) in sizes.iter().zip(&dense) {
            let times = documents as f64 / own;
            for &executors in clusters {
                let alone_seconds = alone * times;
                scaled.push(Scaled {
                    documents,
                    executors,
                    seconds: alone_seconds + spread * times / executors as f64,
                    alone_seconds,
                    disk_bytes: (disk * times) as u64,
                    index_memory_bytes: self.index_memory(indexes),
                    dense_indexes: indexes.iter().map(|(.., kind)| kind.clone()).collect(),
                });
            }
        }
        Ok(scaled)
    }

    /// Seconds for so many rows, at a rate that must be known.
    fn known_seconds(&self, stage: &str, rows: u64) -> Result<f64, EngineError> {
        self.seconds(stage, rows).ok_or_else(|| {
            EngineError::Refused(format!(
                "no rate of the stage {stage} is known, by which a plan is scaled; build the job on a sample of the corpus first, on \
                 the machine whose rates you want, or give one: --rate {stage}=ROWS_PER_SECOND"
            ))
        })
    }

    /// Of so many chunks and queries, this many times.
    fn dense_indexes(&self, rows: (u64, u64), times: f64) -> Vec<Dense> {
        let dense = [indexes::DENSE_TEXT, indexes::DENSE_QUERIES];
        let steps = self.steps(rows).into_iter();
        let dense = steps.filter(|(step, _)| dense.contains(step));
        let of = |(step, rows): (&'static str, u64)| {
            let rows = (rows as f64 * times) as u64 / self.job.index.shards as u64;
            let factory = dense::resolve(&self.job.dense.factory, rows as usize);
            (step, rows, factory)
        };
        dense.map(of).collect()
    }

    /// Shards are built one after the other.
    fn index_memory(&self, indexes: &[Dense]) -> u64 {
        let bytes = |(_, rows, factory): &Dense| {
            let number = if factory.contains("fp16") { 2 } else { 4 };
            let links = if factory.contains("HNSW") { LINKS } else { 0 };
            rows.saturating_mul(self.dim as u64 * number + links)
        };
        indexes.iter().map(bytes).max().unwrap_or(0)
    }

    /// Says where the rate that a dense index is counted at is that of an index of another kind.
    fn warn_of_rates(&self, sizes: &[Vec<Dense>]) {
        let built = self.earlier.as_ref().map(|e| &e.published.manifest.indexes);
        for step in [indexes::DENSE_TEXT, indexes::DENSE_QUERIES] {
            let of_step = sizes.iter().flatten().filter(|(own, ..)| *own == step);
            let kinds: BTreeSet<&str> = of_step.map(|(.., kind)| kind.as_str()).collect();
            let measured = match step {
                indexes::DENSE_TEXT => built.and_then(|built| built.dense_text.as_ref()),
                _ => built.and_then(|built| built.dense_queries.as_ref()),
            };
            let rate = match self.suppose.rates.contains_key(step) {
                true if kinds.len() < 2 => continue,
                true => "one rate that was given".to_owned(),
                false => match measured {
                    Some(measured)
                        if kinds
                            .iter()
                            .any(|kind| !measured.kind.split(", ").any(|own| own == *kind)) =>
                    {
                        format!("the last run's rate, of {}", measured.kind)
                    }
                    _ => continue,
                },
            };
            tracing::warn!(
                "{step} is counted at {rate}, but these sizes come to {}, which may take many times as long or less; give the rate of \
                 each with --rate {step}=ROWS_PER_SECOND",
                Vec::from_iter(kinds).join(" and ")
            );
        }
    }
}
