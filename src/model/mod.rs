//! The models, behind three small traits: embed, generate, score.

pub mod batch;
pub mod bert;
pub mod chat;
pub mod decoder;
pub mod device;
mod floats;
pub mod http;
pub mod source;
pub mod tokenizer;

#[cfg(test)]
#[path = "../../tests/common/tiny.rs"]
pub mod tiny;

use std::{borrow::Cow, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which side of a search a text stands on; some embedders put a different prefix before each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    Document,
    Query,
}

/// The files a model was read from. Part of every stage fingerprint: the content counts, not the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelIdentity {
    /// As named in the job.
    pub name: String,
    /// What the model is, as read from its files (`bert`, `qwen2`, …) or `server`.
    pub architecture: String,
    /// The files read, with the BLAKE3 of each, sorted by name; empty for a server.
    pub files: Vec<ModelFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFile {
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
    pub blake3: String,
}

/// Vectors of one call: `values` is row-major, rows × `dim`.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    pub dim: usize,
    pub values: Vec<f32>,
}

impl Vectors {
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    /// With rows of length 1, as [`unit`] has it: a model may not normalise, and cosines are products of such rows.
    pub fn of_unit_length(self) -> Self {
        let values = match unit(&self.values, self.dim) {
            Cow::Borrowed(_) => None,
            Cow::Owned(scaled) => Some(scaled),
        };
        Self {
            dim: self.dim,
            values: values.unwrap_or(self.values),
        }
    }

    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }
}

/// Rows of `dim` numbers at length 1. Those within a thousandth of it stay as they are, bit for bit: a model that
/// normalises has done so. A row of zeros stays one.
pub fn unit(vectors: &[f32], dim: usize) -> Cow<'_, [f32]> {
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    let rows = || vectors.chunks(dim.max(1));
    if rows().all(|row| (length(row) - 1.0).abs() < 1e-3) {
        return Cow::Borrowed(vectors);
    }
    let mut scaled = Vec::with_capacity(vectors.len());
    for row in rows() {
        let length = length(row);
        let factor = if length > 0.0 { length.recip() } else { 1.0 };
        scaled.extend(row.iter().map(|x| x * factor));
    }
    Cow::Owned(scaled)
}

/// What `embed` returns: a vector per text, in order, and how much of each text was cut.
#[derive(Debug, Clone)]
pub struct Embedded {
    pub vectors: Vectors,
    /// Tokens of each text that the model read.
    pub tokens: Vec<usize>,
    /// Tokens of each text beyond the model's limit, which the vector does not see.
    pub truncated: Vec<usize>,
}

/// A text embedder. The result for a text does not depend on the other texts of the call.
pub trait Embed: Send + Sync {
    fn identity(&self) -> &ModelIdentity;
    /// Length of a vector.
    fn dim(&self) -> usize;
    /// Tokens of text a vector can see: the model's limit less special tokens and the document prefix.
    fn max_text_tokens(&self) -> usize;
    /// Byte ranges of the tokens of `text`, in order, without special tokens and without truncation.
    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError>;
    fn embed(&self, texts: &[&str], kind: TextKind) -> Result<Embedded, ModelError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub content: String,
}

/// A conversation that the model continues with the assistant's turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    pub messages: Vec<Message>,
}

/// How to sample the continuations of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Continuations wanted.
    pub n: usize,
    /// 0 is greedy.
    pub temperature: f32,
    pub top_p: f32,
    pub max_tokens: usize,
    /// Text that ends a continuation; it is not part of the result.
    pub stop: Vec<String>,
    /// Continuation i draws from a generator seeded with (seed, i), so that it does not depend on its batch.
    pub seed: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    pub text: String,
    pub tokens: usize,
    /// False when `max_tokens` cut it.
    pub finished: bool,
}

/// The log-probability of a continuation: its sum over the tokens, natural logarithm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogProb {
    pub sum: f64,
    pub tokens: usize,
}

impl LogProb {
    pub fn per_token(&self) -> f64 {
        self.sum / self.tokens.max(1) as f64
    }
}

/// A decoder language model. Requests are independent: one that fails does not touch the others.
pub trait Generate: Send + Sync {
    fn identity(&self) -> &ModelIdentity;
    /// Tokens a prompt and its continuation may have together.
    fn context_tokens(&self) -> usize;
    /// How many requests are worth handing over at once; more only delay the bars.
    fn requests_at_once(&self) -> usize;
    /// Byte ranges of the tokens of `text`, to cut it to a budget; a server's are estimated.
    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError>;
    /// The continuations of each prompt, in order.
    fn generate(&self, requests: &[(Prompt, Sampling)])
    -> Vec<Result<Vec<Completion>, ModelError>>;
}

/// Scores given continuations. Separate from [`Generate`], as not every server can.
pub trait Score: Send + Sync {
    /// log P(continuation | prompt) of each continuation of each prompt, in order.
    fn score(&self, requests: &[(Prompt, Vec<String>)]) -> Vec<Result<Vec<LogProb>, ModelError>>;
}

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("model {model}: {message}")]
    Model { model: String, message: String },
    /// Not the request's fault: the same one may be answered later.
    #[error("model {model}: {message}")]
    Unavailable { model: String, message: String },
    #[error("device {name}: {message}")]
    Device { name: String, message: String },
}
