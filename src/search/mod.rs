//! Search over a published generation: sparse, dense, or both.

pub mod columns;
pub mod dense;
pub mod fusion;
pub mod passages;
pub mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::index::dense::{DenseError, DenseHit};
use crate::index::sparse::{SparseError, SparseShards, SparseWeights};
use crate::model::{Embed, ModelError, TextKind};
use crate::store::{StoreError, index_shards};
use dense::{DenseChunk, DensePair, PairError};
pub use fusion::Fusion;

/// Fewest candidates per list. Standardised scores depend on how deep the lists are, so that this is also what keeps
/// the first results the same whether ten or a hundred are asked for.
pub const MIN_DEPTH: usize = 1000;

/// Queries embedded at once.
const EMBED_BATCH: usize = 256;

/// Which indexes answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Hybrid,
    Sparse,
    Dense,
}

/// What a result is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unit {
    #[default]
    Chunk,
    /// A document stands where its best chunk stands; the result names that chunk.
    Document,
}

/// Weights of a search; a generation's manifest holds the defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchSettings {
    pub sparse: SparseWeights,
    /// Share of what the best query's cosine exceeds the text's by in the dense score (α).
    pub queries_weight: f32,
    /// Share of the dense score in a hybrid search.
    pub hybrid_weight: f32,
    pub fusion: Fusion,
    /// Candidates per list; default: 10 times the results asked for, at least 1000.
    pub depth: Option<usize>,
}

/// How many results of which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub mode: Mode,
    pub unit: Unit,
    pub k: usize,
}

/// One result, with the parts its score is made of.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Found {
    pub chunk_id: String,
    pub doc_id: String,
    pub score: f32,
    /// The sparse score before fusion; nothing when the chunk is not among the sparse candidates.
    pub sparse: Option<f32>,
    /// The dense score before fusion; nothing when the chunk is not among the dense candidates.
    pub dense: Option<f32>,
    /// Cosine of the chunk's text.
    pub text_cosine: Option<f32>,
    /// Cosine of the chunk's best query, and the query's id.
    pub query_cosine: Option<f32>,
    pub query_id: Option<String>,
}

/// A generation open for search. Index shards answer together, as the one index that they would be.
pub struct Searcher<'a> {
    generation: PathBuf,
    sparse: Option<SparseShards>,
    dense: Option<DensePair>,
    embedder: Option<&'a dyn Embed>,
    settings: SearchSettings,
}

impl<'a> Searcher<'a> {
    /// Opens the indexes that are there. The embedder is needed for anything but sparse searches, and must be the
    /// one of the build.
    pub fn open(
        generation: &Path,
        settings: SearchSettings,
        embedder: Option<&'a dyn Embed>,
    ) -> Result<Self, SearchError> {
        let shards = index_shards::folders(generation)?;
        let has = |file: &str| {
            let there = |shard: &PathBuf| shard.join(file).exists();
            !shards.is_empty() && shards.iter().all(there)
        };
        let below = |folder: &str| -> Vec<PathBuf> {
            let folders = shards.iter().map(|shard| shard.join(folder));
            folders.collect()
        };
        let sparse = has("sparse/meta.json")
            .then(|| SparseShards::open(&below("sparse")))
            .transpose()?;
        let dense = has("dense/text.faiss")
            .then(|| DensePair::open(&below("dense")))
            .transpose()?;
        if let (Some(dense), Some(embedder)) = (&dense, embedder)
            && dense.text.dim() != embedder.dim()
        {
            let (index, model) = (dense.text.dim(), embedder.dim());
            return Err(SearchError::Model {
                path: generation.to_owned(),
                index,
                model,
            });
        }
        Ok(Self {
            generation: generation.to_owned(),
            sparse,
            dense,
            embedder,
            settings,
        })
    }

    /// The results of each query, best first; of equal scores in the order of the chunks (one index) or of their
    /// ids (hybrid).
    pub fn search(
        &self,
        queries: &[&str],
        request: Request,
    ) -> Result<Vec<Vec<Found>>, SearchError> {
        let mut results = Vec::with_capacity(queries.len());
        for batch in queries.chunks(EMBED_BATCH) {
            let vectors = match request.mode {
                Mode::Sparse => None,
                Mode::Hybrid | Mode::Dense => {
                    let embedder = self.embedder.ok_or(SearchError::NoEmbedder)?;
                    Some(embedder.embed(batch, TextKind::Query)?.vectors)
                }
            };
            for (i, query) in batch.iter().enumerate() {
                let vector = vectors.as_ref().map_or(&[][..], |vectors| vectors.row(i));
                results.push(self.search_one(query, vector, request)?);
            }
        }
        Ok(results)
    }

