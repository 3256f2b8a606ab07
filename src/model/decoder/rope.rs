//! Rotary position embedding (RoFormer, arXiv 2104.09864), the halves of a head rotated against each other.

use candle_core::{Device, Result, Tensor};

use super::architecture::Rope;

/// cos and sin `[positions, head_dim / 2]`.
#[derive(Debug)]
pub struct Table {
    pub cos: Tensor,
    pub sin: Tensor,
}

impl Table {
    /// `factors`: what each frequency is divided by besides (Llama 3.1's `rope_freqs`).
    pub fn new(
        positions: usize,
        head_dim: usize,
        rope: Rope,
        factors: Option<&[f32]>,
        device: &Device,
    ) -> Result<Self> {
        let half = head_dim / 2;
        let frequency: Vec<f64> = (0..half)
            .map(|i| {
                let own = factors.map_or(1.0, |f| f64::from(f[i]));
                f64::from(rope.base).powf(-(i as f64) / half as f64) / own / f64::from(rope.factor)
            })
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
        Ok(Self {
            cos: table(f64::cos)?,
            sin: table(f64::sin)?,
        })
    }

    /// The rows of the given positions.
    pub fn at(&self, positions: &Tensor) -> Result<Self> {
        Ok(Self {
            cos: self.cos.index_select(positions, 0)?,
            sin: self.sin.index_select(positions, 0)?,
        })
    }

    /// Rotates `x` `[n, heads, head_dim]` of n tokens, for whose positions the table was taken.
    pub fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::rotary_emb::rope_thd(&x.unsqueeze(0)?, &self.cos, &self.sin)?.squeeze(0)
    }
}
