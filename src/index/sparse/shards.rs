//! Several sparse indexes over disjoint documents, searched as the one index that they would be together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tantivy::query::Bm25StatisticsProvider;
use tantivy::schema::Field;
use tantivy::{TantivyError, Term};

use super::bm25f::FieldsQuery;
use super::{SparseError, SparseHit, SparseIndex, SparseWeights, in_dir};

/// The sparse indexes of all shards, in the order of their documents.
pub struct SparseShards(Vec<SparseIndex>);

/// A document of one of the shards, and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShardHit {
    pub shard: usize,
    pub hit: SparseHit,
}

impl SparseShards {
    /// Opens an index in each folder. All must have been built with one language.
    pub fn open(folders: &[PathBuf]) -> Result<Self, SparseError> {
        let shards = folders.iter().map(|folder| SparseIndex::open(folder));
        Ok(Self(shards.collect::<Result<_, _>>()?))
    }

    /// The best `k` documents of all shards, score descending; of equal scores the earlier document first. Scores are by the
    /// statistics of all documents (their count, document frequencies, mean lengths), and so those of one index.
    pub fn search(
        &self,
        query: &str,
        k: usize,
        weights: SparseWeights,
    ) -> Result<Vec<ShardHit>, SparseError> {
        let Some(first) = self.0.first() else {
            return Ok(Vec::new());
        };
        let words = first.words(query, weights)?;
        let statistics = Statistics::of(&self.0, &words)?;
        let mut hits = Vec::new();
        for (shard, index) in self.0.iter().enumerate() {
            let best = index.best(&words, k, &statistics)?;
            hits.extend(best.into_iter().map(|hit| ShardHit { shard, hit }));
        }
        // Stable: of equal scores the earlier shard's stay first.
        hits.sort_by(|a, b| b.hit.score.total_cmp(&a.hit.score));
        hits.truncate(k);
        Ok(hits)
    }

    /// The chunk id and document id of a hit.
    pub fn ids(&self, found: ShardHit) -> Result<(String, String), SparseError> {
        self.0[found.shard].ids(found.hit.row)
    }
}

/// What scores depend on beyond their documents, summed over all shards.
struct Statistics {
    documents: u64,
    tokens: BTreeMap<Field, u64>,
    /// Documents with each term of the search.
    frequencies: BTreeMap<Term, u64>,
}

impl Statistics {
    fn of(shards: &[SparseIndex], words: &[FieldsQuery]) -> Result<Self, SparseError> {
        let mut statistics = Self {
            documents: 0,
            tokens: BTreeMap::new(),
            frequencies: BTreeMap::new(),
        };
        for shard in shards {
            let added = statistics.add(shard.searcher(), words);
            added.map_err(in_dir(&shard.dir))?;
        }
        Ok(statistics)
    }

    fn add(
        &mut self,
        shard: &dyn Bm25StatisticsProvider,
        words: &[FieldsQuery],
    ) -> Result<(), TantivyError> {
        self.documents += shard.total_num_docs()?;
        let fields = words.first().map_or(&[][..], |word| &word.fields);
        for (field, _) in fields {
            *self.tokens.entry(*field).or_default() += shard.total_num_tokens(*field)?;
        }
        for (term, _) in words.iter().flat_map(FieldsQuery::terms) {
            let frequency = shard.doc_freq(&term)?;
            *self.frequencies.entry(term).or_default() += frequency;
        }
        Ok(())
    }
}

impl Bm25StatisticsProvider for Statistics {
    fn total_num_tokens(&self, field: Field) -> tantivy::Result<u64> {
        Ok(self.tokens.get(&field).copied().unwrap_or(0))
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.documents)
    }

    fn doc_freq(&self, term: &Term) -> tantivy::Result<u64> {
        Ok(self.frequencies.get(term).copied().unwrap_or(0))
    }
}
