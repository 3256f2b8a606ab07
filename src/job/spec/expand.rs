//! The queries of chunks: what is written, what it is scored by, and what the indexes take of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Queries generated for each chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expand {
    pub enabled: bool,
    /// Questions sampled per chunk, each by itself.
    pub queries: usize,
    /// Lists of queries per chunk, steered by its keywords: short ones and questions, of which there are as many as the generator
    /// writes in `list_tokens`.
    pub lists: usize,
    /// Also write words that searchers might use and the chunk lacks; the sparse index takes those that some other chunk has, and
    /// at most one in twenty (SIRA).
    pub vocabulary: bool,
    /// Topics that keywords are to cover; default: √(chunks / 2), at most 1,000. 0: keywords are the chunk's own phrases.
    pub topics: Option<usize>,
    pub temperature: f32,
    pub top_p: f32,
    /// Longest question in tokens of the generator.
    pub max_tokens: usize,
    /// Longest list in tokens of the generator.
    pub list_tokens: usize,
    /// Longest part of a chunk the generator reads, in its tokens.
    pub passage_tokens: usize,
    /// Share of all queries of the corpus, those with the best scores first, that the indexes take; with those that score as much
    /// as the last of them.
    pub keep: f32,
    /// The score that decides which queries are kept.
    pub filter: Filter,
    /// Scores that every query gets, whether or not the filter needs them. Those of the generator take about as long as the
    /// generation.
    #[serde(rename = "scores")]
    pub extra_scores: Vec<Scored>,
    /// Passages with what to write of each, shown to the generator before the chunk; default: a built-in set.
    pub examples: Vec<Example>,
}

impl Default for Expand {
    fn default() -> Self {
        Self {
            enabled: true,
            queries: 5,
            lists: 1,
            vocabulary: false,
            topics: None,
            temperature: 0.8,
            top_p: 0.95,
            max_tokens: 32,
            list_tokens: 110,
            passage_tokens: 512,
            keep: 1.0,
            filter: Filter::Gain,
            extra_scores: Vec::new(),
            examples: Vec::new(),
        }
    }
}

impl Expand {
    /// The settings that change a query. How many an index takes is decided later.
    pub fn generation(&self) -> impl Serialize + '_ {
        (
            (self.queries, self.lists, self.vocabulary),
            self.temperature,
            self.top_p,
            (self.max_tokens, self.list_tokens, self.passage_tokens),
            &self.examples,
        )
    }

    /// The settings that change a score.
    pub fn scoring(&self) -> impl Serialize + '_ {
        (self.scores(), self.passage_tokens, &self.examples)
    }

    /// The scores that models give.
    pub fn scores(&self) -> Vec<Scored> {
        let needed: &[Scored] = match self.filter {
            _ if self.keep >= 1.0 => &[],
            Filter::Gain => &[Scored::Gain],
            Filter::Relevance => &[Scored::Relevance],
            Filter::Combined => &[Scored::Gain, Scored::Relevance],
            Filter::CrossEncoder => &[Scored::CrossEncoder],
            Filter::Cosine | Filter::RoundTrip => &[],
        };
        let all = [Scored::Gain, Scored::Relevance, Scored::CrossEncoder].into_iter();
        all.filter(|s| needed.contains(s) || self.extra_scores.contains(s))
            .collect()
    }
}

/// What models can say of a query and its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scored {
    /// log P(query | chunk) − log P(query | empty passage), per token.
    Gain,
    /// log P(Yes) − log P(No), asked whether the chunk answers the query.
    Relevance,
    /// The logit of `models.cross_encoder`.
    CrossEncoder,
}

/// The score that a query is kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// log P(query | chunk) − log P(query | empty passage), per token.
    Gain,
    /// log P(Yes) − log P(No), asked whether the chunk answers the query.
    Relevance,
    /// The sum of the two, each by its usual deviation.
    Combined,
    /// The logit of `models.cross_encoder`.
    CrossEncoder,
    /// The cosine of the query's and the chunk's vector; needs `dense.enabled`.
    Cosine,
    /// How many chunks are closer to the query than its own; one that is not among its hundred closest is never taken, so that
    /// less than `keep` may be. Needs `dense.enabled`.
    RoundTrip,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Example {
    pub passage: String,
    /// What someone would ask who is answered by the passage.
    pub question: String,
    /// Keywords of the passage, for lists.
    #[serde(default)]
    pub keywords: Vec<String>,
    /// The list of queries to write; without it the example is not shown for lists.
    #[serde(default)]
    pub queries: Vec<String>,
}
