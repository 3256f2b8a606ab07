//! The forward pass of BERT (arXiv 1810.04805) over packed sequences: no padding anywhere.
//!
//! Linear layers run on all tokens `[T, hidden]` at once; attention runs sequence by sequence, so that it costs what
//! the sequences need. The CPU has a pass of its own ([`cpu`](super::cpu)).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};

use super::config::{Activation, Config};
use super::cpu;
use crate::model::ModelError;

#[derive(Debug)]
pub struct Encoder {
    pub words: Tensor,
    /// Position embeddings plus the embedding of token type 0.
    pub positions: Tensor,
    pub norm: Norm,
    pub layers: Vec<Layer>,
    pub heads: usize,
    pub activation: Activation,
    pub device: Device,
}

#[derive(Debug)]
pub struct Layer {
    /// Queries (scaled by 1/√head_dim), keys and values in one product.
    pub qkv: Linear,
    pub out: Linear,
    pub attention_norm: Norm,
    pub up: Linear,
    pub down: Linear,
    pub norm: Norm,
}

#[derive(Debug)]
pub struct Linear {
    /// `[output, input]`
    pub weight: Tensor,
    pub bias: Tensor,
}

#[derive(Debug)]
pub struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub epsilon: f32,
}

impl Encoder {
    /// Reads `model.safetensors`; tensor names may start with `bert.`.
    pub fn load(
        folder: &Path,
        config: &Config,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        let mut weights = Weights::open(folder, device)?;
        let (hidden, positions) = (config.hidden_size, config.max_position_embeddings);
        let words = weights.take(
            "embeddings.word_embeddings.weight",
            &[config.vocab_size, hidden],
        )?;
        let position = weights.take(
            "embeddings.position_embeddings.weight",
            &[positions, hidden],
        )?;
        let types = weights.take(
            "embeddings.token_type_embeddings.weight",
            &[config.type_vocab_size, hidden],
        )?;
        let norm = weights.norm("embeddings.LayerNorm", config)?;
        let layers = (0..config.num_hidden_layers).map(|i| Layer::load(&mut weights, i, config));
        let layers = layers.collect::<std::result::Result<Vec<_>, _>>()?;
        let positions = types
            .narrow(0, 0, 1)
            .and_then(|t| position.broadcast_add(&t));
        Ok(Self {
            words,
            positions: positions.map_err(|e| weights.error(e.to_string()))?,
            norm,
            layers,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
            device: device.clone(),
        })
    }

    /// The last layer's output `[T, hidden]` of sequences laid end to end, T their tokens altogether.
    pub fn forward(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        if self.device.is_cpu() {
            return cpu::forward(self, sequences);
        }
        let ids = Tensor::new(sequences.concat(), &self.device)?;
        let places: Vec<u32> = sequences.iter().flat_map(|s| 0..s.len() as u32).collect();
        let places = Tensor::new(places, &self.device)?;
        let embedded =
            (self.words.index_select(&ids, 0)? + self.positions.index_select(&places, 0)?)?;
        let mut x = self.norm.forward(&embedded)?;
        let lengths: Vec<usize> = sequences.iter().map(|s| s.len()).collect();
        for layer in &self.layers {
            let mixed = layer
                .out
                .forward(&self.attention(&layer.qkv.forward(&x)?, &lengths)?)?;
            x = layer.attention_norm.forward(&(x + mixed)?)?;
            let wide = layer.up.activate(&x, self.activation)?;
            x = layer.norm.forward(&(x + layer.down.forward(&wide)?)?)?;
        }
        Ok(x)
    }

    fn attention(&self, qkv: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        let spans: Vec<(usize, usize)> = ends
            .zip(lengths)
            .map(|(end, &length)| (end - length, length))
            .collect();
        let one = |&(start, length): &(usize, usize)| self.attend(&qkv.narrow(0, start, length)?);
        let parts: Vec<Tensor> = spans.iter().map(one).collect::<Result<_>>()?;
        Tensor::cat(&parts, 0)
    }

