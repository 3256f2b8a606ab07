//! The forward pass of Llama-like decoders over packed tokens; attention is the caller's, as only it knows the keys.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::rms_norm;

use super::architecture::{Architecture, Shape};
use super::files::Files;
use super::linear::{Linear, Matrix, forward, gated};
use super::rope::Table;
use crate::model::ModelError;

/// Queries `[n, kv_heads, group, head_dim]`, scaled, and keys and values `[kv_heads, n, head_dim]`, of packed tokens in
/// one layer.
pub struct Heads {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
}

#[derive(Debug)]
pub struct Transformer {
    pub architecture: Architecture,
    pub shape: Shape,
    pub device: Device,
    embedding: Arc<Matrix>,
    layers: Vec<Layer>,
    norm: Tensor,
    output: Linear,
    rope: Table,
    /// Of the layers that see a window only.
    local_rope: Option<Table>,
}

#[derive(Debug)]
struct Layer {
    attention_norm: Tensor,
    q: Linear,
    k: Linear,
    v: Linear,
    /// Norms of each head's query and key.
    qk_norm: Option<(Tensor, Tensor)>,
    o: Linear,
    /// Norms behind attention and behind the feed-forward layers.
    post_norms: Option<(Tensor, Tensor)>,
    feed_forward_norm: Tensor,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Transformer {
    /// Reads the weights; `context` is the number of positions to prepare for.
    pub fn load(
        files: &mut dyn Files,
        architecture: Architecture,
        context: usize,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        let shape = architecture.shape;
        let tied = !files.has_tensor("output.weight");
        let mut matrix = |name: &str| {
            let matrix = files.matrix(name, shape.vocabulary, shape.hidden, None);
            matrix.map(Arc::new)
        };
        let embedding = matrix("token_embd.weight")?;
        let output = match tied {
            true => embedding.clone(),
            false => matrix("output.weight")?,
        };
        let layers = (0..shape.layers).map(|i| Layer::load(files, i, &architecture));
        let layers = layers.collect::<std::result::Result<Vec<_>, _>>()?;
        let norm = files.vector("output_norm.weight", shape.hidden, None)?;
        let factors = files.rope_factors(&architecture)?;
        let build = || {
            let table = |rope, factors| Table::new(context, shape.head_dim, rope, factors, device);
            Ok(Self {
                architecture,
                shape,
                device: device.clone(),
                embedding,
                layers,
                norm,
                output: Linear::new(output, None),
                rope: table(architecture.rope, factors.as_deref())?,
                local_rope: architecture
                    .window
                    .map(|w| table(w.rope, None))
                    .transpose()?,
            })
        };
        build().map_err(|e: candle_core::Error| files.error(format!("cannot be prepared: {e}")))
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
        let rope = self.rope.at(&positions)?;
        let local = self.local_rope.as_ref().map(|r| r.at(&positions));
        let local = local.transpose()?;
        let mut x = self.embedding.rows(ids, &self.device)?;
        if self.architecture.embedding_scale != 1.0 {
            x = (x * self.architecture.embedding_scale)?;
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let rope = match (&local, self.architecture.window(i)) {
                (Some(local), Some(_)) => local,
                _ => &rope,
            };
            let h = self.norm(&x, &layer.attention_norm)?;
            let mixed = layer.o.forward(&attend(i, self.heads(layer, &h, rope)?)?)?;
            x = (x + self.post(mixed, layer.post_norms.as_ref().map(|n| &n.0))?)?;
            let h = self.norm(&x, &layer.feed_forward_norm)?;
            let wide = gated(&h, &layer.gate, &layer.up, self.architecture.activation)?;
            let fed = layer.down.forward(&wide)?;
            x = (x + self.post(fed, layer.post_norms.as_ref().map(|n| &n.1))?)?;
        }
        Ok(x)
    }

    fn norm(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm(x, weight, self.architecture.epsilon)
    }

    fn post(&self, x: Tensor, norm: Option<&Tensor>) -> Result<Tensor> {
        match norm {
            Some(weight) => self.norm(&x, weight),
            None => Ok(x),
        }
    }

    fn heads(&self, layer: &Layer, h: &Tensor, rope: &Table) -> Result<Heads> {
        let Shape {
            heads,
            kv_heads,
            head_dim: d,
            ..
        } = self.shape;
        let n = h.dim(0)?;
        let split = |x: Tensor, heads: usize, norm: Option<&Tensor>| {
            let x = x.reshape((n, heads, d))?;
            rope.rotate(&self.post(x, norm)?)
        };
        let (q_norm, k_norm) = match &layer.qk_norm {
            Some((q, k)) => (Some(q), Some(k)),
            None => (None, None),
        };
        let [q, k, v] = forward(h, [&layer.q, &layer.k, &layer.v])?;
        let (q, k) = (split(q, heads, q_norm)?, split(k, kv_heads, k_norm)?);
        let v = v.reshape((n, kv_heads, d))?;
        let q = (q * self.architecture.query_scale)?;
        Ok(Heads {
            q: q.reshape((n, kv_heads, heads / kv_heads, d))?,
            k: k.transpose(0, 1)?.contiguous()?,
            v: v.transpose(0, 1)?.contiguous()?,
        })
    }

    /// Logits `[n, vocabulary]` of outputs of [`Transformer::forward`] `[n, hidden]`.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.output.forward(&self.normalised(x)?)
    }

    /// What the output layer takes of outputs of [`Transformer::forward`].
    pub fn normalised(&self, x: &Tensor) -> Result<Tensor> {
        self.norm(&x.contiguous()?, &self.norm)
    }

    /// The output layer of some tokens only.
    pub fn output_of(&self, tokens: &[u32]) -> Result<Linear> {
        self.output.take(tokens)
    }
}

impl Layer {
    fn load(
        files: &mut dyn Files,
        i: usize,
        architecture: &Architecture,
    ) -> std::result::Result<Self, ModelError> {
        let Shape {
            hidden,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            ..
        } = architecture.shape;
        let (wide, narrow) = (heads * head_dim, kv_heads * head_dim);
        let name = |part: &str| format!("blk.{i}.{part}");
        let qk_norm = match files.has_tensor(&name("attn_q_norm.weight")) {
            true => Some((
                files.vector(&name("attn_q_norm.weight"), head_dim, None)?,
                files.vector(&name("attn_k_norm.weight"), head_dim, None)?,
            )),
            false => None,
        };
        let post_norms = match files.has_tensor(&name("post_attention_norm.weight")) {
            true => Some((
                files.vector(&name("post_attention_norm.weight"), hidden, None)?,
                files.vector(&name("post_ffw_norm.weight"), hidden, None)?,
            )),
            false => None,
        };
        Ok(Self {
            attention_norm: files.vector(&name("attn_norm.weight"), hidden, None)?,
            q: Linear::load_heads(files, &name("attn_q"), wide, hidden, head_dim)?,
            k: Linear::load_heads(files, &name("attn_k"), narrow, hidden, head_dim)?,
            v: Linear::load(files, &name("attn_v"), narrow, hidden)?,
            qk_norm,
            o: Linear::load(files, &name("attn_output"), hidden, wide)?,
            post_norms,
            feed_forward_norm: files.vector(&name("ffn_norm.weight"), hidden, None)?,
            gate: Linear::load(files, &name("ffn_gate"), feed_forward, hidden)?,
            up: Linear::load(files, &name("ffn_up"), feed_forward, hidden)?,
            down: Linear::load(files, &name("ffn_down"), hidden, feed_forward)?,
        })
    }
}
