//! Attention of packed tokens over a shared prefix and a sequence's own keys.
//!
//! Every use has the same form: B sequences of the same length share a prefix of T positions and have t positions of
//! their own. Reading a prompt is B = 1 with the block's own keys under a causal mask; decoding is B rows with one
//! query each; scoring is B = 1 with the whole continuation as queries.

mod cpu;

use candle_core::{D, Device, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use rayon::prelude::*;

/// Keys and values of one layer: `[kv_heads, positions, head_dim]`, or `[kv_heads, sequences, positions, head_dim]`.
#[derive(Debug, Clone)]
pub struct Keys {
    pub k: Tensor,
    pub v: Tensor,
}

impl Keys {
    pub fn zeros(shape: &[usize], device: &Device) -> Result<Self> {
        let zeros = || Tensor::zeros(shape, candle_core::DType::F32, device);
        Ok(Self {
            k: zeros()?,
            v: zeros()?,
        })
    }

    /// Positions `start..start + len` of dimension `dim`.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        Ok(Self {
            k: self.k.narrow(dim, start, len)?,
            v: self.v.narrow(dim, start, len)?,
        })
    }

    /// Overwrites dimension `dim` from `start` on; `other` is contiguous.
    pub fn write(&self, dim: usize, start: usize, other: &Keys) -> Result<()> {
        self.k.slice_set(&other.k, dim, start)?;
        self.v.slice_set(&other.v, dim, start)
    }

    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            k: f(&self.k)?,
            v: f(&self.v)?,
        })
    }
}

/// Attention of `q` `[n, kv_heads, group, head_dim]` (already scaled) over `prefix` `[kv_heads, T, head_dim]` and
/// `own` `[kv_heads, B, t, head_dim]`, where the n queries are B sequences of n / B tokens each.
///
/// A query sees its sequence's keys up to its own: the last query all of them, the one before it one less. `mask` is
/// [`causal_mask`] of a sequence, where it has more than one query. With a `window`, a query sees so many positions behind
/// it, its own included. Returns `[n, kv_heads · group · head_dim]`.
pub fn attend(
    q: &Tensor,
    prefix: &Keys,
    own: &Keys,
    mask: Option<&Tensor>,
    window: Option<usize>,
) -> Result<Tensor> {
    if q.device().is_cpu() {
        return cpu::attend(q, prefix, own, window);
    }
    by_tensors(q, prefix, own, mask, window)
}

fn by_tensors(
    q: &Tensor,
    prefix: &Keys,
    own: &Keys,
    mask: Option<&Tensor>,
    window: Option<usize>,
) -> Result<Tensor> {
    let (past, t) = (prefix.k.dim(1)?, own.k.dim(2)?);
    let queries = q.dim(0)? / own.k.dim(1)?;
    let Some(window) = window.filter(|window| past + t > *window) else {
        return weigh(q, prefix, own, None, mask);
    };
    let group = q.dim(2)?;
    // What no query sees is left out; what some do not see is masked.
    let first = past + t - queries;
    let start = (first + 1).saturating_sub(window).min(past);
    let seen = prefix.narrow(1, start, past - start)?;
    let hidden = |from: usize, count: usize| {
        let visible = |query: usize| (first + query + 1).saturating_sub(window);
        let mask: Vec<f32> = (0..queries * group)
            .flat_map(|row| {
                let visible = visible(row / group);
                let value = move |key| {
                    if key < visible {
                        f32::NEG_INFINITY
                    } else {
                        0.0
                    }
                };
                (from..from + count).map(value)
            })
            .collect();
        Tensor::from_vec(mask, (queries * group, count), q.device())
    };
    let mut own_mask = hidden(past, t)?;
    if let Some(mask) = mask {
        own_mask = (own_mask + mask)?;
    }
    let prefix_mask = hidden(start, past - start)?;
    weigh(q, &seen, own, Some(&prefix_mask), Some(&own_mask))
}

