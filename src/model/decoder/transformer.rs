//! The forward pass of Llama-like decoders over packed tokens. This is the CPU's; a GPU has its own ([`cuda`](super::cuda)).

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::rms_norm;

use super::architecture::{Architecture, Shape};
use super::attention::{Part, attend};
use super::cuda::Pass;
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
    body: Body,
    norm: Tensor,
    output: Linear,
    rope: Table,
    /// Of the layers that see a window only.
    local_rope: Option<Table>,
}

#[derive(Debug)]
enum Body {
    Cpu(Vec<Layer>),
    Gpu(Pass),
}

#[derive(Debug)]
pub struct Layer {
    pub attention_norm: Tensor,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    /// Norms of each head's query and key.
    pub qk_norm: Option<(Tensor, Tensor)>,
    pub o: Linear,
    /// Norms behind attention and behind the feed-forward layers.
    pub post_norms: Option<(Tensor, Tensor)>,
    pub feed_forward_norm: Tensor,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
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
        let body = match device.is_cpu() {
            true => {
                let layers = (0..shape.layers).map(|i| Layer::load(files, i, &architecture));
                Body::Cpu(layers.collect::<std::result::Result<_, _>>()?)
            }
            false => {
                let pass = Pass::new(&architecture, device);
                let mut pass = pass.map_err(|e| files.error(e.to_string()))?;
                for i in 0..shape.layers {
                    let layer = Layer::load(files, i, &architecture)?;
                    pass.push(layer).map_err(|e| files.error(e.to_string()))?;
                }
                Body::Gpu(pass)
            }
        };
        let norm = files.vector("output_norm.weight", shape.hidden, None)?;
        let factors = files.rope_factors(&architecture)?;
        let build = || {
            let table = |rope, factors| Table::new(context, shape.head_dim, rope, factors, device);
            Ok(Self {
                architecture,
                shape,
                device: device.clone(),
                embedding,
                body,
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

    /// The GPU's forward pass, if the model is on one.
    pub fn gpu(&self) -> Option<&Pass> {
        match &self.body {
            Body::Cpu(_) => None,
            Body::Gpu(pass) => Some(pass),
        }
    }

    /// The rotary embedding of a layer.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a GPU's"))]
    pub fn rope(&self, layer: usize) -> &Table {
        match (&self.local_rope, self.architecture.window(layer)) {
            (Some(local), Some(_)) => local,
            _ => &self.rope,
        }
    }

    /// The embeddings of tokens, `[n, hidden]` in f32.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        let x = self.embedding.rows(ids, &self.device)?;
        match self.architecture.embedding_scale {
            1.0 => Ok(x),
            scale => x * scale,
        }
    }

    /// The last layer's output `[n, hidden]`, before the final norm, of n packed tokens. Keys of prompts and rows are added
    /// to their caches.
    pub fn forward(&self, ids: &[u32], parts: &[Part]) -> Result<Tensor> {
        let layers = match &self.body {
            Body::Cpu(layers) => layers,
            Body::Gpu(pass) => return pass.forward(self, ids, parts),
        };
        let positions: Vec<u32> = parts
            .iter()
            .flat_map(Part::positions)
            .map(|p| p as u32)
            .collect();
        let positions = Tensor::new(positions, &self.device)?;
        let rope = self.rope.at(&positions)?;
        let local = self.local_rope.as_ref().map(|r| r.at(&positions));
        let local = local.transpose()?;
        let mut x = self.embed(ids)?;
        for (i, layer) in layers.iter().enumerate() {
            let window = self.architecture.window(i);
            let rope = match (&local, window) {
                (Some(local), Some(_)) => local,
                _ => &rope,
            };
            let h = self.norm(&x, &layer.attention_norm)?;
            let heads = self.heads(layer, &h, rope)?;
            let mixed = layer.o.forward(&attend(i, &heads, parts, window)?)?;
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
        match &self.body {
            Body::Cpu(_) => self.output.forward(&self.normalised(x)?),
            Body::Gpu(pass) => pass.logits(x, &self.norm, &self.output),
        }
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
