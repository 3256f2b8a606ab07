//! The room that a build needs on the disk.

use super::{Earlier, Planner, count::Counted, queries};
use crate::{
    engine::{build::stages, stage::Stage},
    job::spec::VectorType,
    store::{Dataset, index_shards, manifest::FileSummary},
};

/// Copies of a stage's earlier rows while they are taken over: sorted into a file, as found in runs that are merged,
/// and as taken.
const COPIES: u64 = 3;

/// What a generation takes.
struct Sizes {
    whole: u64,
    sparse: u64,
    /// Of the stage that has most.
    stage: u64,
    basis: &'static str,
}

impl Planner<'_> {
    fn sizes(&self, corpus: &Counted) -> Sizes {
        match self.alike() {
            Some(earlier) => published(self, earlier, corpus),
            None => self.expected(corpus),
        }
    }

    /// Most bytes that a generation takes while it is built from nothing.
    pub(super) fn disk_of_first(&self, corpus: &Counted) -> u64 {
        let sizes = self.sizes(corpus);
        match self.job.sparse.enabled {
            true => sizes.whole + sizes.sparse,
            false => sizes.whole,
        }
    }

    /// Most bytes that the new generation takes while it is built, beside those already there.
    pub(super) fn disk(&self, corpus: &Counted) -> (u64, String) {
        let sizes = self.sizes(corpus);
        let (mut bytes, mut basis) = (self.disk_of_first(corpus), sizes.basis.to_owned());
        if self.job.sparse.enabled {
            basis += "; the sparse index once more while its parts are merged";
        }
        if stages(self.job).into_iter().any(|s| self.unchanged(s)) {
            bytes += COPIES * sizes.stage;
            basis += "; the largest stage three times more while its earlier rows are sorted and taken over";
        }
        (bytes, basis)
    }

    /// The published generation, if a document takes as much in the new one.
    fn alike(&self) -> Option<&Earlier<'_>> {
        self.earlier.as_ref().filter(|earlier| {
            let (before, now) = (&earlier.published.manifest, self.job);
            let parameters = &before.parameters;
            (&parameters.chunk, &parameters.expand) == (&now.chunk, &now.expand)
                && (&parameters.dense, &parameters.sparse) == (&now.dense, &now.sparse)
                && (parameters.output.vectors, before.dim) == (now.output.vectors, self.dim)
        })
    }

    fn expected(&self, corpus: &Counted) -> Sizes {
        let (chunks, queries) = match self.job.dense.enabled {
            true => (corpus.all.chunks, queries(self.job, &corpus.all)),
            false => (0, 0),
        };
        let number = match self.job.output.vectors {
            VectorType::F32 => 4,
            VectorType::F16 => 2,
        };
        let vectors = |rows: u64| rows * self.dim as u64 * number;
        let indexed = (chunks + queries) * self.dim as u64 * 4;
        Sizes {
            whole: vectors(chunks + queries) + indexed + 3 * corpus.all.bytes,
            sparse: corpus.all.bytes,
            stage: vectors(chunks.max(queries)).max(corpus.all.bytes),
            basis: "vectors as output.vectors says in the dataset, of 4 bytes a number in FAISS; texts three times their size, in \
                    the datasets and in Tantivy",
        }
    }
}

fn published(planner: &Planner, earlier: &Earlier, corpus: &Counted) -> Sizes {
    let manifest = &earlier.published.manifest;
    let documents = manifest.datasets.get(Dataset::Documents.folder());
    let documents = documents.map_or(1, |d| d.rows.max(1));
    let sum = |wanted: &dyn Fn(&FileSummary) -> bool| {
        let files = manifest.files.iter().filter(|f| wanted(f));
        let bytes: u64 = files.map(|f| f.bytes).sum();
        (bytes as f64 * corpus.all.documents as f64 / documents as f64) as u64
    };
    let below = |folder: &str| {
        let folder = format!("{folder}/");
        sum(&|file| index_shards::without_prefix(&file.path).starts_with(&folder))
    };
    let stage = |s: Stage| below(s.output().folder()) + below(s.outcomes().folder());
    Sizes {
        whole: sum(&|_| true),
        sparse: below("sparse"),
        stage: stages(planner.job)
            .into_iter()
            .map(stage)
            .max()
            .unwrap_or(0),
        basis: "as many a document as the published generation",
    }
}
