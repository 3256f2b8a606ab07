//! The forward pass on the CPU. One thread takes a batch through all layers, and threads work on different batches: so
//! none waits for another between two products, and what is at work stays in a core's cache.

use candle_core::{Result, Tensor};
use intendex_kernels::matrix::{Matrix, multiply};
use intendex_kernels::vector;

use super::config::Activation;
use super::encoder::{Encoder, Linear, Norm, Positions, Rotary, Sequence, Weight};
use crate::job::spec::Pooling;
use crate::model::floats::floats;

/// See [`Encoder::forward`].
pub fn forward(encoder: &Encoder, sequences: &[Sequence]) -> Result<Tensor> {
    let hidden = encoder.words.dim(1)?;
    let mut x = embed(encoder, sequences)?;
    norm(&encoder.norm, &mut x)?;
    for layer in &encoder.layers {
        let mut qkv = linear(&layer.qkv, &x)?;
        if let Positions::Rotary(rotary) = &encoder.positions {
            rotate(rotary, &mut qkv, sequences, hidden)?;
        }
        let mixed = attention(&qkv, sequences, encoder.heads, hidden);
        residual(&mut x, &linear(&layer.out, &mixed)?);
        norm(&layer.attention_norm, &mut x)?;
        let mut wide = linear(&layer.up, &x)?;
        match (&layer.gate, encoder.activation) {
            (Some(gate), _) => {
                let mut gate = linear(gate, &x)?;
                vector::swiglu(&mut gate, &wide);
                wide = gate;
            }
            (None, Activation::Gelu) => vector::gelu(&mut wide),
            (None, Activation::GeluTanh) => vector::gelu_tanh(&mut wide),
            (None, Activation::Relu) => wide.iter_mut().for_each(|x| *x = x.max(0.0)),
            (None, Activation::Gated) => candle_core::bail!("a gated layer without a gate"),
        }
        residual(&mut x, &linear(&layer.down, &wide)?);
        norm(&layer.norm, &mut x)?;
    }
    let tokens = x.len() / hidden;
    Tensor::from_vec(x, (tokens, hidden), &encoder.device)
}

/// See [`Encoder::pool`].
pub fn pool(output: &Tensor, sequences: &[Sequence], pooling: Pooling) -> Result<Vec<f32>> {
    let (hidden, values) = (output.dim(1)?, floats(output)?);
    let mut pooled = vec![0.0; sequences.len() * hidden];
    let mut start = 0;
    for (row, sequence) in pooled.chunks_exact_mut(hidden).zip(sequences) {
        let n = sequence.ids.len();
        let tokens = &values[start * hidden..][..n * hidden];
        match pooling {
            Pooling::Cls => row.copy_from_slice(&tokens[..hidden]),
            Pooling::Mean => {
                let tokens = tokens.chunks_exact(hidden);
                tokens.for_each(|token| residual(row, token));
                row.iter_mut().for_each(|x| *x /= n as f32);
            }
        }
        start += n;
    }
    Ok(pooled)
}

fn embed(encoder: &Encoder, sequences: &[Sequence]) -> Result<Vec<f32>> {
    let (words, types) = (floats(&encoder.words)?, floats(&encoder.types)?);
    let positions = match &encoder.positions {
        Positions::Learned(table) => Some(floats(table)?),
        Positions::Rotary(_) => None,
    };
    let hidden = encoder.words.dim(1)?;
    let row = |table: &[f32], i: usize| -> Result<std::ops::Range<usize>> {
        if (i + 1) * hidden > table.len() {
            candle_core::bail!("row {i} is beyond a table of {}", table.len() / hidden);
        }
        Ok(i * hidden..(i + 1) * hidden)
    };
    let tokens: usize = sequences.iter().map(|s| s.ids.len()).sum();
    let mut x = Vec::with_capacity(tokens * hidden);
    for sequence in sequences {
        for (place, &id) in sequence.ids.iter().enumerate() {
            let word = &words[row(&words, id as usize)?];
            let kind = &types[row(&types, usize::from(place >= sequence.second))?];
            match &positions {
                Some(table) => {
                    let position = &table[row(table, place)?];
                    let whole = word.iter().zip(position).zip(kind);
                    x.extend(whole.map(|((word, position), kind)| word + (position + kind)));
                }
                None => x.extend(word.iter().zip(kind).map(|(word, kind)| word + kind)),
            }
        }
    }
    Ok(x)
}

