//! What an embedder's folder says about it: `config.json`, and the files of sentence-transformers where it has them.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::job::spec::{self, Pooling};
use crate::model::ModelError;

/// The architecture, from `config.json`. Names are BERT's own.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub vocab_size: usize,
    #[serde(default = "default_type_vocab_size")]
    pub type_vocab_size: usize,
    #[serde(default = "default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default)]
    pub hidden_act: Activation,
    /// Base of nomic-bert's rotary position embedding; BERT's positions have vectors of their own.
    #[serde(skip)]
    pub rotary: Option<f64>,
}

/// nomic-bert (arXiv 2402.01613): rotary positions, gated feed-forward layers, no biases in linear layers.
#[derive(Deserialize)]
struct Nomic {
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: usize,
    n_positions: usize,
    vocab_size: usize,
    #[serde(default = "default_type_vocab_size")]
    type_vocab_size: usize,
    #[serde(default = "default_layer_norm_eps")]
    layer_norm_epsilon: f64,
    #[serde(default = "default_rotary_base")]
    rotary_emb_base: f64,
}

/// Keys of nomic-bert whose other values are other models; a key that is missing has the value that is supported.
const NOMIC_VARIANTS: [(&str, Variant); 9] = [
    ("activation_function", Variant::Name("swiglu")),
    ("rotary_emb_fraction", Variant::Number(1.0)),
    ("rotary_emb_interleaved", Variant::Flag(false)),
    ("rotary_scaling_factor", Variant::Nothing),
    ("prenorm", Variant::Flag(false)),
    ("qkv_proj_bias", Variant::Flag(false)),
    ("mlp_fc1_bias", Variant::Flag(false)),
    ("mlp_fc2_bias", Variant::Flag(false)),
    ("moe_every_n_layers", Variant::Number(0.0)),
];

