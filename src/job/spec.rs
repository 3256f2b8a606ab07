//! The job file as written: one TOML document, every key with its default.
//!
//! Field names are the keys of the file; the doc comments become the descriptions in `schemas/job.schema.json`.

mod expand;
mod index;

use std::path::PathBuf;

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MaxFailures;
pub use expand::{Example, Expand, Filter, Scored};
pub use index::{Dense, Index, Sparse, SparseLanguage};

/// An Intendex job: a corpus in, a published index out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Version of the job file's format. Always 1.
    pub version: u32,
    /// Name of the job; an output folder belongs to one job. Default: the job file's name without its ending.
    pub name: Option<String>,
    pub corpus: Corpus,
    pub output: Output,
    pub models: Models,
    #[serde(default)]
    pub intents: Intents,
    #[serde(default)]
    pub chunk: Chunk,
    #[serde(default)]
    pub expand: Expand,
    #[serde(default)]
    pub sparse: Sparse,
    #[serde(default)]
    pub dense: Dense,
    #[serde(default)]
    pub index: Index,
    #[serde(default)]
    pub engine: Engine,
}

/// Where the documents are and which columns hold what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Corpus {
    /// A Parquet file, a folder of them, or a glob; also at an address on object storage (`s3://`, `gs://`, `az://`).
    pub path: String,
    /// Column with the document's unique id (string or integer).
    #[serde(default = "default_id_column")]
    pub id: String,
    /// Column with the document's text (string).
    #[serde(default = "default_text_column")]
    pub text: String,
    /// Column with the document's title (string).
    pub title: Option<String>,
    /// Column with questions the document answers (list of strings); they replace the generated intents.
    pub intents: Option<String>,
    /// Columns copied unchanged to every chunk.
    #[serde(default)]
    pub passthrough: Vec<String>,
    /// A SQL condition over the corpus's columns; rows for which it is not true are left out.
    pub filter: Option<String>,
    /// Longer documents go to quarantine (bytes of UTF-8).
    #[serde(default = "default_max_document_bytes")]
    pub max_document_bytes: usize,
}

/// Where the index is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Folder that holds `CURRENT` and `generations/`, or its address on object storage (`s3://`, `gs://`, `az://`).
    pub path: PathBuf,
    /// Element type of the vector columns.
    #[serde(default)]
    pub vectors: VectorType,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VectorType {
    #[default]
    F32,
    F16,
}

/// The models the job runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// Never touch the network: hub models must already be in the cache.
    #[serde(default)]
    pub offline: bool,
    /// `auto` (the first GPU, else the CPU), `cpu`, or `cuda:N`.
    #[serde(default = "default_device")]
    pub device: String,
    pub embedder: Embedder,
    /// Needed by generated intents and by expansion.
    pub generator: Option<Generator>,
    /// Scores queries, if `expand.scores` or `expand.filter` names it.
    pub cross_encoder: Option<CrossEncoder>,
}

/// A BERT-family model with a classification head of one class, which reads a query and a chunk together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossEncoder {
    /// A folder, or a hub id such as `cross-encoder/ms-marco-MiniLM-L6-v2`.
    pub model: String,
    /// The hub revision (a commit hash); required for a hub id.
    pub revision: Option<String>,
}

/// A BERT-family sentence embedder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedder {
    /// A folder, or a hub id such as `sentence-transformers/all-MiniLM-L6-v2`.
    pub model: String,
    /// The hub revision (a commit hash); required for a hub id.
    pub revision: Option<String>,
    /// How token vectors become one; default: as the model's own files say, else `mean`.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to length 1; default: as the model's own files say, else true.
    pub normalize: Option<bool>,
    /// Put before every query; default: as the model's own files say, else nothing.
    pub query_prefix: Option<String>,
    /// Put before every document text; default: as the model's own files say, else nothing.
    pub document_prefix: Option<String>,
    /// Longest input in tokens, special tokens included; default: as the model's own files say.
    pub max_tokens: Option<usize>,
    /// Number type of the weights: `f32`, on a GPU also `f16` or `bf16`, on the CPU also `int8` (linear layers in 8 bits).
    /// Default: `f32` on the CPU, `f16` on a GPU.
    pub precision: Option<Precision>,
    /// Most tokens in a batch; default: 65,536 on a GPU, on the CPU what a core's cache holds.
    pub batch_tokens: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    F32,
    F16,
    Bf16,
    Int8,
}

