//! The decoders' forward pass on an NVIDIA GPU: matrix products by cuBLAS, what lies between them by our own kernels
//! (`kernels/cuda/decoder.cu`), nine launches a layer whatever the number of prompts, rows and texts in the batch.
//!
//! Weights, activations and keys are bf16; the residual stream, norms, softmax and logits f32.

mod launch;
mod table;

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;

use self::launch::Gpu;
use self::table::Table;
use super::architecture::{Activation, Architecture, Shape};
use super::attention::Part;
use super::linear::Linear;
use super::sample::Draw;
use super::transformer::{Layer, Transformer};

/// Threads of a block that takes a row of activations.
const ROW_THREADS: u32 = 256;
/// Threads of a block that takes a row of logits, as the kernels have it.
const LOGITS_THREADS: u32 = 512;
/// Sizes of heads that there are kernels for.
const HEADS: [(usize, &str); 4] = [
    (32, "attend_32"),
    (64, "attend_64"),
    (128, "attend_128"),
    (256, "attend_256"),
];
/// Rows of queries that two warps of a block take; four take twice as many, where no keys are left to share out.
const TILE: usize = 32;
/// Warps of a block of attention, each of 16 rows.
const ATTEND_THREADS: u32 = 4 * 32;

#[derive(Debug)]
pub struct Pass {
    gpu: Gpu,
    architecture: Architecture,
    attend: &'static str,
    layers: Vec<Fused>,
}

/// A layer whose products of the same input are one.
#[derive(Debug)]
struct Fused {
    attention_norm: Tensor,
    /// `[(heads + 2 · kv_heads) · head_dim, hidden]`
    qkv: Tensor,
    qkv_bias: Option<Tensor>,
    qk_norm: Option<(Tensor, Tensor)>,
    o: Tensor,
    post_norms: Option<(Tensor, Tensor)>,
    feed_forward_norm: Tensor,
    /// `[2 · feed_forward, hidden]`, the gate first.
    wide: Tensor,
    down: Tensor,
}

impl Fused {
    fn new(layer: Layer) -> Result<Self> {
        let qkv = [&layer.q, &layer.k, &layer.v];
        let (gate, up) = (without_bias(&layer.gate)?, without_bias(&layer.up)?);
        Ok(Self {
            qkv_bias: bias(qkv)?,
            qkv: Tensor::cat(
                &[qkv[0].dense()?.0, qkv[1].dense()?.0, qkv[2].dense()?.0],
                0,
            )?,
            o: without_bias(&layer.o)?.clone(),
            wide: Tensor::cat(&[gate, up], 0)?,
            down: without_bias(&layer.down)?.clone(),
            attention_norm: layer.attention_norm,
            qk_norm: layer.qk_norm,
            post_norms: layer.post_norms,
            feed_forward_norm: layer.feed_forward_norm,
        })
    }
}

/// The biases of some layers end to end, if one has any.
fn bias<const L: usize>(layers: [&Linear; L]) -> Result<Option<Tensor>> {
    let (mut parts, mut any) = (Vec::new(), false);
    for layer in layers {
        let (weight, bias) = layer.dense()?;
        any |= bias.is_some();
        parts.push(match bias {
            Some(bias) => bias.clone(),
            None => Tensor::zeros(weight.dim(0)?, DType::F32, weight.device())?,
        });
    }
    any.then(|| Tensor::cat(&parts, 0)).transpose()
}

fn without_bias(layer: &Linear) -> Result<&Tensor> {
    match layer.dense()? {
        (weight, None) => Ok(weight),
        _ => candle_core::bail!("it has a bias where its family has none"),
    }
}

impl Pass {
    /// A pass without layers yet.
    pub fn new(architecture: &Architecture, device: &Device) -> Result<Self> {
        let Shape {
            head_dim,
            heads,
            kv_heads,
            ..
        } = architecture.shape;
        let attend = HEADS.iter().find(|(d, _)| *d == head_dim);
        let Some((_, attend)) = attend.filter(|_| heads / kv_heads <= TILE) else {
            candle_core::bail!(
                "{heads} heads of {head_dim} on {kv_heads} keys are not for a GPU; set models.device = \"cpu\""
            );
        };
        Ok(Self {
            gpu: Gpu::new(device)?,
            architecture: *architecture,
            attend,
            layers: Vec::with_capacity(architecture.shape.layers),
        })
    }

