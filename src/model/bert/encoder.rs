//! The forward pass of BERT (arXiv 1810.04805) and nomic-bert (arXiv 2402.01613) over packed sequences.
//!
//! Linear layers run on all tokens `[T, hidden]` at once, without padding. The CPU has a pass of its own
//! ([`cpu`](super::cpu)), in which attention runs sequence by sequence. On other devices a batch's sequences attend
//! together, padded to the longest, as a kernel's start costs more there than its work.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};
use candle_nn::rotary_emb::rope_thd;
use intendex_kernels::quant::Quantized;

use super::config::{Activation, Config};
use super::cpu;
use super::weights::Weights;
use crate::job::spec::Pooling;
use crate::model::ModelError;

#[derive(Debug)]
pub struct Encoder {
    pub words: Tensor,
    pub positions: Positions,
    /// Embeddings of the token types: a text, and the second of a pair.
    pub types: Tensor,
    pub norm: Norm,
    pub layers: Vec<Layer>,
    pub heads: usize,
    pub activation: Activation,
    pub device: Device,
    dtype: DType,
}

#[derive(Debug)]
pub enum Positions {
    /// `[positions, hidden]`
    Learned(Tensor),
    Rotary(Rotary),
}

/// cos and sin `[positions, head_dim / 2]` of a rotary position embedding (arXiv 2104.09864).
#[derive(Debug)]
pub struct Rotary {
    pub cos: Tensor,
    pub sin: Tensor,
}

#[derive(Debug)]
pub struct Layer {
    /// Queries (scaled by 1/√head_dim), keys and values in one product.
    pub qkv: Linear,
    pub out: Linear,
    pub attention_norm: Norm,
    pub up: Linear,
    /// Of [`Activation::Gated`].
    pub gate: Option<Linear>,
    pub down: Linear,
    pub norm: Norm,
}

#[derive(Debug)]
pub struct Linear {
    pub weight: Weight,
    pub bias: Option<Tensor>,
}

/// `[output, input]`
#[derive(Debug)]
pub enum Weight {
    Full(Tensor),
    /// On the CPU.
    Int8(Quantized),
}

#[derive(Debug)]
pub struct Norm {
    pub weight: Tensor,
    pub bias: Tensor,
    pub epsilon: f32,
}

/// A text's tokens, or those of a pair of texts, whose second begins at `second`.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    pub ids: &'a [u32],
    pub second: usize,
}

