//! One row's codes and scales over at most 256 inputs, between the file's blocks and the packed panels.
//!
//! Source of the block layouts: `block_q*` and `dequantize_row_q*` of ggml (`ggml-common.h`, `ggml-quants.c`).

use half::f16;

use super::kind::Kind;
use super::layout::{BLOCK, BLOCKS, Family, GROUP, Layout};

/// Codes and scales of one output over the inputs of a record.
#[derive(Clone)]
pub(super) struct Row {
    /// Unsigned codes in the order of the inputs.
    pub codes: [u8; GROUP],
    /// Integer scales: one a block for [`Family::GroupMin`], one every 16 inputs for [`Family::Group`] (as signed bytes).
    pub scales: [u8; 16],
    /// Integer minima of [`Family::GroupMin`].
    pub mins: [u8; BLOCKS],
    /// f16 scales: one a block, or one for the record in the first place.
    pub d: [u16; BLOCKS],
    /// f16 minima, likewise.
    pub m: [u16; BLOCKS],
}

impl Row {
    pub(super) const ZERO: Self = Self {
        codes: [0; GROUP],
        scales: [0; 16],
        mins: [0; BLOCKS],
        d: [0; BLOCKS],
        m: [0; BLOCKS],
    };

    /// Reads the file's blocks of up to 256 inputs.
    pub(super) fn read(kind: Kind, bytes: &[u8]) -> Self {
        let mut row = Self::ZERO;
        for (at, block) in bytes.chunks_exact(kind.block_bytes()).enumerate() {
            match kind {
                Kind::Q4_0 => row.older(at, &block[..2], &[], &[], &block[2..]),
                Kind::Q4_1 => row.older(at, &block[..2], &block[2..4], &[], &block[4..]),
                Kind::Q5_0 => row.older(at, &block[..2], &[], &block[2..6], &block[6..]),
                Kind::Q5_1 => row.older(at, &block[..2], &block[2..4], &block[4..8], &block[8..]),
                Kind::Q8_0 => row.q8_0(at, block),
                Kind::Q4_K => row.q4_k(block, &[], &block[16..]),
                Kind::Q5_K => row.q4_k(block, &block[16..48], &block[48..]),
                Kind::Q6_K => row.q6_k(block),
            }
        }
        row
    }

    /// Q4_0, Q4_1, Q5_0, Q5_1: inputs 0 to 15 in the low nibbles, 16 to 31 in the high ones, fifth bits in a 32-bit mask.
    fn older(&mut self, at: usize, d: &[u8], m: &[u8], high: &[u8], nibbles: &[u8]) {
        self.d[at] = u16_at(d);
        self.m[at] = if m.is_empty() { 0 } else { u16_at(m) };
        let high = high
            .iter()
            .rev()
            .fold(0u32, |mask, &byte| mask << 8 | u32::from(byte));
        let codes = &mut self.codes[at * BLOCK..][..BLOCK];
        for (i, &byte) in nibbles.iter().enumerate() {
            codes[i] = byte & 15 | ((high >> i & 1) << 4) as u8;
            codes[i + 16] = byte >> 4 | ((high >> (i + 16) & 1) << 4) as u8;
        }
    }

    fn q8_0(&mut self, at: usize, block: &[u8]) {
        self.d[at] = u16_at(block);
        for (code, &byte) in self.codes[at * BLOCK..].iter_mut().zip(&block[2..]) {
            *code = byte ^ 0x80;
        }
    }

    /// Q4_K and Q5_K: 64 inputs a run of 32 bytes, the first 32 in the low nibbles; fifth bits in bit `block` of `high`.
    fn q4_k(&mut self, block: &[u8], high: &[u8], nibbles: &[u8]) {
        (self.d[0], self.m[0]) = (u16_at(block), u16_at(&block[2..]));
        let s = &block[4..16];
        for at in 0..4 {
            (self.scales[at], self.mins[at]) = (s[at] & 63, s[at + 4] & 63);
            self.scales[at + 4] = s[at + 8] & 15 | s[at] >> 6 << 4;
            self.mins[at + 4] = s[at + 8] >> 4 | s[at + 4] >> 6 << 4;
        }
        for (run, codes) in self.codes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let (first, second) = codes.split_at_mut(BLOCK);
            for (i, byte) in nibbles[run * BLOCK..][..BLOCK].iter().enumerate() {
                (first[i], second[i]) = (byte & 15, byte >> 4);
            }
            for (i, bits) in high.iter().enumerate() {
                first[i] |= (bits >> (2 * run) & 1) << 4;
                second[i] |= (bits >> (2 * run + 1) & 1) << 4;
            }
        }
    }

    /// Q6_K: each half of 128 inputs has 64 bytes of nibbles and 32 bytes of upper bit pairs.
    fn q6_k(&mut self, block: &[u8]) {
        for (quarter, codes) in self.codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (half, quarter) = (quarter / 4, quarter % 4);
            let low = &block[half * 64 + quarter % 2 * 32..][..32];
            let high = &block[128 + half * 32..][..32];
            for ((code, low), high) in codes.iter_mut().zip(low).zip(high) {
                *code = low >> (quarter / 2 * 4) & 15 | (high >> (2 * quarter) & 3) << 4;
            }
        }
        self.scales.copy_from_slice(&block[192..208]);
        self.d[0] = u16_at(&block[208..]);
    }

    /// The weights, rounded as ggml rounds them.
    pub(super) fn dequantize(&self, layout: Layout, weights: &mut [f32]) {
        for (i, weight) in weights.iter_mut().enumerate() {
            let (at, code) = (i / BLOCK, i32::from(self.codes[i]) - layout.centre);
            let by_group = layout.by_group();
            let d = f16::from_bits(self.d[if by_group { 0 } else { at }]).to_f32();
            let m = f16::from_bits(self.m[if by_group { 0 } else { at }]).to_f32();
            *weight = match layout.family {
                Family::GroupMin => {
                    d * f32::from(self.scales[at]) * code as f32 - m * f32::from(self.mins[at])
                }
                Family::Group => d * f32::from(self.scales[i / 16] as i8) * code as f32,
                Family::Block => d * code as f32,
                Family::BlockMin => d * code as f32 + m,
            };
        }
    }
}

fn u16_at(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}