    /// Attention of one sequence: `[length, 3 · hidden]` to `[length, hidden]`.
    fn attend(&self, qkv: &Tensor) -> Result<Tensor> {
        let (length, width) = qkv.dims2()?;
        let (hidden, d) = (width / 3, width / 3 / self.heads);
        let part = |i| {
            qkv.narrow(1, i * hidden, hidden)?
                .reshape((length, self.heads, d))?
                .transpose(0, 1)?
                .contiguous()
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let weights = softmax_last_dim(&q.matmul(&k.t()?)?)?;
        weights
            .matmul(&v)?
            .transpose(0, 1)?
            .reshape((length, hidden))
    }
}

impl Layer {
    fn load(
        weights: &mut Weights,
        i: usize,
        config: &Config,
    ) -> std::result::Result<Self, ModelError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{i}.{part}");
        let scale = ((hidden / config.num_attention_heads) as f64).powf(-0.5);
        let q = weights.linear(&name("attention.self.query"), hidden, hidden)?;
        let k = weights.linear(&name("attention.self.key"), hidden, hidden)?;
        let v = weights.linear(&name("attention.self.value"), hidden, hidden)?;
        let fuse = || {
            let weight = Tensor::cat(&[&(q.weight * scale)?, &k.weight, &v.weight], 0)?;
            let bias = Tensor::cat(&[&(q.bias * scale)?, &k.bias, &v.bias], 0)?;
            Ok(Linear { weight, bias })
        };
        let qkv = fuse().map_err(|e: candle_core::Error| weights.error(e.to_string()))?;
        let out = weights.linear(&name("attention.output.dense"), hidden, hidden)?;
        let up = weights.linear(&name("intermediate.dense"), wide, hidden)?;
        let down = weights.linear(&name("output.dense"), hidden, wide)?;
        let attention_norm = weights.norm(&name("attention.output.LayerNorm"), config)?;
        Ok(Self {
            qkv,
            out,
            attention_norm,
            up,
            down,
            norm: weights.norm(&name("output.LayerNorm"), config)?,
        })
    }
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)
    }

    fn activate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let y = self.forward(x)?;
        match activation {
            Activation::Gelu => y.gelu_erf(),
            Activation::GeluTanh => y.gelu(),
            Activation::Relu => y.relu(),
        }
    }
}

impl Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}

/// The tensors of a safetensors file, taken out by name.
struct Weights {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
    prefix: &'static str,
}

impl Weights {
    fn open(folder: &Path, device: &Device) -> std::result::Result<Self, ModelError> {
        let path = folder.join("model.safetensors");
        let fail = |message: String| ModelError::File {
            path: path.clone(),
            message,
        };
        if !path.is_file() {
            return Err(fail(
                "not found; use a model published as safetensors, or convert it".into(),
            ));
        }
        let tensors = candle_core::safetensors::load(&path, device).map_err(|e| {
            fail(format!(
                "not a safetensors file, or a truncated one ({e}); fetch it again"
            ))
        })?;
        let prefix = if tensors.contains_key("bert.embeddings.word_embeddings.weight") {
            "bert."
        } else {
            ""
        };
        Ok(Self {
            path,
            tensors,
            prefix,
        })
    }

    fn error(&self, message: String) -> ModelError {
        ModelError::File {
            path: self.path.clone(),
            message,
        }
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> std::result::Result<Tensor, ModelError> {
        let name = format!("{}{name}", self.prefix);
        let Some(tensor) = self.tensors.remove(&name) else {
            return Err(self.error(format!(
                "tensor {name} is missing; is this the model its config.json describes?"
            )));
        };
        if tensor.dims() != shape {
            let found = tensor.dims();
            return Err(self.error(format!(
                "tensor {name} is {found:?}, but config.json says {shape:?}"
            )));
        }
        tensor
            .to_dtype(DType::F32)
            .map_err(|e| self.error(format!("tensor {name}: {e}")))
    }

    fn linear(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
    ) -> std::result::Result<Linear, ModelError> {
        Ok(Linear {
            weight: self.take(&format!("{name}.weight"), &[out, input])?,
            bias: self.take(&format!("{name}.bias"), &[out])?,
        })
    }

    fn norm(&mut self, name: &str, config: &Config) -> std::result::Result<Norm, ModelError> {
        Ok(Norm {
            weight: self.take(&format!("{name}.weight"), &[config.hidden_size])?,
            bias: self.take(&format!("{name}.bias"), &[config.hidden_size])?,
            epsilon: config.layer_norm_eps as f32,
        })
    }
}

/// One vector per sequence of `x` `[T, hidden]`: the mean of its tokens.
pub fn mean(x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    pool(x, lengths, |tokens| tokens.mean_keepdim(0))
}

/// One vector per sequence of `x` `[T, hidden]`: its first token's.
pub fn first(x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
    pool(x, lengths, |tokens| tokens.narrow(0, 0, 1))
}

fn pool(x: &Tensor, lengths: &[usize], f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut start = 0;
    let mut rows = Vec::with_capacity(lengths.len());
    for &length in lengths {
        rows.push(f(&x.narrow(0, start, length)?)?);
        start += length;
    }
    debug_assert_eq!(x.dim(D::Minus2)?, start);
    Tensor::cat(&rows, 0)
}
