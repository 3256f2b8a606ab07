//! The exact GELU on the CPU: erf by a rational function that compilers vectorise, where libm's is a quarter of the
//! whole forward pass.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result};
use rayon::prelude::*;

/// x ← gelu(x + bias) for every row of x.
pub struct BiasGelu;

impl InplaceOp2 for BiasGelu {
    fn name(&self) -> &'static str {
        "bias-gelu"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(x), CpuStorage::F32(bias)) = (x, bias) else {
            candle_core::bail!("bias-gelu takes f32");
        };
        let (Some((from, to)), Some((first, last))) = (
            x_layout.contiguous_offsets(),
            bias_layout.contiguous_offsets(),
        ) else {
            candle_core::bail!("bias-gelu takes contiguous tensors");
        };
        let bias = &bias[first..last];
        x[from..to]
            .par_chunks_mut(bias.len())
            .with_min_len(8)
            .for_each(|row| {
                for (x, b) in row.iter_mut().zip(bias) {
                    *x = gelu(*x + b);
                }
            });
        Ok(())
    }
}

/// x · Φ(x), Φ the normal distribution.
#[inline]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// erf(x) within 5e-7, as x · P(x²) / Q(x²) on [−4, 4] (the coefficients of Eigen's `generic_fast_erf_float`).
#[inline]
#[allow(clippy::excessive_precision)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = -2.726_142_4e-10f32;
    let p = p * s + 2.770_681_4e-8;
    let p = p * s - 2.101_024_02e-6;
    let p = p * s - 5.692_506_4e-5;
    let p = p * s - 7.349_906_3e-4;
    let p = p * s - 2.954_600_3e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5f32;
    let q = q * s - 2.133_740_6e-4;
    let q = q * s - 1.682_827_1e-3;
    let q = q * s - 7.373_329_2e-3;
    let q = q * s - 1.426_473_9e-2;
    x * p / q
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_exact_gelu(values in prop::collection::vec(-12f32..12.0, 12), bias in prop::collection::vec(-1f32..1.0, 4)) {
            let x = Tensor::from_vec(values, (3, 4), &Device::Cpu).unwrap();
            let bias = Tensor::from_vec(bias, 4, &Device::Cpu).unwrap();
            let exact = x.broadcast_add(&bias).unwrap().gelu_erf().unwrap();
            x.inplace_op2(&bias, &BiasGelu).unwrap();
            let worst = (x - exact).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            prop_assert!(worst < 4e-6, "{worst}");
        }
    }
}
