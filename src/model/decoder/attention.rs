//! Attention of packed tokens, part by part: prompts being read, rows being decoded, texts being scored.
//!
//! Every part has the same form: sequences of the same length share a prefix and have positions of their own.

mod cpu;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::transformer::Heads;

/// Tokens of a prompt that attend together on the CPU; they start at multiples of it, whatever was read before.
pub const BLOCK: usize = 32;

/// Keys and values of all layers: `[layers, kv_heads, positions, head_dim]`, or, of several sequences,
/// `[layers, kv_heads, sequences, positions, head_dim]`. f32 on the CPU, bf16 on a GPU.
#[derive(Debug, Clone)]
pub struct Cache {
    pub k: Tensor,
    pub v: Tensor,
}

impl Cache {
    pub fn zeros(shape: &[usize], device: &Device) -> Result<Self> {
        let dtype = if device.is_cpu() {
            DType::F32
        } else {
            DType::BF16
        };
        Ok(Self {
            k: Tensor::zeros(shape, dtype, device)?,
            v: Tensor::zeros(shape, dtype, device)?,
        })
    }

    /// Positions of each sequence.
    pub fn positions(&self) -> usize {
        self.k.dims()[self.k.rank() - 2]
    }

    /// Takes the first positions over from another cache of one sequence.
    pub fn copy(&self, other: &Cache, positions: usize) -> Result<()> {
        let part = |x: &Tensor| x.narrow(2, 0, positions)?.contiguous();
        self.k.slice_set(&part(&other.k)?, 2, 0)?;
        self.v.slice_set(&part(&other.v)?, 2, 0)
    }

    /// Those of some sequences only.
    pub fn select(&self, sequences: &[u32]) -> Result<Self> {
        let places = Tensor::new(sequences, self.k.device())?;
        Ok(Self {
            k: self.k.index_select(&places, 2)?,
            v: self.v.index_select(&places, 2)?,
        })
    }

    fn layer(&self, layer: usize) -> Result<Keys> {
        Ok(Keys {
            k: self.k.get(layer)?,
            v: self.v.get(layer)?,
        })
    }
}

/// Neighbouring tokens of a batch that see the same keys.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    pub tokens: usize,
    pub sees: Sees<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum Sees<'a> {
    /// Tokens of a prompt from position `from` on: what is before them in `prompt`, and themselves, whose keys go there.
    Prompt { prompt: &'a Cache, from: usize },
    /// A token of each row: the prefix, the `added` tokens that the row has in `own`, and itself, whose keys go there. The
    /// rows stand at `places` in `own`.
    Rows {
        prefix: &'a Cache,
        own: &'a Cache,
        #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a GPU's"))]
        places: &'a [usize],
        added: usize,
    },
    /// The tokens of a text: the prefix, and those before themselves. Nobody needs their keys later.
    Text { prefix: &'a Cache },
}

impl Part<'_> {
    /// The positions of its tokens.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        let (first, step) = match self.sees {
            Sees::Prompt { from, .. } => (from, 1),
            Sees::Rows { prefix, added, .. } => (prefix.positions() + added, 0),
            Sees::Text { prefix } => (prefix.positions(), 1),
        };
        (0..self.tokens).map(move |i| first + i * step)
    }
}

/// Keys and values of one layer: `[kv_heads, positions, head_dim]`, or `[kv_heads, sequences, positions, head_dim]`.
#[derive(Debug, Clone)]
struct Keys {
    k: Tensor,
    v: Tensor,
}

impl Keys {
    /// Positions `start..start + len` of dimension `dim`.
    fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self> {
        self.map(|x| x.narrow(dim, start, len))
    }

    /// Overwrites dimension `dim` from `start` on; `other` is contiguous.
    fn write(&self, dim: usize, start: usize, other: &Keys) -> Result<()> {
        self.k.slice_set(&other.k, dim, start)?;
        self.v.slice_set(&other.v, dim, start)
    }

    fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            k: f(&self.k)?,
            v: f(&self.v)?,
        })
    }
}

/// Sequences of the same length: queries `[n, kv_heads, group, head_dim]` of n / B tokens each of B sequences, keys of their
/// common prefix `[kv_heads, T, head_dim]` and of their own `[kv_heads, B, t, head_dim]`.
struct Task {
    q: Tensor,
    prefix: Keys,
    own: Keys,
}

/// Attention of all parts in one layer, on the CPU: `[n, heads · head_dim]`. With a `window`, a query sees so many positions
/// behind it, its own included.
pub fn attend(
    layer: usize,
    heads: &Heads,
    parts: &[Part],
    window: Option<usize>,
) -> Result<Tensor> {
    let mut from = 0;
    let mut tasks = Vec::new();
    for part in parts {
        tasks.extend(part.tasks(layer, heads, from)?);
        from += part.tokens;
    }
    let outputs: Result<Vec<Tensor>> = tasks
        .par_iter()
        .map(|task| cpu::attend(&task.q, &task.prefix, &task.own, window))
        .collect();
    Tensor::cat(&outputs?, 0)
}