    pub fn push(&mut self, layer: Layer) -> Result<()> {
        self.layers.push(Fused::new(layer)?);
        Ok(())
    }

    /// See [`Transformer::forward`].
    pub fn forward(&self, model: &Transformer, ids: &[u32], parts: &[Part]) -> Result<Tensor> {
        let shape = self.architecture.shape;
        let n = ids.len();
        let table = Table::new(&self.gpu, shape, parts)?;
        let qkv_width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
        let mixed_width = shape.heads * shape.head_dim;
        let half = |width: usize| self.gpu.empty::<bf16>(&[n, width]);
        let (h, qkv, q, mixed) = (
            half(shape.hidden)?,
            half(qkv_width)?,
            half(mixed_width)?,
            half(mixed_width)?,
        );
        let (wide, fed) = (half(2 * shape.feed_forward)?, half(shape.feed_forward)?);
        let x = model.embed(ids)?;
        for (i, layer) in self.layers.iter().enumerate() {
            let post =
                |which: fn(&(Tensor, Tensor)) -> &Tensor| layer.post_norms.as_ref().map(which);
            self.norm(&x, &layer.attention_norm, &h)?;
            self.gpu.multiply(&h, &layer.qkv, &qkv, false)?;
            self.heads(i, layer, model, &table, &qkv, &q)?;
            self.attend(i, &table, &q, &mixed)?;
            self.add(&x, &mixed, &layer.o, post(|n| &n.0), &h)?;
            self.norm(&x, &layer.feed_forward_norm, &h)?;
            self.gpu.multiply(&h, &layer.wide, &wide, false)?;
            self.gated(&wide, &fed)?;
            self.add(&x, &fed, &layer.down, post(|n| &n.1), &h)?;
        }
        Ok(x)
    }

    /// Logits `[n, vocabulary]` in f32 of outputs `[n, hidden]`.
    pub fn logits(&self, x: &Tensor, norm: &Tensor, output: &Linear) -> Result<Tensor> {
        let (n, hidden) = x.dims2()?;
        let x = x.contiguous()?;
        let h = self.gpu.empty::<bf16>(&[n, hidden])?;
        self.norm(&x, norm, &h)?;
        let weight = without_bias(output)?;
        let logits = self.gpu.empty::<f32>(&[n, weight.dim(0)?])?;
        self.gpu.multiply(&h, weight, &logits, false)?;
        Ok(logits)
    }

    /// The token of each draw from logits `[n, vocabulary]`, as [`draw`](super::sample::draw) draws it.
    pub fn draw(&self, logits: &Tensor, draws: &[Draw]) -> Result<Vec<u32>> {
        if draws.is_empty() {
            return Ok(Vec::new());
        }
        let scale = |draw: &Draw| match draw.temperature > 0.0 {
            true => 1.0 / draw.temperature,
            false => 0.0,
        };
        let outputs = self.gpu.upload(draws.iter().map(|draw| draw.output))?;
        let scales = self.gpu.upload(draws.iter().map(scale))?;
        let shares = self.gpu.upload(draws.iter().map(|draw| draw.top_p))?;
        let uniforms = self.gpu.upload(draws.iter().map(|draw| draw.uniform))?;
        let tokens = self.gpu.empty::<u32>(&[draws.len()])?;
        let mut launch = self.gpu.kernel("draw")?;
        launch.tensor(logits)?.number(logits.dim(1)? as i32);
        for x in [&outputs, &scales, &shares, &uniforms, &tokens] {
            launch.tensor(x)?;
        }
        launch.run([draws.len(), 1], LOGITS_THREADS)?;
        let tokens = tokens.to_vec1::<u32>()?;
        match tokens.contains(&u32::MAX) {
            true => candle_core::bail!("the logits are not finite"),
            false => Ok(tokens),
        }
    }

