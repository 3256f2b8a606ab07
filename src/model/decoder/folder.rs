//! A folder as Hugging Face's transformers write it: `config.json`, `tokenizer.json`, a chat template and safetensors.

use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::Tokenizer;

use super::architecture::{Activation, Architecture, Family, Rope, Shape, Window};
use super::files::{Files, Language};
use super::linear::Matrix;
use crate::model::tokenizer::{self, TokenBytes};
use crate::model::{ModelError, source};

/// An open folder: its configuration, and its tensors on demand.
pub struct Folder {
    path: PathBuf,
    config: Config,
    family: Family,
    tensors: MmapedSafetensors,
    device: Device,
}

/// `config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    #[serde(default)]
    tie_word_embeddings: bool,
    rope_theta: Option<f32>,
    rope_scaling: Option<Value>,
    /// Where transformers 5 have both.
    rope_parameters: Option<Value>,
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    /// Gemma 3.
    sliding_window_pattern: Option<usize>,
    rope_local_base_freq: Option<f32>,
    query_pre_attn_scalar: Option<f64>,
    eos_token_id: Option<Value>,
}

/// `tokenizer_config.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Value>,
    bos_token: Option<Value>,
    eos_token: Option<Value>,
}

#[derive(Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<Value>,
}

impl Folder {
    pub fn open(path: &Path, device: &Device) -> Result<Self, ModelError> {
        let config_path = path.join("config.json");
        let kind: Value = require(&config_path)?;
        let kind = kind["model_type"].as_str().unwrap_or("unknown");
        let family = match kind {
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            "gemma3_text" => Family::Gemma3,
            other => {
                return Err(error(
                    &config_path,
                    format!(
                        "model_type {other} is not supported; use a model of llama, qwen2, qwen3 or gemma3_text, or a \
                         server (models.generator.server)"
                    ),
                ));
            }
        };
        let config: Config = require(&config_path)?;
        if config.use_sliding_window {
            return Err(error(
                &config_path,
                "use_sliding_window is not supported; use a model without it".into(),
            ));
        }
        let shards = source::shards(path)?;
        // SAFETY: nobody writes to the files while they are mapped; one who does breaks every program that reads them.
        let tensors = unsafe { MmapedSafetensors::multi(&shards) };
        let tensors = tensors.map_err(|e| {
            error(
                path,
                format!("its safetensors cannot be read ({e}); fetch them again"),
            )
        })?;
        Ok(Self {
            path: path.into(),
            config,
            family,
            tensors,
            device: device.clone(),
        })
    }

    /// The name that transformers have for a tensor.
    fn name(&self, name: &str) -> Option<String> {
        let whole = match name {
            "token_embd.weight" => "model.embed_tokens.weight",
            "output.weight" if self.config.tie_word_embeddings => return None,
            "output.weight" => "lm_head.weight",
            "output_norm.weight" => "model.norm.weight",
            _ => {
                let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
                let (part, kind) = part.rsplit_once('.')?;
                let gemma = self.family == Family::Gemma3;
                let part = match part {
                    "attn_norm" => "input_layernorm",
                    "attn_q" => "self_attn.q_proj",
                    "attn_k" => "self_attn.k_proj",
                    "attn_v" => "self_attn.v_proj",
                    "attn_output" => "self_attn.o_proj",
                    "attn_q_norm" => "self_attn.q_norm",
                    "attn_k_norm" => "self_attn.k_norm",
                    "ffn_norm" if gemma => "pre_feedforward_layernorm",
                    "ffn_norm" => "post_attention_layernorm",
                    "post_attention_norm" if gemma => "post_attention_layernorm",
                    "post_ffw_norm" if gemma => "post_feedforward_layernorm",
                    "ffn_gate" => "mlp.gate_proj",
                    "ffn_up" => "mlp.up_proj",
                    "ffn_down" => "mlp.down_proj",
                    _ => return None,
                };
                return Some(format!("model.layers.{layer}.{part}.{kind}"));
            }
        };
        Some(whole.into())
    }

    fn load(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let theirs = self
            .name(name)
            .filter(|theirs| self.tensors.get(theirs).is_ok());
        let Some(theirs) = theirs else {
            let name = self.name(name).unwrap_or(name.into());
            return Err(self.error(format!(
                "tensor {name} is missing; is this the model its config.json describes?"
            )));
        };
        let tensor = self.tensors.load(&theirs, &self.device);
        let tensor = tensor.map_err(|e| self.error(format!("tensor {theirs}: {e}")))?;
        if tensor.dims() != shape {
            let found = tensor.dims();
            return Err(self.error(format!(
                "tensor {theirs} is {found:?}, but config.json says {shape:?}"
            )));
        }
        Ok(tensor)
    }