impl Precision {
    pub fn usual(on_gpu: bool) -> Self {
        match on_gpu {
            true => Precision::F16,
            false => Precision::F32,
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        })
    }
}

impl Embedder {
    /// The settings that change a vector, but for [`numbers`](Self::numbers). Where the model lies and how it is
    /// batched do not.
    pub fn parameters(&self) -> impl Serialize + '_ {
        (
            self.pooling,
            self.normalize,
            &self.query_prefix,
            &self.document_prefix,
            self.max_tokens,
        )
    }

    /// The number type that is used.
    pub fn numbers(&self, on_gpu: bool) -> Precision {
        self.precision.unwrap_or(Precision::usual(on_gpu))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    Mean,
    Cls,
}

/// A decoder language model run here, or a model behind an OpenAI-compatible server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// A GGUF file, a folder with one or with safetensors, or a hub id; with `server`, the name the server knows the model by.
    pub model: String,
    /// The GGUF file's name inside the hub repository or folder, when it holds several.
    pub file: Option<String>,
    /// The hub revision (a commit hash); required for a hub id.
    pub revision: Option<String>,
    /// Base URL of an OpenAI-compatible server, such as `http://127.0.0.1:8000/v1`.
    pub server: Option<String>,
    /// Bearer token for the server; write `${NAME}` to take it from the environment. Never written anywhere.
    #[serde(skip_serializing)]
    pub api_key: Option<Secret>,
    /// Requests in flight to the server.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Longest prompt plus output in tokens; default: as the model's own files say, at most 8192.
    pub context_tokens: Option<usize>,
    /// Most frequent tokens of the vocabulary from which a model run here draws, besides those of the prompt; the others'
    /// logits are not computed. Default: the whole vocabulary.
    pub shortlist: Option<usize>,
}

impl Generator {
    /// In what numbers a model run here computes; a server does not say.
    pub fn numbers(&self, on_gpu: bool) -> Option<&'static str> {
        let own = if on_gpu { "bf16" } else { "quantised" };
        self.server.is_none().then_some(own)
    }
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Predicted questions of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Intents {
    /// Have the generator predict them. `chunk.method = "intent"` cuts by them; with any method each is also a question of
    /// the chunk that it is closest to, if `expand.enabled`.
    pub enabled: bool,
    /// Longest section read at once, in tokens of the generator.
    pub section_tokens: usize,
    /// Longer documents (in code points) get no generated intents; run.json counts them.
    pub max_document_chars: usize,
    pub temperature: f32,
    /// Of two questions closer than this cosine, the later is dropped.
    pub duplicate_cosine: f32,
}

impl Default for Intents {
    fn default() -> Self {
        Self {
            enabled: false,
            section_tokens: 1024,
            max_document_chars: 200_000,
            temperature: 0.7,
            duplicate_cosine: 0.9,
        }
    }
}

/// How documents are cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Chunk {
    pub method: ChunkMethod,
    /// What the `intent` method maximises.
    pub objective: Objective,
    /// No chunk is longer, in tokens of the embedder (special tokens not counted); default: what the embedder takes.
    pub max_tokens: Option<usize>,
    /// Length that all methods but `intent` aim at, in tokens of the embedder: for `boundary` and `coherence` about the mean,
    /// for the others the most. A sentence, table or code block that is longer stays whole up to `max_tokens`, but for
    /// `tokens` and `recursive`.
    pub target_tokens: usize,
    /// Tokens that neighbouring `sliding` windows share.
    pub overlap_tokens: usize,
    /// `intent`: most sentences in a chunk (L).
    pub max_sentences: usize,
    /// `intent`: cost per squared sentence count (λ).
    pub lambda: f32,
    /// `intent`: cost per further chunk (β).
    pub beta: f32,
}