    /// The log-probability of each target (row, token) by logits `[n, vocabulary]`; NaN where it is not finite.
    pub fn log_probabilities(&self, logits: &Tensor, targets: &[(u32, u32)]) -> Result<Vec<f64>> {
        let rows = self.gpu.upload(targets.iter().map(|target| target.0))?;
        let tokens = self.gpu.upload(targets.iter().map(|target| target.1))?;
        let logs = self.gpu.empty::<f32>(&[targets.len()])?;
        let mut launch = self.gpu.kernel("log_probability")?;
        launch.tensor(logits)?.number(logits.dim(1)? as i32);
        for x in [&rows, &tokens, &logs] {
            launch.tensor(x)?;
        }
        launch.run([targets.len(), 1], LOGITS_THREADS)?;
        let logs = logs.to_vec1::<f32>()?.into_iter();
        Ok(logs
            .map(|log| {
                if log.is_finite() {
                    log.into()
                } else {
                    f64::NAN
                }
            })
            .collect())
    }

    /// h = x / rms(x) · weight
    fn norm(&self, x: &Tensor, weight: &Tensor, h: &Tensor) -> Result<()> {
        let (n, width) = x.dims2()?;
        let mut launch = self.gpu.kernel("rms_norm")?;
        launch.tensor(x)?.tensor(weight)?.tensor(h)?;
        launch
            .number(width as i32)
            .number(self.architecture.epsilon);
        launch.run([n, 1], ROW_THREADS)
    }

    /// x += h Wᵀ, which goes through a norm first where there is one. `spare` has x's shape.
    fn add(
        &self,
        x: &Tensor,
        h: &Tensor,
        weight: &Tensor,
        norm: Option<&Tensor>,
        spare: &Tensor,
    ) -> Result<()> {
        let Some(norm) = norm else {
            return self.gpu.multiply(h, weight, x, true);
        };
        self.gpu.multiply(h, weight, spare, false)?;
        let (n, width) = x.dims2()?;
        let mut launch = self.gpu.kernel("add_normed")?;
        launch.tensor(x)?.tensor(spare)?.tensor(norm)?;
        launch
            .number(width as i32)
            .number(self.architecture.epsilon);
        launch.run([n, 1], ROW_THREADS)
    }

    fn heads(
        &self,
        i: usize,
        layer: &Fused,
        model: &Transformer,
        table: &Table,
        qkv: &Tensor,
        q: &Tensor,
    ) -> Result<()> {
        let Shape {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.architecture.shape;
        let rope = model.rope(i);
        let norms = layer.qk_norm.as_ref();
        let mut launch = self.gpu.kernel("heads")?;
        launch.tensor(qkv)?.optional(layer.qkv_bias.as_ref())?;
        launch
            .optional(norms.map(|n| &n.0))?
            .optional(norms.map(|n| &n.1))?;
        launch.tensor(&rope.cos)?.tensor(&rope.sin)?;
        table.pass_to(&mut launch)?;
        launch.number(i as i32);
        launch.number(heads as i32).number(kv_heads as i32);
        launch.number(self.architecture.epsilon).tensor(q)?;
        let blocks = [qkv.dim(0)?, heads + 2 * kv_heads];
        launch.run(blocks, head_dim as u32 / 2)
    }

    fn attend(&self, i: usize, table: &Table, q: &Tensor, mixed: &Tensor) -> Result<()> {
        let Shape {
            heads, kv_heads, ..
        } = self.architecture.shape;
        let window = self
            .architecture
            .window(i)
            .map_or(0, |tokens| tokens as i32);
        let scale = self.architecture.query_scale * std::f64::consts::LOG2_E;
        let mut launch = self.gpu.kernel(self.attend)?;
        launch.tensor(q)?;
        table.pass_to(&mut launch)?;
        launch.tensor(&table.tiles)?.number(table.parts as i32);
        launch.number(i as i32);
        launch.number((heads / kv_heads) as i32);
        launch.number(scale as f32).number(window).tensor(mixed)?;
        launch.run([table.tiles.dim(0)? / 2, kv_heads], ATTEND_THREADS)
    }

    fn gated(&self, wide: &Tensor, fed: &Tensor) -> Result<()> {
        let (n, width) = fed.dims2()?;
        let count = n * width;
        let gelu = self.architecture.activation == Activation::Gelu;
        let mut launch = self.gpu.kernel("gated")?;
        launch.tensor(wide)?.tensor(fed)?.number(count as i64);
        launch.number(width as i32).number(i32::from(gelu));
        launch.run([count.div_ceil(ROW_THREADS as usize), 1], ROW_THREADS)
    }
}

#[cfg(test)]
mod tests;