    fn search_one(
        &self,
        query: &str,
        vector: &[f32],
        request: Request,
    ) -> Result<Vec<Found>, SearchError> {
        let depth = self
            .settings
            .depth
            .unwrap_or(MIN_DEPTH.max(request.k.saturating_mul(10)))
            .max(request.k);
        let mut found = match request.mode {
            Mode::Sparse => self.sparse(query, depth)?,
            Mode::Dense => self.dense(vector, depth)?,
            Mode::Hybrid => self.hybrid(self.sparse(query, depth)?, self.dense(vector, depth)?),
        };
        if request.unit == Unit::Document {
            found = fusion::best_of_each(found, |found| &found.doc_id);
        }
        found.truncate(request.k);
        Ok(found)
    }

    fn sparse(&self, query: &str, depth: usize) -> Result<Vec<Found>, SearchError> {
        let missing = || SearchError::NoIndex {
            path: self.generation.clone(),
            index: "sparse",
            other: "dense",
        };
        let index = self.sparse.as_ref().ok_or_else(missing)?;
        let found = index
            .search(query, depth, self.settings.sparse)?
            .into_iter()
            .map(|found| {
                let (chunk_id, doc_id) = index.ids(found)?;
                let score = found.hit.score;
                Ok(Found {
                    chunk_id,
                    doc_id,
                    score,
                    sparse: Some(score),
                    ..Found::default()
                })
            });
        found.collect()
    }

    fn dense(&self, vector: &[f32], depth: usize) -> Result<Vec<Found>, SearchError> {
        let missing = || SearchError::NoIndex {
            path: self.generation.clone(),
            index: "dense",
            other: "sparse",
        };
        let pair = self.dense.as_ref().ok_or_else(missing)?;
        let chunks = pair.search(vector, depth, self.settings.queries_weight)?;
        Ok(chunks
            .into_iter()
            .map(|chunk| Found::dense(pair, chunk))
            .collect())
    }

    fn hybrid(&self, sparse: Vec<Found>, dense: Vec<Found>) -> Vec<Found> {
        let scores = |list: &[Found]| -> Vec<(String, f32)> {
            list.iter().map(|f| (f.chunk_id.clone(), f.score)).collect()
        };
        let fused = fusion::fuse(
            &scores(&sparse),
            &scores(&dense),
            self.settings.fusion,
            self.settings.hybrid_weight,
        );
        let mut by_id: BTreeMap<String, Found> =
            dense.into_iter().map(|f| (f.chunk_id.clone(), f)).collect();
        for found in sparse {
            let both = by_id
                .entry(found.chunk_id.clone())
                .or_insert_with(|| found.clone());
            both.sparse = found.sparse;
        }
        let scored =
            |(id, score): (String, f32)| by_id.remove(&id).map(|found| Found { score, ..found });
        fused.into_iter().filter_map(scored).collect()
    }
}

impl Found {
    fn dense(pair: &DensePair, chunk: DenseChunk) -> Self {
        let chunk_id = pair.text.id(chunk.row).unwrap_or_default().to_owned();
        let doc_id = document_of(&chunk_id).to_owned();
        let query_id = |hit: DenseHit| {
            let queries = pair.queries.as_ref()?;
            queries.index.id(hit.row).map(str::to_owned)
        };
        Self {
            chunk_id,
            doc_id,
            score: chunk.score,
            sparse: None,
            dense: Some(chunk.score),
            text_cosine: Some(chunk.text),
            query_cosine: chunk.query.map(|hit| hit.score),
            query_id: chunk.query.and_then(query_id),
        }
    }
}

/// The document id in a chunk id (`doc_id#n`).
fn document_of(chunk_id: &str) -> &str {
    chunk_id
        .rsplit_once('#')
        .map_or(chunk_id, |(document, _)| document)
}

#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error("{}: there is no {index} index; search with `--mode {other}`, or build with `{index}.enabled = true`", path.display())]
    NoIndex {
        path: PathBuf,
        index: &'static str,
        other: &'static str,
    },
    #[error(
        "a dense or hybrid search needs the embedder; search with `--mode sparse` to do without"
    )]
    NoEmbedder,
    #[error("{}: its vectors have {index} numbers, the embedder's {model}; search with the embedder of the build", path.display())]
    Model {
        path: PathBuf,
        index: usize,
        model: usize,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Sparse(#[from] SparseError),
    #[error(transparent)]
    Pair(#[from] PairError),
    #[error(transparent)]
    Dense(#[from] DenseError),
    #[error(transparent)]
    Embed(#[from] ModelError),
}