    /// A parameter of the rotary embedding, of those that see everything or of the local layers.
    fn rope(&self, local: bool, key: &str) -> Option<&Value> {
        let kind = if local {
            "sliding_attention"
        } else {
            "full_attention"
        };
        let all = self.config.rope_parameters.as_ref();
        let own = all.map(|all| all.get(kind).unwrap_or(all));
        let scaling = self.config.rope_scaling.as_ref().filter(|_| !local);
        own.or(scaling)?.get(key)
    }

    fn rope_kind(&self) -> &str {
        let kind = self
            .rope(false, "rope_type")
            .or_else(|| self.rope(false, "type"));
        kind.and_then(Value::as_str).unwrap_or("default")
    }

    fn rope_number(&self, key: &str) -> Result<f64, ModelError> {
        let number = self.rope(false, key).and_then(Value::as_f64);
        number.ok_or_else(|| self.error(format!("config.json has no {key} for its rope scaling")))
    }

    fn base(&self, local: bool, own: Option<f32>, default: f32) -> f32 {
        let theta = self.rope(local, "rope_theta").and_then(Value::as_f64);
        theta.map_or(own.unwrap_or(default), |theta| theta as f32)
    }

    fn shape(&self) -> Result<Shape, ModelError> {
        let config = &self.config;
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let kv_heads = config.num_key_value_heads.unwrap_or(heads);
        let head_dim = config.head_dim.unwrap_or(hidden / heads.max(1));
        Shape {
            layers: config.num_hidden_layers,
            hidden,
            feed_forward: config.intermediate_size,
            heads,
            kv_heads,
            head_dim,
            vocabulary: config.vocab_size,
        }
        .checked()
        .map_err(|message| self.error(message))
    }
}

impl Files for Folder {
    fn error(&self, message: String) -> ModelError {
        error(&self.path, message)
    }

    fn architecture(&self) -> Result<Architecture, ModelError> {
        let (config, shape) = (&self.config, self.shape()?);
        let gemma = self.family == Family::Gemma3;
        let factor = match self.rope_kind() {
            "default" | "llama3" => 1.0,
            "linear" => self.rope_number("factor")? as f32,
            other => {
                return Err(self.error(format!(
                    "rope scaling of type {other} is not supported; use the unscaled model"
                )));
            }
        };
        let base = self.base(false, config.rope_theta, if gemma { 1e6 } else { 1e4 });
        let window = config
            .sliding_window
            .filter(|_| gemma)
            .map(|tokens| Window {
                tokens: tokens.max(1),
                global_every: config.sliding_window_pattern.unwrap_or(6).max(1),
                rope: Rope {
                    base: self.base(true, config.rope_local_base_freq, 1e4),
                    factor: 1.0,
                },
            });
        let scalar = config.query_pre_attn_scalar.filter(|_| gemma);
        Ok(Architecture {
            activation: if gemma {
                Activation::Gelu
            } else {
                Activation::Silu
            },
            shape,
            context: config.max_position_embeddings,
            epsilon: config.rms_norm_eps,
            rope: Rope { base, factor },
            window,
            query_scale: scalar.unwrap_or(shape.head_dim as f64).powf(-0.5),
            embedding_scale: if gemma {
                (shape.hidden as f64).sqrt()
            } else {
                1.0
            },
        })
    }

