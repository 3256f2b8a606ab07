//! The dense side of a search: a chunk's text and its queries are in two FAISS indexes and become one score.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::fusion::dense_score;
use crate::index::dense::{DenseError, DenseHit, DenseShards};
use crate::index::ids::QueryRows;

/// A chunk with its dense score and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseChunk {
    /// Row of the text index.
    pub row: usize,
    pub score: f32,
    /// Cosine of the chunk's text.
    pub text: f32,
    /// Row of the queries index that is closest among the chunk's own, and its cosine.
    pub query: Option<DenseHit>,
}

/// The two dense indexes of a generation, each of all its shards, rows aligned.
pub struct DensePair {
    pub text: DenseShards,
    /// Nothing when the generation has no queries index.
    pub queries: Option<Queries>,
}

/// The queries index and which rows belong to which chunk.
pub struct Queries {
    pub index: DenseShards,
    rows: QueryRows,
}

impl DensePair {
    /// Opens `text.faiss`, `text.ids` and, if there, `queries.faiss`, `queries.ids` in each folder. The queries must be in
    /// the order of the chunks.
    pub fn open(folders: &[PathBuf]) -> Result<Self, PairError> {
        let text = DenseShards::open(folders, "text")?;
        let has_queries = |folder: &PathBuf| folder.join("queries.faiss").exists();
        if !folders.iter().any(has_queries) {
            return Ok(Self {
                text,
                queries: None,
            });
        }
        let index = DenseShards::open(folders, "queries")?;
        let rows = QueryRows::align(text.ids(), index.ids());
        let rows = rows.map_err(|query| PairError::Order { query })?;
        Ok(Self {
            text,
            queries: Some(Queries { index, rows }),
        })
    }

    /// The best `depth` chunks for a query's vector, score descending, of equal scores the earlier chunk first.
    /// Candidates are the best `depth` rows of either index; each gets both cosines. One that an index neither
    /// found nor can give back (inverted lists) is taken to be as close as the last row that index found, which is
    /// the most it can be.
    pub fn search(
        &self,
        vector: &[f32],
        depth: usize,
        alpha: f32,
    ) -> Result<Vec<DenseChunk>, DenseError> {
        let by_text = self.text.search(vector, depth)?;
        let by_query = match &self.queries {
            Some(queries) => queries.index.search(vector, depth)?,
            None => Vec::new(),
        };
        let text_floor = by_text.last().map_or(0.0, |hit| hit.score);
        let query_floor = by_query.last().map_or(0.0, |hit| hit.score);

        let mut candidates: BTreeMap<usize, (Option<f32>, Option<DenseHit>)> = by_text
            .into_iter()
            .map(|hit| (hit.row, (Some(hit.score), None)))
            .collect();
        if let Some(queries) = &self.queries {
            // Best first, so the first of a chunk is its best.
            for hit in by_query {
                candidates
                    .entry(queries.rows.chunk(hit.row))
                    .or_default()
                    .1
                    .get_or_insert(hit);
            }
        }
        let complete = |(row, (text, query)): (usize, (Option<f32>, Option<DenseHit>))| {
            let text = text
                .or_else(|| self.text.score(vector, row))
                .unwrap_or(text_floor);
            let query = query.or_else(|| self.best_query(vector, row, query_floor));
            DenseChunk {
                row,
                score: dense_score(text, query.map(|hit| hit.score), alpha),
                text,
                query,
            }
        };
        let mut chunks: Vec<DenseChunk> = candidates.into_iter().map(complete).collect();
        chunks.sort_by(|a, b| b.score.total_cmp(&a.score));
        chunks.truncate(depth);
        Ok(chunks)
    }

    /// The best of a chunk's own queries; nothing when it has none.
    fn best_query(&self, vector: &[f32], chunk: usize, floor: f32) -> Option<DenseHit> {
        let queries = self.queries.as_ref()?;
        let scored = queries.rows.range(chunk).map(|row| {
            let score = queries.index.score(vector, row).unwrap_or(floor);
            DenseHit { row, score }
        });
        scored.reduce(|best, next| if next.score > best.score { next } else { best })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error(transparent)]
    Index(#[from] DenseError),
    #[error(
        "queries.ids: query {query} is not in the order of the chunks of text.ids, or its chunk is not there; build the index again"
    )]
    Order { query: String },
}
