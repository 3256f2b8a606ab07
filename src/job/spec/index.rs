//! The indexes: `[sparse]`, `[dense]`, and `[index]` for both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The sparse index. The weights, by which the words of each field are counted before they saturate (BM25F), are stored with it
/// as the defaults of `search`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sparse {
    pub enabled: bool,
    /// Language of the stemmer and stop words.
    pub language: SparseLanguage,
    pub title_weight: f32,
    pub text_weight: f32,
    pub queries_weight: f32,
}

impl Default for Sparse {
    fn default() -> Self {
        Self {
            enabled: true,
            language: SparseLanguage::English,
            title_weight: 1.0,
            text_weight: 1.0,
            queries_weight: 0.3,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SparseLanguage {
    /// No stemming and no stop words.
    None,
    Danish,
    Dutch,
    English,
    Finnish,
    French,
    German,
    Hungarian,
    Italian,
    Norwegian,
    Portuguese,
    Russian,
    Spanish,
    Swedish,
}

/// The dense indexes, and the vectors for them. The weights are stored with them as the defaults of `search`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dense {
    pub enabled: bool,
    /// A FAISS factory string, or `auto`: Flat up to 50,000 vectors, HNSW up to 5 million, then IVF.
    pub factory: String,
    /// Share of what the best question's cosine exceeds the text's by in a chunk's dense score (α). Default: 0.6 · n / (n + 10)
    /// for n questions a chunk on average.
    pub queries_weight: Option<f32>,
    /// Share of the dense score in a hybrid search.
    pub hybrid_weight: f32,
}

impl Default for Dense {
    fn default() -> Self {
        Self {
            enabled: true,
            factory: "auto".into(),
            queries_weight: None,
            hybrid_weight: 0.5,
        }
    }
}

/// How the documents are dealt out to indexes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Index {
    /// How many indexes of each kind are built, over documents that are in no other, with about as many chunks each. Each opens by
    /// itself; `search` asks all of them and ranks as one index would, if the dense ones are exact (`Flat`). `dense.factory` is
    /// chosen, and trained, for each by itself. A shard has whole parts of the datasets, so that there are no more shards than
    /// parts: `engine.shard_documents` decides how many those are.
    pub shards: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { shards: 1 }
    }
}
