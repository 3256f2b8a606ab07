//! Activations quantised to signed bytes, in the order in which the kernels read them.

use std::array::from_fn;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::lanes::{Lanes, Task};
use super::layout::{BLOCK, BLOCKS, Family, GROUP, Layout};

/// A row's codes over a record: 64 steps of 4 inputs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Bytes(pub [[i8; 4]; GROUP / 4]);

/// What else a kernel needs of a row over a record. By family:
/// - [`Family::GroupMin`]: sums of codes, two blocks a value, 16 bits each;
/// - [`Family::Group`], [`Family::Block`]: where the sum of 16 inputs or of a block starts, for codes to count from the centre;
/// - [`Family::BlockMin`]: sums of activations, a block a value, as the bits of a float.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sides(pub [i32; 16]);

/// `n` rows of `input` activations, to be multiplied by any number of matrices.
///
/// They are quantised on first use, to `round(x / scale)` within ±127, as llama.cpp does it:
/// - for Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 weights, with a scale every 32 inputs (its Q8_0, but the scale stays f32);
/// - for the K types, with a scale every 256 (its Q8_K). There the scale is larger than `max |x| / 127` where the
///   magnitudes of 16 neighbouring codes would otherwise add up to more than 1023, that is where they are on average
///   above half of the largest of the 256: their products with codes of up to 31 (or within ±32) then fit 16 bits.
///
/// A scale of rows with NaN or infinities is NaN, and so are their products.
pub struct Activations<'x> {
    x: &'x [f32],
    n: usize,
    input: usize,
    by_group: OnceLock<Form>,
    by_block: OnceLock<Form>,
}

/// One of the two quantised forms. Vectors go by record, then by row.
pub(super) struct Form {
    pub codes: Vec<Bytes>,
    /// Scales by block; by group, the first holds.
    pub scales: Vec<[f32; BLOCKS]>,
    /// Sums of codes, by 16 inputs.
    sums: Vec<[i16; 16]>,
    /// Made on first use.
    sides: [OnceLock<Vec<Sides>>; 4],
}

impl<'x> Activations<'x> {
    /// Rows `x`, `[n, input]`.
    ///
    /// # Panics
    /// When `x` is no whole number of rows, or a row no whole number of blocks of 32.
    pub fn new(x: &'x [f32], input: usize) -> Self {
        assert!(
            input.is_multiple_of(BLOCK) && x.len().is_multiple_of(input),
            "{} values in rows of {input}",
            x.len()
        );
        Self {
            x,
            n: x.len() / input,
            input,
            by_group: OnceLock::new(),
            by_block: OnceLock::new(),
        }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Values of a row.
    pub fn input(&self) -> usize {
        self.input
    }

    /// The form that `layout` multiplies.
    pub(super) fn form<L: Lanes>(&self, lanes: L, layout: Layout) -> &Form {
        if layout.by_group() {
            self.by_group.get_or_init(|| Form::new(self, lanes, true))
        } else {
            self.by_block.get_or_init(|| Form::new(self, lanes, false))
        }
    }
}

impl Form {
    fn new<L: Lanes>(of: &Activations, lanes: L, by_group: bool) -> Self {
        let cells = of.input.div_ceil(GROUP) * of.n;
        let mut form = Self {
            codes: vec![Bytes([[0; 4]; GROUP / 4]); cells],
            scales: vec![[0.0; BLOCKS]; cells],
            sums: vec![[0; 16]; cells],
            sides: [const { OnceLock::new() }; 4],
        };
        // A thread is worth waking for some tens of microseconds.
        const RUN: usize = 256;
        let codes = form.codes.par_chunks_mut(RUN);
        let runs = codes
            .zip(form.scales.par_chunks_mut(RUN))
            .zip(form.sums.par_chunks_mut(RUN))
            .enumerate();
        runs.for_each(|(run, ((codes, scales), sums))| {
            lanes.vectorize(Quantize {
                of,
                by_group,
                first: run * RUN,
                codes,
                scales,
                sums,
            });
        });
        form
    }