impl Encoder {
    pub fn load(
        weights: &mut Weights,
        config: &Config,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        let (hidden, positions) = (config.hidden_size, config.max_position_embeddings);
        let words = weights.take(
            "embeddings.word_embeddings.weight",
            &[config.vocab_size, hidden],
        )?;
        let types = weights.take(
            "embeddings.token_type_embeddings.weight",
            &[config.type_vocab_size, hidden],
        )?;
        let (norm, positions) = match config.rotary {
            None => {
                let name = "embeddings.position_embeddings.weight";
                let learned = weights.take(name, &[positions, hidden])?;
                (
                    weights.norm("embeddings.LayerNorm", config)?,
                    Positions::Learned(learned),
                )
            }
            Some(base) => {
                let d = hidden / config.num_attention_heads;
                let rotary = Rotary::new(positions, d, base, weights.dtype(), device);
                let rotary = rotary.map_err(|e| weights.error(e))?;
                (weights.norm("emb_ln", config)?, Positions::Rotary(rotary))
            }
        };
        let layers = (0..config.num_hidden_layers).map(|i| match config.rotary {
            None => Layer::bert(weights, i, config),
            Some(_) => Layer::nomic(weights, i, config),
        });
        let layers = layers.collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Self {
            words,
            positions,
            types,
            norm,
            layers,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
            device: device.clone(),
            dtype: weights.dtype(),
        })
    }

    /// The last layer's output `[T, hidden]` of sequences laid end to end, T their tokens altogether.
    pub fn forward(&self, sequences: &[Sequence]) -> Result<Tensor> {
        match self.device.is_cpu() {
            true => cpu::forward(self, sequences),
            false => self.by_tensors(sequences),
        }
    }

    pub(super) fn by_tensors(&self, sequences: &[Sequence]) -> Result<Tensor> {
        let packing = Packing::new(sequences, self.dtype, &self.device)?;
        let ids: Vec<u32> = sequences.iter().flat_map(|s| s.ids).copied().collect();
        let ids = Tensor::new(ids, &self.device)?;
        let types = sequences
            .iter()
            .flat_map(|s| (0..s.ids.len()).map(|i| u32::from(i >= s.second)));
        let types = Tensor::new(types.collect::<Vec<_>>(), &self.device)?;
        let embedded = (self.words.index_select(&ids, 0)? + self.types.index_select(&types, 0)?)?;
        let (embedded, rotary) = match &self.positions {
            Positions::Learned(table) => {
                ((embedded + table.index_select(&packing.places, 0)?)?, None)
            }
            Positions::Rotary(rotary) => (embedded, Some(rotary.at(&packing.places)?)),
        };
        let mut x = self.norm.forward(&embedded)?;
        for layer in &self.layers {
            let qkv = layer.qkv.forward(&x)?;
            let mixed = self.attention(&qkv, rotary.as_ref(), &packing)?;
            x = layer
                .attention_norm
                .forward(&(x + layer.out.forward(&mixed)?)?)?;
            let wide = self.wide(layer, &x)?;
            x = layer.norm.forward(&(x + layer.down.forward(&wide)?)?)?;
        }
        x.to_dtype(DType::F32)
    }

    fn wide(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let up = layer.up.forward(x)?;
        match &layer.gate {
            Some(gate) => gate.forward(x)?.silu()? * up,
            None => activate(&up, self.activation),
        }
    }

    /// Attention of each sequence: `[T, 3 · hidden]` to `[T, hidden]`.
    fn attention(
        &self,
        qkv: &Tensor,
        rotary: Option<&Rotary>,
        packing: &Packing,
    ) -> Result<Tensor> {
        let (tokens, width) = qkv.dims2()?;
        let (hidden, d) = (width / 3, width / 3 / self.heads);
        let part = |i| {
            let x = qkv
                .narrow(1, i * hidden, hidden)?
                .reshape((tokens, self.heads, d))?;
            let x = match rotary.filter(|_| i < 2) {
                Some(rotary) => rotary.rotate(&x)?,
                None => x,
            };
            let padded = packing.pad(&x.reshape((tokens, hidden))?)?;
            let (b, n, _) = padded.dims3()?;
            padded
                .reshape((b, n, self.heads, d))?
                .transpose(1, 2)?
                .contiguous()
        };
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = q
            .matmul(&k.transpose(D::Minus1, D::Minus2)?)?
            .broadcast_add(&packing.mask)?;
        let (b, _, n, _) = q.dims4()?;
        softmax_last_dim(&scores)?
            .matmul(&v)?
            .transpose(1, 2)?
            .reshape((b * n, hidden))?
            .index_select(&packing.packed, 0)
    }

    /// One vector per sequence of the output of [`Encoder::forward`], row after row.
    pub fn pool(
        &self,
        output: &Tensor,
        sequences: &[Sequence],
        pooling: Pooling,
    ) -> Result<Vec<f32>> {
        match self.device.is_cpu() {
            true => cpu::pool(output, sequences, pooling),
            false => pool_by_tensors(output, sequences, pooling),
        }
    }
}

pub(super) fn pool_by_tensors(
    output: &Tensor,
    sequences: &[Sequence],
    pooling: Pooling,
) -> Result<Vec<f32>> {
    let packing = Packing::new(sequences, DType::F32, output.device())?;
    let padded = packing.pad(output)?;
    let pooled = match pooling {
        Pooling::Cls => padded.narrow(1, 0, 1)?.squeeze(1)?,
        Pooling::Mean => {
            let lengths: Vec<f32> = sequences.iter().map(|s| s.ids.len() as f32).collect();
            let lengths = Tensor::from_vec(lengths, (sequences.len(), 1), output.device())?;
            padded.sum(1)?.broadcast_div(&lengths)?
        }
    };
    pooled.flatten_all()?.to_vec1()
}

/// Where the tokens of packed sequences stand when each is padded to the longest, and back.
struct Packing {
    /// Place of each token in its sequence.
    places: Tensor,
    /// Packed place of each padded one; padding takes the place behind the last.
    padded: Tensor,
    /// Padded place of each packed one.
    packed: Tensor,
    /// −∞ where padding is: `[sequences, 1, 1, longest]`.
    mask: Tensor,
    longest: usize,
}

impl Packing {
    fn new(sequences: &[Sequence], dtype: DType, device: &Device) -> Result<Self> {
        let longest = sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0);
        let total: usize = sequences.iter().map(|s| s.ids.len()).sum();
        let size = sequences.len() * longest;
        let (mut places, mut packed) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let (mut padded, mut mask) = (vec![total as u32; size], vec![f32::NEG_INFINITY; size]);
        for (row, sequence) in sequences.iter().enumerate() {
            for place in 0..sequence.ids.len() {
                let at = row * longest + place;
                (padded[at], mask[at]) = (packed.len() as u32, 0.0);
                packed.push(at as u32);
                places.push(place as u32);
            }
        }
        Ok(Self {
            places: Tensor::new(places, device)?,
            padded: Tensor::new(padded, device)?,
            packed: Tensor::new(packed, device)?,
            mask: Tensor::from_vec(mask, (sequences.len(), 1, 1, longest), device)?
                .to_dtype(dtype)?,
            longest,
        })
    }

    /// `[T, width]` to `[sequences, longest, width]`, zeros behind each sequence.
    fn pad(&self, x: &Tensor) -> Result<Tensor> {
        let width = x.dim(1)?;
        let zeros = Tensor::zeros((1, width), x.dtype(), x.device())?;
        Tensor::cat(&[x, &zeros], 0)?
            .index_select(&self.padded, 0)?
            .reshape(((), self.longest, width))
    }
}