enum Variant {
    Name(&'static str),
    Number(f64),
    Flag(bool),
    Nothing,
}

impl Variant {
    fn is(&self, value: &Value) -> bool {
        match self {
            Variant::Name(name) => value.as_str() == Some(name),
            Variant::Number(number) => value.as_f64() == Some(*number),
            Variant::Flag(flag) => value.as_bool() == Some(*flag),
            Variant::Nothing => value.is_null(),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Activation {
    /// The exact GELU, with erf.
    #[default]
    #[serde(rename = "gelu")]
    Gelu,
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluTanh,
    #[serde(rename = "relu")]
    Relu,
    /// SiLU of a gate, times the rest (SwiGLU).
    #[serde(skip)]
    Gated,
}

/// How vectors are made of the model's output: the model's own files, overridden by the job.
#[derive(Debug, Clone)]
pub struct Options {
    pub pooling: Pooling,
    pub normalize: bool,
    pub query_prefix: String,
    pub document_prefix: String,
    /// Longest input in tokens, special tokens included.
    pub max_tokens: usize,
}

#[derive(Deserialize)]
struct Kind {
    model_type: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct PoolingFile {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
}

#[derive(Deserialize)]
struct Limits {
    max_seq_length: Option<usize>,
}

#[derive(Default, Deserialize)]
struct PromptFile {
    #[serde(default)]
    prompts: std::collections::BTreeMap<String, String>,
}

impl Config {
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let kind: Kind = require(&path)?;
        let config = match kind.model_type.as_str() {
            "bert" => bert(&path, kind)?,
            "nomic_bert" => nomic(&path)?,
            other => {
                return Err(error(
                    &path,
                    format!("model_type is {other}; only bert and nomic_bert are supported"),
                ));
            }
        };
        if config.num_attention_heads == 0
            || !config
                .hidden_size
                .is_multiple_of(config.num_attention_heads)
        {
            let (size, heads) = (config.hidden_size, config.num_attention_heads);
            return Err(error(
                &path,
                format!("hidden_size {size} cannot be split into {heads} num_attention_heads"),
            ));
        }
        Ok(config)
    }
}

fn bert(path: &Path, kind: Kind) -> Result<Config, ModelError> {
    if let Some(positions) = kind.position_embedding_type.filter(|p| p != "absolute") {
        return Err(error(
            path,
            format!("position_embedding_type {positions} is not supported, only absolute"),
        ));
    }
    require(path)
}

fn nomic(path: &Path) -> Result<Config, ModelError> {
    let keys: Value = require(path)?;
    for (key, variant) in NOMIC_VARIANTS {
        if let Some(value) = keys.get(key).filter(|value| !variant.is(value)) {
            return Err(error(
                path,
                format!("a nomic_bert with {key} = {value} is not supported"),
            ));
        }
    }
    let nomic: Nomic = require(path)?;
    Ok(Config {
        hidden_size: nomic.n_embd,
        num_hidden_layers: nomic.n_layer,
        num_attention_heads: nomic.n_head,
        intermediate_size: nomic.n_inner,
        max_position_embeddings: nomic.n_positions,
        vocab_size: nomic.vocab_size,
        type_vocab_size: nomic.type_vocab_size,
        layer_norm_eps: nomic.layer_norm_epsilon,
        hidden_act: Activation::Gated,
        rotary: Some(nomic.rotary_emb_base),
    })
}

impl Options {
    pub fn read(folder: &Path, config: &Config, job: &spec::Embedder) -> Result<Self, ModelError> {
        if has_module(folder, ".Dense")? == Some(true) {
            let path = folder.join("modules.json");
            return Err(error(
                &path,
                "a Dense layer after pooling is not supported; use another model".into(),
            ));
        }
        let prompts = optional::<PromptFile>(&folder.join("config_sentence_transformers.json"))?
            .unwrap_or_default();
        let prompt = |names: [&str; 2]| {
            names
                .iter()
                .find_map(|n| prompts.prompts.get(*n))
                .cloned()
                .unwrap_or_default()
        };
        Ok(Self {
            pooling: match job.pooling {
                Some(pooling) => pooling,
                None => pooling(folder)?,
            },
            normalize: normalizes(folder, job)?,
            query_prefix: job
                .query_prefix
                .clone()
                .unwrap_or_else(|| prompt(["query", "search_query"])),
            document_prefix: job
                .document_prefix
                .clone()
                .unwrap_or_else(|| prompt(["document", "passage"])),
            max_tokens: max_tokens(folder, config, job)?,
        })
    }
}

/// Whether vectors are scaled to length 1.
pub fn normalizes(folder: &Path, job: &spec::Embedder) -> Result<bool, ModelError> {
    match job.normalize {
        Some(normalize) => Ok(normalize),
        None => Ok(has_module(folder, ".Normalize")?.unwrap_or(true)),
    }
}

/// Whether sentence-transformers runs a module of this kind; None if the folder has no list of them.
fn has_module(folder: &Path, kind: &str) -> Result<Option<bool>, ModelError> {
    let modules: Option<Vec<Module>> = optional(&folder.join("modules.json"))?;
    Ok(modules.map(|modules| modules.iter().any(|m| m.kind.ends_with(kind))))
}

fn pooling(folder: &Path) -> Result<Pooling, ModelError> {
    let path = folder.join("1_Pooling/config.json");
    match optional::<PoolingFile>(&path)? {
        None => Ok(Pooling::Mean),
        Some(file) => match (file.pooling_mode_mean_tokens, file.pooling_mode_cls_token) {
            (true, false) => Ok(Pooling::Mean),
            (false, true) => Ok(Pooling::Cls),
            _ => Err(error(
                &path,
                "only mean or cls pooling is supported; set models.embedder.pooling".into(),
            )),
        },
    }
}

fn max_tokens(folder: &Path, config: &Config, job: &spec::Embedder) -> Result<usize, ModelError> {
    let most = config.max_position_embeddings;
    if let Some(asked) = job.max_tokens.filter(|&n| n > most || n < 3) {
        let message =
            format!("models.embedder.max_tokens is {asked}; this model takes 3 to {most}");
        return Err(error(&folder.join("config.json"), message));
    }
    let limits: Option<Limits> = optional(&folder.join("sentence_bert_config.json"))?;
    Ok(job
        .max_tokens
        .or(limits.and_then(|l| l.max_seq_length))
        .unwrap_or(most)
        .min(most))
}

fn error(path: &Path, message: String) -> ModelError {
    ModelError::File {
        path: path.into(),
        message,
    }
}

fn require<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    optional(path)?.ok_or_else(|| {
        error(
            path,
            "not found; a BERT model is a folder that holds it".into(),
        )
    })
}

/// A JSON file's content; none if there is no such file.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ModelError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error(path, format!("cannot be read: {e}"))),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| error(path, format!("{e}; fetch the model again")))
}

fn default_type_vocab_size() -> usize {
    2
}

fn default_layer_norm_eps() -> f64 {
    1e-12
}

fn default_rotary_base() -> f64 {
    1000.0
}
