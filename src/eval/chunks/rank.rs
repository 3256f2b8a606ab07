//! Ranks chunks for questions: sparse, dense and both, as a search of a published index does, but with exact cosines.

use tempfile::TempDir;

use super::ChunksError;
use super::score::Piece;
use crate::chunk::objective::dot;
use crate::eval::retrieval::best;
use crate::index::{SparseDocument, SparseIndex, SparseWeights, SparseWriter};
use crate::job::spec;
use crate::model::Vectors;
use crate::search::MIN_DEPTH;
use crate::search::fusion::{Fusion, fuse};

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

    /// Best first, in the order of [`Retrieval::ALL`](crate::eval::retrieval::Retrieval::ALL).
    pub fn rank(&self, question: &str, vector: &[f32]) -> Result<[Vec<usize>; 3], ChunksError> {
        let sparse = self.sparse(question)?;
        let dense = self.dense(vector);
        let weight = spec::Dense::default().hybrid_weight;
        let hybrid = fuse(&sparse, &dense, Fusion::Scores, weight);
        let pieces = |list: Vec<(usize, f32)>| list.iter().map(|hit| self.pieces[hit.0]).collect();
        Ok([sparse, dense, hybrid].map(pieces))
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
        best(self.pieces.iter().enumerate().map(cosine).collect())
    }
}