impl Default for Chunk {
    fn default() -> Self {
        Self {
            method: ChunkMethod::Boundary,
            objective: Objective::Paper,
            max_tokens: None,
            target_tokens: 160,
            overlap_tokens: 32,
            max_sentences: 24,
            lambda: 0.01,
            beta: 1.0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ChunkMethod {
    /// Cut where marks, sentence vectors and words speak for a boundary, near the target length, by dynamic programming.
    Boundary,
    /// Cut where the predicted questions change, by dynamic programming.
    Intent,
    /// Whole sentences up to the target length.
    Fixed,
    /// Windows of whole sentences that overlap.
    Sliding,
    /// Whole paragraphs, lists, tables and code blocks up to the target length.
    Paragraph,
    /// Windows of the target length, whatever they part but words.
    Tokens,
    /// Whole parts of the strongest kind that fit the target length: parted by empty lines, by lines, sentences, words.
    Recursive,
    /// Cut where neighbouring sentences are least alike (TextTiling).
    Coherence,
    /// Sentences up to the target length, grouped so that those of a chunk are most alike, by dynamic programming.
    Cluster,
}

impl ChunkMethod {
    /// As a job file has it.
    pub fn name(self) -> &'static str {
        match self {
            ChunkMethod::Boundary => "boundary",
            ChunkMethod::Intent => "intent",
            ChunkMethod::Fixed => "fixed",
            ChunkMethod::Sliding => "sliding",
            ChunkMethod::Paragraph => "paragraph",
            ChunkMethod::Tokens => "tokens",
            ChunkMethod::Recursive => "recursive",
            ChunkMethod::Coherence => "coherence",
            ChunkMethod::Cluster => "cluster",
        }
    }

    /// Whether it compares sentences by their vectors, and so has them embedded with or without intents.
    pub fn reads_sentences(self) -> bool {
        use ChunkMethod::{Boundary, Cluster, Coherence};
        matches!(self, Boundary | Cluster | Coherence)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// arXiv 2602.14784: Σ R(C) − λ Σ |C|² − β (k−1).
    Paper,
}

/// How the job runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Threads; 0 means one per core.
    pub threads: usize,
    /// Most documents in a part of the datasets, the unit of resume; default: 2,000, or 100 where a generator writes for them that is
    /// not on a GPU of this machine.
    pub shard_documents: Option<usize>,
    /// Most bytes of text in a part.
    pub shard_bytes: usize,
    /// Memory DataFusion may use before it spills, in MiB.
    pub memory_mib: usize,
    /// Folder to spill to; default: inside the output.
    pub spill: Option<PathBuf>,
    /// Goes into every row's seed.
    pub seed: u64,
    /// The run ends once more rows have failed: a number of rows, of all stages together; or a share of each stage's
    /// input rows, as a percentage such as "1%" or a number below 1 such as 0.01.
    pub max_failures: Option<MaxFailures>,
    /// Ballista scheduler (`df://host:port`) on whose executors the map stages run; default, and where it is empty: this process.
    pub cluster: Option<String>,
    /// Shards that are on their way in a cluster at once; no fewer than its executors have tasks.
    pub cluster_shards: usize,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            threads: 0,
            shard_documents: None,
            shard_bytes: 32 << 20,
            memory_mib: 128,
            spill: None,
            seed: 42,
            max_failures: None,
            cluster: None,
            cluster_shards: 64,
        }
    }
}

impl Engine {
    /// Most documents in a part. Where a generator takes seconds for each of them, a kill must not cost hours.
    pub fn shard_documents(&self, slowly: bool) -> usize {
        let usual = if slowly { 100 } else { 2000 };
        self.shard_documents.unwrap_or(usual)
    }
}

fn default_id_column() -> String {
    "doc_id".into()
}

fn default_text_column() -> String {
    "text".into()
}

fn default_max_document_bytes() -> usize {
    100_000_000
}

fn default_device() -> String {
    "auto".into()
}

fn default_concurrency() -> usize {
    8
}