/// Rotates the queries and keys among `[T, 3 · hidden]`.
fn rotate(rotary: &Rotary, qkv: &mut [f32], sequences: &[Sequence], hidden: usize) -> Result<()> {
    let (cos, sin) = (floats(&rotary.cos)?, floats(&rotary.sin)?);
    let half = rotary.cos.dim(1)?;
    let places = sequences.iter().flat_map(|s| 0..s.ids.len());
    for (place, token) in places.zip(qkv.chunks_exact_mut(3 * hidden)) {
        if (place + 1) * half > cos.len() {
            candle_core::bail!("place {place} is beyond the model's {}", cos.len() / half);
        }
        let (cos, sin) = (&cos[place * half..][..half], &sin[place * half..][..half]);
        for head in token[..2 * hidden].chunks_exact_mut(2 * half) {
            let (a, b) = head.split_at_mut(half);
            for i in 0..half {
                (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], a[i] * sin[i] + b[i] * cos[i]);
            }
        }
    }
    Ok(())
}

/// x Wᵀ + bias, row by row.
fn linear(layer: &Linear, x: &[f32]) -> Result<Vec<f32>> {
    let (out, input) = match &layer.weight {
        Weight::Full(weight) => weight.dims2()?,
        Weight::Int8(weight) => (weight.out(), weight.input()),
    };
    let n = x.len() / input;
    let bias = layer.bias.as_ref().map(floats).transpose()?;
    match &layer.weight {
        Weight::Full(weight) => {
            let (mut y, add) = match bias {
                Some(bias) => (bias.repeat(n), true),
                None => (vec![0.0; n * out], false),
            };
            let weight = floats(weight)?;
            let weight = Matrix::rows(&weight, out, input, input).transposed();
            multiply(Matrix::rows(x, n, input, input), weight, &mut y, out, add);
            Ok(y)
        }
        Weight::Int8(weight) => {
            let mut y = vec![0.0; n * out];
            weight.forward(x, &mut y);
            if let Some(bias) = bias {
                y.chunks_exact_mut(out).for_each(|row| residual(row, &bias));
            }
            Ok(y)
        }
    }
}

fn norm(norm: &Norm, x: &mut [f32]) -> Result<()> {
    let (weight, bias) = (floats(&norm.weight)?, floats(&norm.bias)?);
    for row in x.chunks_exact_mut(weight.len()) {
        vector::layer_norm(row, &weight, &bias, norm.epsilon);
    }
    Ok(())
}

fn residual(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Attention of each sequence by itself: `[T, 3 · hidden]` to `[T, hidden]`.
fn attention(qkv: &[f32], sequences: &[Sequence], heads: usize, hidden: usize) -> Vec<f32> {
    let (width, d) = (3 * hidden, hidden / heads);
    let mut out = vec![0.0; qkv.len() / 3];
    let longest = sequences.iter().map(|s| s.ids.len()).max().unwrap_or(0);
    let mut weights = vec![0.0; longest * longest];
    let mut start = 0;
    for n in sequences.iter().map(|s| s.ids.len()) {
        for head in 0..heads {
            let part = |i| Matrix::rows(&qkv[start * width + i * hidden + head * d..], n, d, width);
            multiply(part(0), part(1).transposed(), &mut weights, n, false);
            for row in weights[..n * n].chunks_exact_mut(n) {
                vector::softmax(row);
            }
            let out = &mut out[start * hidden + head * d..];
            multiply(Matrix::rows(&weights, n, n, n), part(2), out, hidden, false);
        }
        start += n;
    }
    out
}
