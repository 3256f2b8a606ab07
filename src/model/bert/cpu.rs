//! The forward pass on the CPU. One thread takes a batch through all layers, and threads work on different batches: so
//! none waits for another between two products, and what is at work stays in a core's cache.

use candle_core::{Result, Tensor};

use super::config::Activation;
use super::encoder::{Encoder, Linear, Norm};
use crate::model::floats::floats;
use intendex_kernels::matrix::{Matrix, multiply};
use intendex_kernels::vector;

/// See [`Encoder::forward`].
pub fn forward(encoder: &Encoder, sequences: &[&[u32]]) -> Result<Tensor> {
    let hidden = encoder.words.dim(1)?;
    let mut x = embed(encoder, sequences)?;
    norm(&encoder.norm, &mut x)?;
    for layer in &encoder.layers {
        let qkv = linear(&layer.qkv, &x)?;
        let mixed = attention(&qkv, sequences, encoder.heads, hidden);
        residual(&mut x, &linear(&layer.out, &mixed)?);
        norm(&layer.attention_norm, &mut x)?;
        let mut wide = linear(&layer.up, &x)?;
        match encoder.activation {
            Activation::Gelu => vector::gelu(&mut wide),
            Activation::GeluTanh => vector::gelu_tanh(&mut wide),
            Activation::Relu => wide.iter_mut().for_each(|x| *x = x.max(0.0)),
        }
        residual(&mut x, &linear(&layer.down, &wide)?);
        norm(&layer.norm, &mut x)?;
    }
    let tokens = x.len() / hidden;
    Tensor::from_vec(x, (tokens, hidden), &encoder.device)
}

fn embed(encoder: &Encoder, sequences: &[&[u32]]) -> Result<Vec<f32>> {
    let (words, positions) = (floats(&encoder.words)?, floats(&encoder.positions)?);
    let hidden = encoder.words.dim(1)?;
    let mut x = Vec::with_capacity(sequences.iter().map(|s| s.len()).sum::<usize>() * hidden);
    for sequence in sequences {
        for (place, &id) in sequence.iter().enumerate() {
            let word = words.chunks_exact(hidden).nth(id as usize);
            let position = positions.chunks_exact(hidden).nth(place);
            let (Some(word), Some(position)) = (word, position) else {
                candle_core::bail!("token {id} at place {place} is beyond the model's tables");
            };
            x.extend(
                word.iter()
                    .zip(position)
                    .map(|(word, position)| word + position),
            );
        }
    }
    Ok(x)
}

/// x Wᵀ + bias, row by row.
fn linear(layer: &Linear, x: &[f32]) -> Result<Vec<f32>> {
    let (weight, bias) = (floats(&layer.weight)?, floats(&layer.bias)?);
    let (out, input) = layer.weight.dims2()?;
    let n = x.len() / input;
    let mut y = bias.repeat(n);
    let weight = Matrix::rows(&weight, out, input, input).transposed();
    multiply(Matrix::rows(x, n, input, input), weight, &mut y, out, true);
    Ok(y)
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
fn attention(qkv: &[f32], sequences: &[&[u32]], heads: usize, hidden: usize) -> Vec<f32> {
    let (width, d) = (3 * hidden, hidden / heads);
    let mut out = vec![0.0; qkv.len() / 3];
    let longest = sequences.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut weights = vec![0.0; longest * longest];
    let mut start = 0;
    for n in sequences.iter().map(|s| s.len()) {
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
