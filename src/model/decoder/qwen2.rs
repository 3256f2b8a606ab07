//! The forward pass of Qwen2 and Qwen2.5 over packed tokens; attention is the caller's, as only it knows the keys.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Module, Result, Tensor};
use candle_nn::ops::rms_norm;
use candle_nn::rotary_emb::rope_thd;

use super::gguf::Gguf;
use crate::model::ModelError;

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

/// Queries `[n, kv_heads, group, head_dim]`, scaled by 1/√head_dim, and keys and values `[kv_heads, n, head_dim]`, of
/// packed tokens in one layer.
pub struct Heads {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
}

#[derive(Debug)]
pub struct Qwen2 {
    pub shape: Shape,
    pub device: Device,
    embedding: Arc<QTensor>,
    layers: Vec<Layer>,
    norm: Tensor,
    output: Linear,
    epsilon: f32,
    cos: Tensor,
    sin: Tensor,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    feed_forward_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Qwen2 {
    /// Reads the weights; `context` is the number of positions to prepare for.
    pub fn load(
        gguf: &mut Gguf,
        context: usize,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        if let Ok(kind) = gguf.string("qwen2.rope.scaling.type")
            && kind != "none"
        {
            return Err(gguf.error(format!(
                "rope scaling of type {kind} is not supported; use the unscaled model"
            )));
        }
        let shape = read_shape(gguf)?;
        let epsilon = gguf.float("qwen2.attention.layer_norm_rms_epsilon")?;
        let base = if gguf.get("qwen2.rope.freq_base").is_some() {
            gguf.float("qwen2.rope.freq_base")?
        } else {
            1e4
        };
        let embedding =
            Arc::new(gguf.tensor("token_embd.weight", &[shape.vocabulary, shape.hidden])?);
        let output = if gguf.has_tensor("output.weight") {
            Arc::new(gguf.tensor("output.weight", &[shape.vocabulary, shape.hidden])?)
        } else {
            embedding.clone()
        };
        let mut layers = Vec::with_capacity(shape.layers);
        for i in 0..shape.layers {
            layers.push(Layer::load(gguf, i, &shape)?);
        }
        let norm = gguf.vector("output_norm.weight", shape.hidden)?;
        let build = || {
            let (cos, sin) = rope_tables(context, shape.head_dim, base, device)?;
            let output = Linear::new(output, None)?;
            Ok(Self {
                shape,
                device: device.clone(),
                embedding,
                layers,
                norm,
                output,
                epsilon,
                cos,
                sin,
            })
        };
        build().map_err(|e: candle_core::Error| gguf.error(format!("cannot be prepared: {e}")))
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// The last layer's output `[n, hidden]`, before the final norm, of n packed tokens at the given positions.
    ///
    /// `attend(layer, heads)` returns the heads' outputs `[n, heads · head_dim]`.
    pub fn forward(
        &self,
        ids: &[u32],
        positions: &[u32],
        mut attend: impl FnMut(usize, Heads) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let positions = Tensor::new(positions, &self.device)?;
        let cos = self.cos.index_select(&positions, 0)?;
        let sin = self.sin.index_select(&positions, 0)?;
        let mut x = self.embedding.embedding(&Tensor::new(ids, &self.device)?)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let h = rms_norm(&x, &layer.attention_norm, self.epsilon)?;
            let mixed = attend(i, self.heads(layer, &h, &cos, &sin)?)?;
            x = (x + layer.o.forward(&mixed)?)?;
            let h = rms_norm(&x, &layer.feed_forward_norm, self.epsilon)?;
            let gated = (layer.gate.forward(&h)?.silu()? * layer.up.forward(&h)?)?;
            x = (x + layer.down.forward(&gated)?)?;
        }
        Ok(x)
    }

    fn heads(&self, layer: &Layer, h: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Heads> {
        let Shape {
            heads,
            kv_heads,
            head_dim: d,
            ..
        } = self.shape;
        let n = h.dim(0)?;
        let rotate = |x: Tensor, heads: usize| rope_thd(&x.reshape((1, n, heads, d))?, cos, sin);
        let q = (rotate(layer.q.forward(h)?, heads)? * (1.0 / (d as f64).sqrt()))?;
        let k = rotate(layer.k.forward(h)?, kv_heads)?;
        let v = layer.v.forward(h)?;
        Ok(Heads {
            q: q.reshape((n, kv_heads, heads / kv_heads, d))?,
            k: k.reshape((n, kv_heads, d))?.transpose(0, 1)?.contiguous()?,
            v: v.reshape((n, kv_heads, d))?.transpose(0, 1)?.contiguous()?,
        })
    }

    /// Logits `[n, vocabulary]` of outputs of [`Qwen2::forward`] `[n, hidden]`.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.output
            .forward(&rms_norm(&x.contiguous()?, &self.norm, self.epsilon)?)
    }
}

impl Layer {
    fn load(gguf: &mut Gguf, i: usize, shape: &Shape) -> std::result::Result<Self, ModelError> {
        let &Shape {
            hidden,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            ..
        } = shape;
        let (wide, narrow) = (heads * head_dim, kv_heads * head_dim);
        Ok(Self {
            attention_norm: gguf.vector(&format!("blk.{i}.attn_norm.weight"), hidden)?,
            q: Linear::load(gguf, &format!("blk.{i}.attn_q"), wide, hidden)?,
            k: Linear::load(gguf, &format!("blk.{i}.attn_k"), narrow, hidden)?,
            v: Linear::load(gguf, &format!("blk.{i}.attn_v"), narrow, hidden)?,
            o: Linear::load(gguf, &format!("blk.{i}.attn_output"), hidden, wide)?,
            feed_forward_norm: gguf.vector(&format!("blk.{i}.ffn_norm.weight"), hidden)?,
            gate: Linear::load(gguf, &format!("blk.{i}.ffn_gate"), feed_forward, hidden)?,
            up: Linear::load(gguf, &format!("blk.{i}.ffn_up"), feed_forward, hidden)?,
            down: Linear::load(gguf, &format!("blk.{i}.ffn_down"), hidden, feed_forward)?,
        })
    }
}

/// A quantised linear layer whose result for a row is the same in every batch.
///
/// On x86, candle multiplies a lone Q6K row by another kernel, with another rounding, than two or more; so a lone row
/// goes in twice. The other kernels treat each row alike.
#[derive(Debug)]
struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
    doubled: bool,
}