impl Part<'_> {
    /// Writes the keys of its tokens, which start at `start` in the batch.
    fn tasks(&self, layer: usize, heads: &Heads, start: usize) -> Result<Vec<Task>> {
        let n = self.tokens;
        let q = heads.q.narrow(0, start, n)?;
        let new = Keys {
            k: heads.k.narrow(1, start, n)?,
            v: heads.v.narrow(1, start, n)?,
        };
        match self.sees {
            Sees::Prompt { prompt, from } => {
                let all = prompt.layer(layer)?;
                all.write(1, from, &new.map(Tensor::contiguous)?)?;
                let block = |b: usize| {
                    let len = BLOCK.min(n - b);
                    Ok(Task {
                        q: q.narrow(0, b, len)?,
                        prefix: all.narrow(1, 0, from + b)?,
                        own: all.narrow(1, from + b, len)?.map(|x| x.unsqueeze(1))?,
                    })
                };
                (0..n).step_by(BLOCK).map(block).collect()
            }
            Sees::Rows {
                prefix, own, added, ..
            } => {
                let own = own.layer(layer)?;
                own.write(2, added, &new.map(|x| x.unsqueeze(2)?.contiguous())?)?;
                Ok(vec![Task {
                    q,
                    prefix: prefix.layer(layer)?,
                    own: own.narrow(2, 0, added + 1)?,
                }])
            }
            Sees::Text { prefix } => Ok(vec![Task {
                q,
                prefix: prefix.layer(layer)?,
                own: new.map(|x| x.unsqueeze(1))?,
            }]),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::IndexOp;

    use super::*;

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    fn cache(shape: &[usize]) -> Cache {
        Cache {
            k: random(shape),
            v: random(shape),
        }
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

    fn assert_close(got: &Tensor, expected: &[f32]) {
        let got: Vec<f32> = got.to_vec1().unwrap();
        assert!(
            expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-5),
            "{expected:?} {got:?}"
        );
    }

    #[test]
    fn rows_see_the_prefix_and_their_own_keys_beside_a_text() {
        let (kv, group, d, past) = (2, 3, 4, 5);
        let prefix = cache(&[1, kv, past, d]);
        let own = cache(&[1, kv, 2, 3, d]);
        let heads = Heads {
            q: random(&[4, kv, group, d]),
            k: random(&[kv, 4, d]),
            v: random(&[kv, 4, d]),
        };
        let rows = Sees::Rows {
            prefix: &prefix,
            own: &own,
            places: &[0, 1],
            added: 2,
        };
        let text = Sees::Text { prefix: &prefix };
        let parts = [rows, text].map(|sees| Part { tokens: 2, sees });
        let out = attend(0, &heads, &parts, None).unwrap();
        let out = out.reshape((4, kv, group, d)).unwrap();
        for (token, head, g) in [(0, 0, 0), (1, 1, 2), (0, 1, 1), (2, 0, 1), (3, 1, 0)] {
            let keys = |prefix: &Tensor, own: &Tensor, new: &Tensor| {
                let own = match token {
                    0 | 1 => own.i((0, head, token)).unwrap(),
                    _ => new.i((head, 2..=token)).unwrap(),
                };
                Tensor::cat(&[prefix.i((0, head)).unwrap(), own], 0).unwrap()
            };
            let expected = plain(
                &heads.q.i((token, head, g)).unwrap(),
                &keys(&prefix.k, &own.k, &heads.k),
                &keys(&prefix.v, &own.v, &heads.v),
            );
            assert_close(&out.i((token, head, g)).unwrap(), &expected);
        }
        let added = own.k.i((0, 1, 1, 2)).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(
            added,
            heads.k.i((1, 1)).unwrap().to_vec1::<f32>().unwrap(),
            "the row keeps its key"
        );
    }

    #[test]
    fn a_prompts_tokens_see_those_before_them_and_no_further_back_than_a_window() {
        let (kv, group, d, from, n) = (1, 2, 4, 32, 40);
        for window in [None, Some(3), Some(36)] {
            let prompt = cache(&[1, kv, from + n, d]);
            let heads = Heads {
                q: random(&[n, kv, group, d]),
                k: random(&[kv, n, d]),
                v: random(&[kv, n, d]),
            };
            let sees = Sees::Prompt {
                prompt: &prompt,
                from,
            };
            let out = attend(0, &heads, &[Part { tokens: n, sees }], window).unwrap();
            let out = out.reshape((n, kv, group, d)).unwrap();
            for i in [0, 1, 31, 32, 39] {
                let end = from + i + 1;
                let seen = end.saturating_sub(window.unwrap_or(end))..end;
                let expected = plain(
                    &heads.q.i((i, 0, 1)).unwrap(),
                    &prompt.k.i((0, 0, seen.clone())).unwrap(),
                    &prompt.v.i((0, 0, seen)).unwrap(),
                );
                assert_close(&out.i((i, 0, 1)).unwrap(), &expected);
            }
        }
    }
}
