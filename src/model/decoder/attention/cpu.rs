//! Attention on the CPU, a task a key head, without the copies that tensor operations need between their steps.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::Keys;
use crate::model::floats::{Floats, floats};
use intendex_kernels::matrix::{Matrix, multiply};
use intendex_kernels::vector;

/// See [`attend`](super::attend).
pub fn attend(q: &Tensor, prefix: &Keys, own: &Keys, window: Option<usize>) -> Result<Tensor> {
    let (n, kv, group, d) = q.dims4()?;
    let q = q.contiguous()?;
    let queries = floats(&q)?;
    let attention = Attention {
        queries: &queries,
        kv,
        group,
        d,
        prefix: [floats(&prefix.k)?, floats(&prefix.v)?],
        past: prefix.k.dim(1)?,
        own: [floats(&own.k)?, floats(&own.v)?],
        rows: own.k.dim(1)?,
        t: own.k.dim(2)?,
        window: window.unwrap_or(usize::MAX),
    };
    let heads: Vec<Vec<f32>> = (0..kv).into_par_iter().map(|h| attention.head(h)).collect();
    let mut out = Vec::with_capacity(queries.len());
    for i in 0..n {
        for head in &heads {
            out.extend_from_slice(&head[i * group * d..][..group * d]);
        }
    }
    Tensor::from_vec(out, (n, kv * group * d), q.device())
}

/// Keys first, then values.
struct Attention<'a> {
    queries: &'a [f32],
    kv: usize,
    group: usize,
    d: usize,
    prefix: [Floats<'a>; 2],
    past: usize,
    own: [Floats<'a>; 2],
    rows: usize,
    t: usize,
    window: usize,
}

impl Attention<'_> {
    /// Outputs `[n, group, d]` of one key head.
    fn head(&self, head: usize) -> Vec<f32> {
        let Self {
            group,
            d,
            past,
            t,
            rows,
            ..
        } = *self;
        let n = self.queries.len() / (self.kv * group * d);
        let mut q = Vec::with_capacity(n * group * d);
        for i in 0..n {
            q.extend_from_slice(&self.queries[(i * self.kv + head) * group * d..][..group * d]);
        }
        let width = past + t;
        let mut weights = vec![0.0; n * group * width];
        let each = n / rows * group;
        let q = Matrix::rows(&q, n * group, d, d);
        if past > 0 {
            multiply(
                q,
                self.prefix(0, head).transposed(),
                &mut weights,
                width,
                false,
            );
        }
        for row in 0..rows {
            let scores = &mut weights[row * each * width + past..];
            multiply(
                q.some_rows(row * each, each),
                self.own(0, head, row).transposed(),
                scores,
                width,
                false,
            );
        }
        for (i, weights) in weights.chunks_exact_mut(width).enumerate() {
            // The last query of a sequence sees all its keys, the one before it one less.
            let seen = width - (n / rows - 1 - i / group % (n / rows));
            let from = seen.saturating_sub(self.window);
            weights[..from].fill(0.0);
            weights[seen..].fill(0.0);
            vector::softmax(&mut weights[from..seen]);
        }
        let mut out = vec![0.0; n * group * d];
        let all = Matrix::rows(&weights, n * group, width, width);
        if past > 0 {
            multiply(
                all.some_columns(0, past),
                self.prefix(1, head),
                &mut out,
                d,
                false,
            );
        }
        for row in 0..rows {
            let weights = all.some_rows(row * each, each).some_columns(past, t);
            let out = &mut out[row * each * d..];
            multiply(weights, self.own(1, head, row), out, d, past > 0);
        }
        out
    }

    fn prefix(&self, part: usize, head: usize) -> Matrix<'_> {
        let values = &self.prefix[part];
        let start = head * values.strides[0];
        Matrix::rows(&values[start..], self.past, self.d, values.strides[1])
    }

    fn own(&self, part: usize, head: usize, row: usize) -> Matrix<'_> {
        let values = &self.own[part];
        let start = head * values.strides[0] + row * values.strides[1];
        Matrix::rows(&values[start..], self.t, self.d, values.strides[2])
    }
}
