//! Ranks chunks for questions: sparse, dense and both, as a search of a published index does, but with exact cosines.

use std::cmp::Ordering;

use rayon::prelude::*;
use tempfile::TempDir;

use super::ChunksError;
use super::score::Piece;
use crate::chunk::objective::dot;
use crate::index::{SparseDocument, SparseIndex, SparseWeights, SparseWriter};
use crate::job::spec;
use crate::model::Vectors;
use crate::search::MIN_DEPTH;
use crate::search::fusion::{Fusion, fuse};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retrieval {
    Sparse,
    Dense,
    Hybrid,
}

impl Retrieval {
    pub const ALL: [Retrieval; 3] = [Retrieval::Sparse, Retrieval::Dense, Retrieval::Hybrid];

    pub fn name(self) -> &'static str {
        match self {
            Retrieval::Sparse => "sparse",
            Retrieval::Dense => "dense",
            Retrieval::Hybrid => "hybrid",
        }
    }
}

/// Chunks, ready to be ranked.
pub struct Ranker<'a> {
    /// Indexes of the chunks.
    pieces: &'a [usize],
    vectors: &'a Vectors,
    sparse: SparseIndex,
    // After the index that is in it.
    _folder: TempDir,
}

impl<'a> Ranker<'a> {
    /// Of these chunks; `vectors` has a row for every chunk of the set.
    pub fn new(
        all: &[Piece],
        pieces: &'a [usize],
        vectors: &'a Vectors,
    ) -> Result<Self, ChunksError> {
        let folder = TempDir::new().map_err(ChunksError::Folder)?;
        let dir = folder.path().join("sparse");
        let mut writer = SparseWriter::create(&dir, spec::Sparse::default().language)?;
        for &piece in pieces {
            writer.add(SparseDocument {
                chunk_id: "",
                doc_id: "",
                title: None,
                text: &all[piece].text,
                queries: &[],
            })?;
        }
        writer.finish()?;
        Ok(Self {
            pieces,
            vectors,
            sparse: SparseIndex::open(&dir)?,
            _folder: folder,
        })
    }

    /// Best first, in the order of [`Retrieval::ALL`].
    pub fn rank(&self, question: &str, vector: &[f32]) -> Result<[Vec<usize>; 3], ChunksError> {
        let sparse = self.sparse(question)?;
        let dense = self.dense(vector);
        let named = |list: &[(usize, f32)]| -> Vec<(String, f32)> {
            let name = |&(row, score): &(usize, f32)| (format!("{row:09}"), score);
            list.iter().map(name).collect()
        };
        let weight = spec::Dense::default().hybrid_weight;
        let hybrid = fuse(&named(&sparse), &named(&dense), Fusion::Scores, weight);
        let hybrid = hybrid
            .iter()
            .map(|(name, _)| name.parse().expect("a row's name"));
        let rows = |list: &[(usize, f32)]| list.iter().map(|hit| hit.0).collect();
        let ranked: [Vec<usize>; 3] = [rows(&sparse), rows(&dense), hybrid.collect()];
        Ok(ranked.map(|rows| rows.into_iter().map(|row| self.pieces[row]).collect()))
    }

    fn sparse(&self, question: &str) -> Result<Vec<(usize, f32)>, ChunksError> {
        let weights = SparseWeights {
            title: 0.0,
            text: 1.0,
            queries: 0.0,
        };
        let hits = self.sparse.search(question, MIN_DEPTH, weights)?;
        Ok(hits
            .into_iter()
            .map(|hit| (hit.row as usize, hit.score))
            .collect())
    }

    fn dense(&self, vector: &[f32]) -> Vec<(usize, f32)> {
        let cosine = |(row, &piece): (usize, &usize)| (row, dot(self.vectors.row(piece), vector));
        let mut hits: Vec<(usize, f32)> = self.pieces.iter().enumerate().map(cosine).collect();
        let better = |a: &(usize, f32), b: &(usize, f32)| -> Ordering {
            b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
        };
        if hits.len() > MIN_DEPTH {
            hits.select_nth_unstable_by(MIN_DEPTH, better);
            hits.truncate(MIN_DEPTH);
        }
        hits.par_sort_unstable_by(better);
        hits
    }
}