/// Attention with what each query of a sequence must not see: masks `[n / B · group, T]` and `[n / B · group, t]`.
fn weigh(
    q: &Tensor,
    prefix: &Keys,
    own: &Keys,
    prefix_mask: Option<&Tensor>,
    own_mask: Option<&Tensor>,
) -> Result<Tensor> {
    let (n, kv, group, d) = q.dims4()?;
    let (rows, t) = (own.k.dim(1)?, own.k.dim(2)?);
    let past = prefix.k.dim(1)?;
    let q = q.transpose(0, 1)?.contiguous()?;
    let mut scores = q
        .reshape((kv, rows, n / rows * group, d))?
        .matmul(&own.k.t()?)?;
    if let Some(mask) = own_mask {
        scores = scores.broadcast_add(mask)?;
    }
    let mut scores = scores.reshape((kv, n * group, t))?;
    if past > 0 {
        let mut before = q.reshape((kv, n * group, d))?.matmul(&prefix.k.t()?)?;
        if let Some(mask) = prefix_mask {
            before = before
                .reshape((kv, rows, n / rows * group, past))?
                .broadcast_add(mask)?
                .reshape((kv, n * group, past))?;
        }
        scores = Tensor::cat(&[&before, &scores], 2)?;
    }
    let weights = softmax_last_dim(&scores)?;

    let own_weights = weights.narrow(D::Minus1, past, t)?.contiguous()?;
    let mut out = own_weights
        .reshape((kv, rows, n / rows * group, t))?
        .matmul(&own.v)?
        .reshape((kv, n * group, d))?;
    if past > 0 {
        let before = weights
            .narrow(D::Minus1, 0, past)?
            .contiguous()?
            .matmul(&prefix.v)?;
        out = (out + before)?;
    }
    out.reshape((kv, n, group, d))?
        .transpose(0, 1)?
        .reshape((n, kv * group * d))
}

/// What `one` makes of each item, rows one after another; on the CPU, items go over the threads.
pub fn each<T: Sync>(
    items: &[T],
    device: &Device,
    one: impl Fn(&T) -> Result<Tensor> + Send + Sync,
) -> Result<Tensor> {
    let parts: Vec<Tensor> = match device.is_cpu() {
        true => items.par_iter().map(one).collect::<Result<_>>()?,
        false => items.iter().map(one).collect::<Result<_>>()?,
    };
    Tensor::cat(&parts, 0)
}