impl Rotary {
    fn new(
        positions: usize,
        head_dim: usize,
        base: f64,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let half = head_dim / 2;
        let angle = |place: usize, i: usize| place as f64 * base.powf(-(i as f64) / half as f64);
        let table = |f: fn(f64) -> f64| {
            let places = 0..positions;
            let values = places.flat_map(|p| (0..half).map(move |i| f(angle(p, i)) as f32));
            Tensor::from_vec(values.collect(), (positions, half), device)?.to_dtype(dtype)
        };
        Ok(Self {
            cos: table(f64::cos)?,
            sin: table(f64::sin)?,
        })
    }

    fn at(&self, places: &Tensor) -> Result<Self> {
        Ok(Self {
            cos: self.cos.index_select(places, 0)?,
            sin: self.sin.index_select(places, 0)?,
        })
    }

    /// Rotates `[n, heads, head_dim]`.
    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        rope_thd(&x.contiguous()?.unsqueeze(0)?, &self.cos, &self.sin)?.squeeze(0)
    }
}

impl Layer {
    fn bert(
        weights: &mut Weights,
        i: usize,
        config: &Config,
    ) -> std::result::Result<Self, ModelError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{i}.{part}");
        let mut part = |part: &str| {
            let name = name(&format!("attention.self.{part}"));
            let weight = weights.take(&format!("{name}.weight"), &[hidden, hidden])?;
            let bias = weights.take(&format!("{name}.bias"), &[hidden])?;
            Ok((weight, bias))
        };
        let (q, k, v) = (part("query")?, part("key")?, part("value")?);
        let fuse = || {
            let scale = scale(config);
            let weight = Tensor::cat(&[&(q.0 * scale)?, &k.0, &v.0], 0)?;
            let bias = Tensor::cat(&[&(q.1 * scale)?, &k.1, &v.1], 0)?;
            Ok((weight, bias))
        };
        let (weight, bias) = fuse().map_err(|e: candle_core::Error| weights.error(e))?;
        Ok(Self {
            qkv: weights.finish(weight, Some(bias))?,
            out: weights.linear(&name("attention.output.dense"), hidden, hidden, true)?,
            attention_norm: weights.norm(&name("attention.output.LayerNorm"), config)?,
            up: weights.linear(&name("intermediate.dense"), wide, hidden, true)?,
            gate: None,
            down: weights.linear(&name("output.dense"), hidden, wide, true)?,
            norm: weights.norm(&name("output.LayerNorm"), config)?,
        })
    }

    fn nomic(
        weights: &mut Weights,
        i: usize,
        config: &Config,
    ) -> std::result::Result<Self, ModelError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layers.{i}.{part}");
        let qkv = weights.take(&name("attn.Wqkv.weight"), &[3 * hidden, hidden])?;
        let scaled = || {
            let q = (qkv.narrow(0, 0, hidden)? * scale(config))?;
            Tensor::cat(&[&q, &qkv.narrow(0, hidden, 2 * hidden)?], 0)
        };
        let qkv = scaled().map_err(|e| weights.error(e))?;
        Ok(Self {
            qkv: weights.finish(qkv, None)?,
            out: weights.linear(&name("attn.out_proj"), hidden, hidden, false)?,
            attention_norm: weights.norm(&name("norm1"), config)?,
            up: weights.linear(&name("mlp.fc11"), wide, hidden, false)?,
            gate: Some(weights.linear(&name("mlp.fc12"), wide, hidden, false)?),
            down: weights.linear(&name("mlp.fc2"), hidden, wide, false)?,
            norm: weights.norm(&name("norm2"), config)?,
        })
    }
}

fn scale(config: &Config) -> f64 {
    ((config.hidden_size / config.num_attention_heads) as f64).powf(-0.5)
}

impl Linear {
    /// x Wᵀ + bias.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Weight::Full(weight) = &self.weight else {
            candle_core::bail!("8-bit weights are for the CPU");
        };
        let y = x.matmul(&weight.t()?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// The activation of a layer without a gate.
pub fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
        Activation::Gated => x.silu(),
    }
}

impl Norm {
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}
