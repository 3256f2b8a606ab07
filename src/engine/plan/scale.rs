//! What a job comes to on other corpora and clusters: each stage at the rate that the last run had, rows, room and memory in
//! proportion to the documents, the map stages divided among executors.

use serde::Serialize;

use super::{Planner, Scales, count::Counted, queries, work};
use crate::{
    engine::{EngineError, build::stages, ingest},
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
}

impl Planner<'_> {
    pub(super) fn scaled(
        &self,
        scales: &Scales,
        corpus: &Counted,
        disk_bytes: u64,
    ) -> Result<Vec<Scaled>, EngineError> {
        let mut scaled = Vec::new();
        if scales.documents.is_empty() {
            return Ok(scaled);
        }
        let own = corpus.all.documents.max(1) as f64;
        let rows = (corpus.all.chunks, queries(self.job, &corpus.all));
        let mut alone = self.rate(ingest::STAGE, corpus.all.documents)?;
        for (step, rows) in self.steps(rows) {
            alone += self.rate(step, rows)?;
        }
        let mut spread = 0.0;
        for stage in stages(self.job) {
            spread += self.rate(stage.name(), work(stage, self.job, &corpus.all).compute)?;
        }
        for &documents in &scales.documents {
            let times = documents as f64 / own;
            for &executors in &scales.executors {
                let alone_seconds = alone * times;
                scaled.push(Scaled {
                    documents,
                    executors,
                    seconds: alone_seconds + spread * times / executors as f64,
                    alone_seconds,
                    disk_bytes: (disk_bytes as f64 * times) as u64,
                    index_memory_bytes: self.index_memory(rows, times),
                });
            }
        }
        Ok(scaled)
    }

    /// Seconds for so many rows at the rate of the last run.
    fn rate(&self, stage: &str, rows: u64) -> Result<f64, EngineError> {
        self.seconds(stage, rows).ok_or_else(|| {
            EngineError::Refused(format!(
                "no rate of the stage {stage} is known, by which a plan is scaled; build the job on a sample of the corpus first, on \
                 the machine whose rates you want"
            ))
        })
    }

    fn index_memory(&self, (chunks, queries): (u64, u64), times: f64) -> u64 {
        if !self.job.dense.enabled {
            return 0;
        }
        // Shards are built one after the other.
        let of = |rows: u64| {
            let rows = (rows as f64 * times) as u64 / self.job.index.shards as u64;
            let factory = dense::resolve(&self.job.dense.factory, rows as usize);
            let number = if factory.contains("fp16") { 2 } else { 4 };
            let links = if factory.contains("HNSW") { LINKS } else { 0 };
            rows * (self.dim as u64 * number + links)
        };
        of(chunks).max(of(self.kept(queries)))
    }
}
