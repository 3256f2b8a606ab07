//! ggml's `dequantize_row_*` and activation quantisation, written a second time and plainly.

use crate::quant::Kind;
use half::f16;

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// splitmix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In 0 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Mean 0, variance 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}

pub fn f16_bits(value: f32) -> u16 {
    f16::from_f32(value).to_bits()
}

/// Where a block has its f16 fields.
pub fn halves(kind: Kind) -> &'static [usize] {
    match kind {
        Kind::Q4_0 | Kind::Q5_0 | Kind::Q8_0 => &[0],
        Kind::Q4_1 | Kind::Q5_1 | Kind::Q4_K | Kind::Q5_K => &[0, 2],
        Kind::Q6_K => &[208],
    }
}

pub fn dequantize(kind: Kind, row: &[u8]) -> Vec<f32> {
    row.chunks_exact(kind.block_bytes())
        .flat_map(|block| dequantize_block(kind, block))
        .collect()
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn dequantize_block(kind: Kind, b: &[u8]) -> Vec<f32> {
    let d = half(b, halves(kind)[0]);
    let fifth = |mask: &[u8], i: usize| (mask[i / 8] >> (i % 8) & 1) << 4;
    let nibble = |q: &[u8], i: usize| if i < 16 { q[i] & 15 } else { q[i - 16] >> 4 };
    let value = |i: usize| match kind {
        Kind::Q4_0 => d * (f32::from(nibble(&b[2..], i)) - 8.0),
        Kind::Q4_1 => d * f32::from(nibble(&b[4..], i)) + half(b, 2),
        Kind::Q5_0 => d * (f32::from(nibble(&b[6..], i) | fifth(&b[2..6], i)) - 16.0),
        Kind::Q5_1 => d * f32::from(nibble(&b[8..], i) | fifth(&b[4..8], i)) + half(b, 2),
        Kind::Q8_0 => d * f32::from(b[2 + i] as i8),
        Kind::Q4_K | Kind::Q5_K => {
            let (scale, min) = scale_min_k4(i / 32, &b[4..16]);
            let qs = if kind == Kind::Q4_K {
                &b[16..]
            } else {
                &b[48..]
            };
            let byte = qs[i / 64 * 32 + i % 32];
            let mut q = if i % 64 < 32 { byte & 15 } else { byte >> 4 };
            if kind == Kind::Q5_K && b[16 + i % 32] & 1 << (i / 32) != 0 {
                q += 16;
            }
            d * f32::from(scale) * f32::from(q) - half(b, 2) * f32::from(min)
        }
        Kind::Q6_K => {
            let (n, l) = (i / 128, i % 32);
            let (ql, qh) = (&b[n * 64..], b[128 + n * 32 + l]);
            let q = match i % 128 / 32 {
                0 => ql[l] & 15 | (qh & 3) << 4,
                1 => ql[l + 32] & 15 | (qh >> 2 & 3) << 4,
                2 => ql[l] >> 4 | (qh >> 4 & 3) << 4,
                _ => ql[l + 32] >> 4 | (qh >> 6 & 3) << 4,
            };
            d * f32::from(b[192 + i / 16] as i8) * (f32::from(q) - 32.0)
        }
    };
    (0..kind.block()).map(value).collect()
}

fn scale_min_k4(j: usize, q: &[u8]) -> (u8, u8) {
    if j < 4 {
        (q[j] & 63, q[j + 4] & 63)
    } else {
        (
            q[j + 4] & 15 | q[j - 4] >> 6 << 4,
            q[j + 4] >> 4 | q[j] >> 6 << 4,
        )
    }
}

/// Activations after quantisation: a scale every 32 inputs, or every 256 with the bound on neighbouring magnitudes.
pub fn quantized(kind: Kind, x: &[f32], input: usize) -> Vec<f64> {
    let width = kind.block();
    let codes = |x: &[f32], scale: f32| -> Vec<f32> {
        let inverse = if scale > f32::MIN_POSITIVE {
            1.0 / scale
        } else {
            0.0
        };
        x.iter().map(|x| (x * inverse).round_ties_even()).collect()
    };
    let block = |x: &[f32]| -> Vec<f64> {
        let mut scale = x.iter().fold(0.0, |most: f32, x| most.max(x.abs())) / 127.0;
        let mut quantized = codes(x, scale);
        let most = quantized
            .chunks(16)
            .map(|x| x.iter().map(|x| x.abs()).sum())
            .fold(0.0, f32::max);
        if width == 256 && most > 1023.0 {
            scale *= (most + 8.0) / 1014.0;
            quantized = codes(x, scale);
        }
        quantized
            .iter()
            .map(|&code| f64::from(code) * f64::from(scale))
            .collect()
    };
    x.chunks(input)
        .flat_map(|row| row.chunks(width))
        .flat_map(block)
        .collect()
}
