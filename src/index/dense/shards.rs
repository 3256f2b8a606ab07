//! Several dense indexes over disjoint rows, searched as the one index that they would be together.

use std::path::PathBuf;

use super::{DenseError, DenseHit, DenseIndex};

/// The dense indexes of all shards, their rows numbered on from shard to shard.
pub struct DenseShards {
    shards: Vec<DenseIndex>,
    /// Where the rows of each shard begin.
    starts: Vec<usize>,
}

impl DenseShards {
    /// Opens `name.faiss` and `name.ids` in each folder.
    pub fn open(folders: &[PathBuf], name: &str) -> Result<Self, DenseError> {
        let (mut shards, mut starts, mut rows) = (Vec::new(), Vec::new(), 0);
        for folder in folders {
            let path = |ending| folder.join(format!("{name}.{ending}"));
            let shard = DenseIndex::open(&path("faiss"), &path("ids"))?;
            starts.push(rows);
            rows += shard.ids().len();
            shards.push(shard);
        }
        Ok(Self { shards, starts })
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.shards.first().map_or(0, DenseIndex::dim)
    }

    /// The id of a row; nothing past the end.
    pub fn id(&self, row: usize) -> Option<&str> {
        let (shard, row) = self.place(row)?;
        shard.ids().get(row)
    }

    /// In the order of the rows.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|shard| shard.ids().iter())
    }

    /// The best `k` rows of all shards, score descending; of equal scores the lower row first. Fewer when there are fewer.
    pub fn search(&self, vector: &[f32], k: usize) -> Result<Vec<DenseHit>, DenseError> {
        let mut hits = Vec::new();
        for (shard, start) in self.shards.iter().zip(&self.starts) {
            let best = shard.search(vector, k)?.into_iter();
            hits.extend(best.map(|hit| DenseHit {
                row: start + hit.row,
                ..hit
            }));
        }
        // Stable: of equal scores the earlier shard's stay first.
        hits.sort_by(|a, b| b.score.total_cmp(&a.score));
        hits.truncate(k);
        Ok(hits)
    }

    /// The inner product of `vector` with a row, as far as its index keeps it ([`DenseIndex::score`]).
    pub fn score(&self, vector: &[f32], row: usize) -> Option<f32> {
        let (shard, row) = self.place(row)?;
        shard.score(vector, row)
    }

    /// The shard of a row, and its row there.
    fn place(&self, row: usize) -> Option<(&DenseIndex, usize)> {
        let shard = self.starts.partition_point(|start| *start <= row);
        let shard = shard.checked_sub(1)?;
        Some((&self.shards[shard], row - self.starts[shard]))
    }
}