impl Linear {
    fn new(weight: Arc<QTensor>, bias: Option<Tensor>) -> Result<Self> {
        let doubled = weight.dtype() == GgmlDType::Q6K && weight.device().is_cpu();
        Ok(Self {
            weight: QMatMul::from_arc(weight)?,
            bias,
            doubled,
        })
    }

    fn load(
        gguf: &mut Gguf,
        name: &str,
        out: usize,
        input: usize,
    ) -> std::result::Result<Self, ModelError> {
        let weight = gguf.tensor(&format!("{name}.weight"), &[out, input])?;
        let bias = format!("{name}.bias");
        let bias = if gguf.has_tensor(&bias) {
            Some(gguf.vector(&bias, out)?)
        } else {
            None
        };
        Self::new(Arc::new(weight), bias).map_err(|e| gguf.error(format!("tensor {name}: {e}")))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = if self.doubled && x.dim(0)? == 1 {
            self.weight
                .forward(&Tensor::cat(&[x, x], 0)?)?
                .narrow(0, 0, 1)?
        } else {
            self.weight.forward(x)?
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

fn read_shape(gguf: &Gguf) -> std::result::Result<Shape, ModelError> {
    let hidden = gguf.count("qwen2.embedding_length")?;
    let heads = gguf.count("qwen2.attention.head_count")?;
    let kv_heads = gguf.count("qwen2.attention.head_count_kv")?;
    if heads == 0
        || kv_heads == 0
        || !hidden.is_multiple_of(heads)
        || !heads.is_multiple_of(kv_heads)
    {
        return Err(gguf.error(format!(
            "{hidden} dimensions cannot be split into {heads} heads on {kv_heads} keys"
        )));
    }
    let vocabulary = match gguf.get("tokenizer.ggml.tokens").map(|v| v.to_vec()) {
        Some(Ok(tokens)) => tokens.len(),
        _ => {
            return Err(gguf.error(
                "metadata key tokenizer.ggml.tokens is missing; use another conversion".into(),
            ));
        }
    };
    Ok(Shape {
        layers: gguf.count("qwen2.block_count")?,
        hidden,
        feed_forward: gguf.count("qwen2.feed_forward_length")?,
        heads,
        kv_heads,
        head_dim: hidden / heads,
        vocabulary,
    })
}

/// cos and sin `[positions, head_dim / 2]` of rotary position embedding (RoFormer, arXiv 2104.09864), halves rotated.
fn rope_tables(
    positions: usize,
    head_dim: usize,
    base: f32,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let half = head_dim / 2;
    let frequency: Vec<f64> = (0..half)
        .map(|i| (base as f64).powf(-(i as f64) / half as f64))
        .collect();
    let angles: Vec<f64> = (0..positions)
        .flat_map(|p| frequency.iter().map(move |f| p as f64 * f))
        .collect();
    let table = |f: fn(f64) -> f64| {
        Tensor::from_vec(
            angles.iter().map(|&a| f(a) as f32).collect(),
            (positions, half),
            device,
        )
    };
    Ok((table(f64::cos)?, table(f64::sin)?))
}
