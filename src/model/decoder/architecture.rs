//! What a file says of its model: which family it is of, its sizes, and where the families differ.

use super::files::Files;
use super::gguf::Gguf;
use crate::model::ModelError;

/// Families whose forward pass is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Llama,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    Qwen3,
    Gemma3,
}

impl Family {
    const ALL: [Family; 4] = [Family::Llama, Family::Qwen2, Family::Qwen3, Family::Gemma3];

    /// Name in GGUF's `general.architecture`, and the prefix of its keys.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma3 => "gemma3",
        }
    }

    pub fn of(gguf: &Gguf) -> Result<Self, ModelError> {
        let name = gguf.string("general.architecture")?;
        let known = Self::ALL.into_iter().find(|family| family.name() == name);
        known.ok_or_else(|| {
            let all = Self::ALL.map(Family::name).join(", ");
            gguf.error(format!(
                "architecture {name} is not supported; use a model of {all}, or a server (models.generator.server)"
            ))
        })
    }
}

/// Sizes of the model.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub layers: usize,
    pub hidden: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocabulary: usize,
}

impl Shape {
    /// Itself, if its heads can be computed.
    pub fn checked(self) -> Result<Self, String> {
        let Self {
            hidden,
            heads,
            kv_heads,
            head_dim: d,
            ..
        } = self;
        if kv_heads == 0 || d == 0 || d % 2 == 1 || !heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "{hidden} dimensions cannot be split into {heads} heads on {kv_heads} keys"
            ));
        }
        Ok(self)
    }
}

/// Rotary position embedding of some of the layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    pub base: f32,
    /// Positions are divided by it.
    pub factor: f32,
}

/// Layers that see only the last `tokens` positions; every `global_every`th layer sees all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    pub tokens: usize,
    pub global_every: usize,
    pub rope: Rope,
}

/// What the gates of the feed-forward layers go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// Its approximation by tanh.
    Gelu,
}

#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    pub activation: Activation,
    pub shape: Shape,
    /// Positions the model was trained on.
    pub context: usize,
    pub epsilon: f32,
    pub rope: Rope,
    pub window: Option<Window>,
    /// Scale of the queries.
    pub query_scale: f64,
    /// Scale of the token embeddings.
    pub embedding_scale: f64,
}

/// Gemma 3: five local layers for each global one, with the base of their rotary embedding (arXiv 2503.19786, 2).
const GEMMA3_GLOBAL_EVERY: usize = 6;
const GEMMA3_LOCAL_BASE: f32 = 1e4;
/// Layers of the one Gemma 3 whose queries are not scaled by the head's size.
const GEMMA3_27B_LAYERS: usize = 62;

impl Architecture {
    pub fn read(gguf: &Gguf) -> Result<Self, ModelError> {
        let family = Family::of(gguf)?;
        let shape = read_shape(gguf, family)?;
        let key = |name: &str| format!("{}.{name}", family.name());
        let rope = read_rope(gguf, family, shape.head_dim)?;
        let gemma = family == Family::Gemma3;
        let window = match gguf.get(&key("attention.sliding_window")) {
            Some(_) if gemma => Some(Window {
                tokens: gguf.count(&key("attention.sliding_window"))?.max(1),
                global_every: GEMMA3_GLOBAL_EVERY,
                rope: Rope {
                    base: GEMMA3_LOCAL_BASE,
                    factor: 1.0,
                },
            }),
            _ => None,
        };
        let scaled = match gemma && shape.layers == GEMMA3_27B_LAYERS {
            true => shape.hidden / shape.heads,
            false => shape.head_dim,
        };
        Ok(Self {
            activation: if gemma {
                Activation::Gelu
            } else {
                Activation::Silu
            },
            shape,
            context: gguf.count(&key("context_length"))?,
            epsilon: gguf.float(&key("attention.layer_norm_rms_epsilon"))?,
            rope,
            window,
            query_scale: (scaled as f64).powf(-0.5),
            embedding_scale: if gemma {
                (shape.hidden as f64).sqrt()
            } else {
                1.0
            },
        })
    }

    /// Positions that a layer sees behind a token, itself included; None: all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let window = self.window?;
        (!(layer + 1).is_multiple_of(window.global_every)).then_some(window.tokens)
    }
}

fn read_rope(gguf: &Gguf, family: Family, head_dim: usize) -> Result<Rope, ModelError> {
    let key = |name: &str| format!("{}.rope.{name}", family.name());
    let base = match gguf.get(&key("freq_base")) {
        Some(_) => gguf.float(&key("freq_base"))?,
        None if family == Family::Gemma3 => 1e6,
        None => 1e4,
    };
    if gguf.get(&key("dimension_count")).is_some() {
        let rotated = gguf.count(&key("dimension_count"))?;
        if rotated != head_dim {
            return Err(gguf.error(format!(
                "only {rotated} of {head_dim} dimensions of a head are rotated; use another model"
            )));
        }
    }
    let kind = match gguf.get(&key("scaling.type")) {
        Some(_) => gguf.string(&key("scaling.type"))?,
        None => "none",
    };
    let factor = match kind {
        "none" => 1.0,
        "linear" => gguf.float(&key("scaling.factor"))?,
        kind => {
            return Err(gguf.error(format!(
                "rope scaling of type {kind} is not supported; use the unscaled model"
            )));
        }
    };
    Ok(Rope { base, factor })
}

fn read_shape(gguf: &Gguf, family: Family) -> Result<Shape, ModelError> {
    let key = |name: &str| format!("{}.{name}", family.name());
    let hidden = gguf.count(&key("embedding_length"))?;
    let heads = gguf.count(&key("attention.head_count"))?;
    let kv_heads = match gguf.get(&key("attention.head_count_kv")) {
        Some(_) => gguf.count(&key("attention.head_count_kv"))?,
        None => heads,
    };
    let head_dim = match gguf.get(&key("attention.key_length")) {
        Some(_) => gguf.count(&key("attention.key_length"))?,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => 0,
    };
    let vocabulary = match gguf.get("tokenizer.ggml.tokens").map(|v| v.to_vec()) {
        Some(Ok(tokens)) => tokens.len(),
        _ => {
            return Err(gguf.error(
                "metadata key tokenizer.ggml.tokens is missing; use another conversion".into(),
            ));
        }
    };
    Shape {
        layers: gguf.count(&key("block_count"))?,
        hidden,
        feed_forward: gguf.count(&key("feed_forward_length"))?,
        heads,
        kv_heads,
        head_dim,
        vocabulary,
    }
    .checked()
    .map_err(|message| gguf.error(message))
}