    /// What the kernel of `layout`'s family wants to know besides; see [`Sides`].
    pub(super) fn sides(&self, layout: Layout) -> &[Sides] {
        let slot = match (layout.family, layout.centre) {
            (Family::GroupMin, _) | (Family::BlockMin, _) => 0,
            (Family::Group, _) | (Family::Block, 8) => 1,
            (Family::Block, 16) => 2,
            (Family::Block, _) => 3,
        };
        self.sides[slot].get_or_init(|| {
            let cells = self.sums.iter().zip(&self.scales);
            cells
                .map(|(sums, scales)| Sides::new(layout, sums, scales))
                .collect()
        })
    }
}

impl Sides {
    #[inline]
    fn new(layout: Layout, sums: &[i16; 16], scales: &[f32; BLOCKS]) -> Self {
        let blocks: [i16; BLOCKS] = from_fn(|b| sums[2 * b] + sums[2 * b + 1]);
        let mut sides = [0; 16];
        match layout.family {
            Family::GroupMin => {
                for (side, pair) in sides.iter_mut().zip(blocks.as_chunks::<2>().0) {
                    *side = i32::from(pair[0]) & 0xffff | i32::from(pair[1]) << 16;
                }
            }
            Family::Group => sides = sums.map(|sum| -layout.centre * i32::from(sum)),
            Family::Block => {
                for (side, sum) in sides.iter_mut().zip(blocks) {
                    *side = -layout.centre * i32::from(sum);
                }
            }
            Family::BlockMin => {
                for (side, (sum, scale)) in sides.iter_mut().zip(blocks.into_iter().zip(scales)) {
                    *side = (f32::from(sum) * scale).to_bits() as i32;
                }
            }
        }
        Self(sides)
    }
}

/// Cells from `first`, quantised.
struct Quantize<'a> {
    of: &'a Activations<'a>,
    by_group: bool,
    first: usize,
    codes: &'a mut [Bytes],
    scales: &'a mut [[f32; BLOCKS]],
    sums: &'a mut [[i16; 16]],
}

impl Task for Quantize<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let of = self.of;
        for (at, ((codes, scales), sums)) in self
            .codes
            .iter_mut()
            .zip(self.scales)
            .zip(self.sums)
            .enumerate()
        {
            let (record, row) = ((self.first + at) / of.n, (self.first + at) % of.n);
            let x = &of.x[row * of.input..][record * GROUP..of.input.min((record + 1) * GROUP)];
            // A row's next record is far: ask for that of the row after next.
            for at in (0..x.len()).step_by(16) {
                lanes.prefetch(&x[at], 2 * size_of::<f32>() * of.input);
            }
            if self.by_group {
                group(x, codes, scales)
            } else {
                blocks(x, codes, scales)
            }
            for (sum, codes) in sums
                .iter_mut()
                .zip(codes.0.as_flattened().as_chunks::<16>().0)
            {
                let mut total = 0;
                for code in codes {
                    total += i16::from(*code);
                }
                *sum = total;
            }
        }
    }
}

/// Largest code.
const MOST: f32 = 127.0;
/// Largest sum of 16 magnitudes that the K types' kernels bear: 32 times it fits 16 bits.
const LIMIT: i32 = 1023;

/// One scale over the record.
#[inline(always)]
fn group(x: &[f32], codes: &mut Bytes, scales: &mut [f32; BLOCKS]) {
    let codes = codes.0.as_flattened_mut();
    let mut scale = largest(x) / MOST;
    round(x, scale, codes);
    let mut most = 0;
    for codes in codes.as_chunks::<16>().0 {
        let mut sum = 0;
        for code in codes {
            sum += i16::from(*code).abs();
        }
        most = most.max(i32::from(sum));
    }
    if most > LIMIT {
        // Rounding moves each of 16 codes by a half at most, before as after; one more is for that of the scale.
        scale *= (most + 8) as f32 / (LIMIT - 9) as f32;
        round(x, scale, codes);
    }
    scales[0] = scale;
}

/// A scale a block.
#[inline(always)]
fn blocks(x: &[f32], codes: &mut Bytes, scales: &mut [f32; BLOCKS]) {
    let codes = codes.0.as_flattened_mut().as_chunks_mut::<BLOCK>().0;
    for ((x, codes), scale) in x.as_chunks::<BLOCK>().0.iter().zip(codes).zip(scales) {
        *scale = largest(x) / MOST;
        round(x, *scale, codes);
    }
}

/// The largest magnitude; NaN if any value is NaN or infinite.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    // By lane, so that the loop vectorises. Anything but a finite value times zero is NaN, and a NaN stays in a sum.
    let (mut most, mut strange) = ([0f32; 16], [0f32; 16]);
    for x in x.as_chunks::<16>().0 {
        for i in 0..16 {
            most[i] = most[i].max(x[i].abs());
            strange[i] += x[i] * 0.0;
        }
    }
    most.into_iter().fold(0.0, f32::max) + strange.into_iter().sum::<f32>()
}

/// `round(x / scale)`, ties to even; zeros for a scale that is NaN or too small to be inverted.
#[inline(always)]
fn round(x: &[f32], scale: f32, codes: &mut [i8]) {
    // Added to a float of at most 22 bits, this leaves the nearest integer in the low bits of its sum.
    const SHIFT: f32 = 12_582_912.0;
    let inverse = if scale > f32::MIN_POSITIVE {
        1.0 / scale
    } else {
        0.0
    };
    for (x, code) in x.iter().zip(codes) {
        *code = (x * inverse + SHIFT).to_bits() as i8;
    }
}