/// The causal mask of `n` tokens with `group` query heads to a key head: `[n · group, n]`, 0 or −∞.
pub fn causal_mask(n: usize, group: usize, device: &Device) -> Result<Tensor> {
    let mask: Vec<f32> = (0..n * group)
        .flat_map(|row| {
            (0..n).map(move |column| {
                if column > row / group {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            })
        })
        .collect();
    Tensor::from_vec(mask, (n * group, n), device)
}

#[cfg(test)]
mod tests {
    use candle_core::IndexOp;

    use super::*;

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    /// Attention of one query over keys `[T, d]`, by the definition.
    fn plain(q: &Tensor, k: &Tensor, v: &Tensor) -> Vec<f32> {
        let (q, k, v): (Vec<f32>, Vec<Vec<f32>>, Vec<Vec<f32>>) = (
            q.to_vec1().unwrap(),
            k.to_vec2().unwrap(),
            v.to_vec2().unwrap(),
        );
        let e: Vec<f32> = k
            .iter()
            .map(|k| q.iter().zip(k).map(|(a, b)| a * b).sum::<f32>().exp())
            .collect();
        let total: f32 = e.iter().sum();
        (0..q.len())
            .map(|j| e.iter().zip(&v).map(|(e, v)| e * v[j]).sum::<f32>() / total)
            .collect()
    }

    /// The CPU's attention, after it has been compared with that of other devices.
    fn both(
        q: &Tensor,
        prefix: &Keys,
        own: &Keys,
        mask: Option<&Tensor>,
        window: Option<usize>,
    ) -> Tensor {
        let out = attend(q, prefix, own, mask, window).unwrap();
        let other = by_tensors(q, prefix, own, mask, window).unwrap();
        let apart = (&out - other).unwrap().abs().unwrap().max_all().unwrap();
        assert!(apart.to_scalar::<f32>().unwrap() < 1e-5, "{apart}");
        out
    }

    #[test]
    fn rows_see_the_prefix_and_their_own_keys() {
        let (kv, group, d, rows, past, t) = (2, 3, 4, 2, 5, 3);
        let q = random(&[rows, kv, group, d]);
        let prefix = Keys {
            k: random(&[kv, past, d]),
            v: random(&[kv, past, d]),
        };
        let own = Keys {
            k: random(&[kv, rows, t, d]),
            v: random(&[kv, rows, t, d]),
        };
        let out = both(&q, &prefix, &own, None, None)
            .reshape((rows, kv, group, d))
            .unwrap();
        for (row, head, g) in [(0, 0, 0), (1, 1, 2), (0, 1, 1)] {
            let keys = |p: &Tensor, o: &Tensor| {
                Tensor::cat(&[p.i(head).unwrap(), o.i((head, row)).unwrap()], 0).unwrap()
            };
            let expected = plain(
                &q.i((row, head, g)).unwrap(),
                &keys(&prefix.k, &own.k),
                &keys(&prefix.v, &own.v),
            );
            let got: Vec<f32> = out.i((row, head, g)).unwrap().to_vec1().unwrap();
            assert!(
                expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-5),
                "{expected:?} {got:?}"
            );
        }
    }

    #[test]
    fn a_masked_query_sees_no_later_key() {
        let (kv, group, d, n) = (1, 2, 4, 3);
        let q = random(&[n, kv, group, d]);
        let own = Keys {
            k: random(&[kv, 1, n, d]),
            v: random(&[kv, 1, n, d]),
        };
        let none = own.map(|x| x.i((.., 0, ..0))).unwrap();
        let mask = causal_mask(n, group, &Device::Cpu).unwrap();
        let out = both(&q, &none, &own, Some(&mask), None)
            .reshape((n, kv, group, d))
            .unwrap();
        for i in 0..n {
            let expected = plain(
                &q.i((i, 0, 1)).unwrap(),
                &own.k.i((0, 0, ..=i)).unwrap(),
                &own.v.i((0, 0, ..=i)).unwrap(),
            );
            let got: Vec<f32> = out.i((i, 0, 1)).unwrap().to_vec1().unwrap();
            assert!(
                expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-5),
                "{expected:?} {got:?}"
            );
        }
    }

    #[test]
    fn a_window_hides_what_lies_behind_it() {
        let (kv, group, d, past, n, window) = (1, 2, 4, 5, 4, 3);
        let q = random(&[n, kv, group, d]);
        let all = Keys {
            k: random(&[kv, past + n, d]),
            v: random(&[kv, past + n, d]),
        };
        let own = all
            .narrow(1, past, n)
            .unwrap()
            .map(|x| x.unsqueeze(1))
            .unwrap();
        let mask = causal_mask(n, group, &Device::Cpu).unwrap();
        let prefix = all.narrow(1, 0, past).unwrap();
        let out = both(&q, &prefix, &own, Some(&mask), Some(window));
        let out = out.reshape((n, kv, group, d)).unwrap();
        for i in 0..n {
            let seen = past + i + 1 - window..past + i + 1;
            let expected = plain(
                &q.i((i, 0, 1)).unwrap(),
                &all.k.i((0, seen.clone())).unwrap(),
                &all.v.i((0, seen)).unwrap(),
            );
            let got: Vec<f32> = out.i((i, 0, 1)).unwrap().to_vec1().unwrap();
            for (a, b) in got.iter().zip(expected) {
                assert!((a - b).abs() < 1e-5, "{got:?}");
            }
        }
    }
}