    fn language(&mut self) -> Result<Language, ModelError> {
        let path = self.path.join("tokenizer.json");
        let tokenizer = tokenizer::read(&path)?;
        let bytes = token_bytes(&tokenizer).ok_or_else(|| {
            error(
                &path,
                "neither byte-level nor with byte fallback; not supported".into(),
            )
        })?;
        let config: TokenizerConfig =
            optional(&self.path.join("tokenizer_config.json"))?.unwrap_or_default();
        let generation: GenerationConfig =
            optional(&self.path.join("generation_config.json"))?.unwrap_or_default();
        let mut ends = Vec::new();
        for ids in [&generation.eos_token_id, &self.config.eos_token_id]
            .into_iter()
            .flatten()
        {
            let ids = ids
                .as_array()
                .map_or(std::slice::from_ref(ids), Vec::as_slice);
            ends.extend(ids.iter().filter_map(Value::as_u64).map(|id| id as u32));
        }
        let (bos, eos) = (text(&config.bos_token), text(&config.eos_token));
        ends.extend(tokenizer.token_to_id(&eos));
        let file = self.path.join("chat_template.jinja");
        let chat_template = match std::fs::read_to_string(&file) {
            Ok(template) => Some(template),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                config.chat_template.and_then(template)
            }
            Err(e) => return Err(error(&file, e.to_string())),
        };
        let chat_template = chat_template.ok_or_else(|| {
            self.error("it has no chat template; use an instruction-tuned model".into())
        })?;
        Ok(Language {
            tokenizer,
            bytes,
            ends,
            chat_template,
            bos,
            eos,
        })
    }

    fn has_tensor(&self, name: &str) -> bool {
        self.name(name)
            .is_some_and(|name| self.tensors.get(&name).is_ok())
    }

    fn matrix(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
        _head: Option<usize>,
    ) -> Result<Matrix, ModelError> {
        let tensor = self.load(name, &[out, input])?;
        Matrix::dense(tensor).map_err(|e| self.error(format!("tensor {name}: {e}")))
    }

    fn vector(
        &mut self,
        name: &str,
        length: usize,
        _head: Option<usize>,
    ) -> Result<Tensor, ModelError> {
        let tensor = self.load(name, &[length])?.to_dtype(DType::F32);
        // Gemma's norms are stored as what they differ from 1.
        let offset = self.family == Family::Gemma3 && name.ends_with("norm.weight");
        let tensor = tensor.and_then(|t| if offset { t + 1.0 } else { Ok(t) });
        tensor.map_err(|e| self.error(format!("tensor {name}: {e}")))
    }

    /// Llama 3.1's: long waves are stretched, short ones left, and those between eased from one to the other.
    fn rope_factors(
        &mut self,
        architecture: &Architecture,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        if self.rope_kind() != "llama3" {
            return Ok(None);
        }
        let [factor, low, high, context] = [
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        ]
        .map(|key| self.rope_number(key));
        let (factor, low, high, context) = (factor?, low?, high?, context?);
        let half = architecture.shape.head_dim / 2;
        let factors = (0..half).map(|i| {
            let wave = TAU * f64::from(architecture.rope.base).powf(i as f64 / half as f64);
            let eased = ((context / wave - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 / ((1.0 - eased) / factor + eased)) as f32
        });
        Ok(Some(factors.collect()))
    }
}

/// What the tokens of a byte-level vocabulary, or of SentencePiece's with byte fallback, stand for.
fn token_bytes(tokenizer: &Tokenizer) -> Option<TokenBytes> {
    let about = serde_json::to_value(tokenizer).ok()?;
    let mentions = |part: &str, kind: &str| about[part].to_string().contains(kind);
    if mentions("decoder", "\"ByteLevel\"") || mentions("pre_tokenizer", "\"ByteLevel\"") {
        return Some(TokenBytes::byte_level(tokenizer));
    }
    let fallback = about["model"]["byte_fallback"] == Value::Bool(true);
    fallback.then(|| TokenBytes::byte_fallback(tokenizer))
}

/// A token is written as text, or as an object with its content.
fn text(token: &Option<Value>) -> String {
    let token = token.as_ref().unwrap_or(&Value::Null);
    let text = token.as_str().or_else(|| token["content"].as_str());
    text.unwrap_or_default().into()
}

/// A template, or the one called `default` of a list.
fn template(value: Value) -> Option<String> {
    let named = |list: &Vec<Value>| {
        let found = list.iter().find(|t| t["name"] == "default");
        found.and_then(|t| t["template"].as_str()).map(String::from)
    };
    match &value {
        Value::Array(list) => named(list),
        value => value.as_str().map(String::from),
    }
}

fn error(path: &Path, message: String) -> ModelError {
    ModelError::File {
        path: path.into(),
        message,
    }
}

fn require<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    optional(path)?.ok_or_else(|| error(path, "not found; fetch the model again".into()))
}

fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ModelError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error(path, format!("cannot be read: {e}"))),
    };
    let value = serde_json::from_str(&text);
    value
        .map(Some)
        .map_err(|e| error(path, format!("{e}; fetch the model again")))
}
