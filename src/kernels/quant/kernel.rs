//! A few rows of activations by the 48 outputs of a panel, over the inputs of one record.

// One index walks several arrays of registers, and closures would not be compiled for the instruction set.
#![allow(clippy::needless_range_loop)]

use std::hint::black_box;

use super::activations::{Bytes, Sides};
use super::lanes::{Floats, Lanes, Task};
use super::layout::{BLOCKS, Family, Layout, Line, Lines, STEPS};
use super::unpack::{Panel, prefetch, spread};

/// `R` rows over one record.
pub(super) struct Rows<'a, const R: usize> {
    pub codes: &'a [Bytes; R],
    /// Codes of the weights, `BITS` wide; spread ones are 8 wide.
    pub weights: &'a [Lines],
    pub scales: &'a [[f32; BLOCKS]; R],
    pub sides: &'a [Sides; R],
    /// Sums by output, added to.
    pub sums: &'a mut [Floats; R],
    /// Lines to be asked for meanwhile.
    pub ahead: &'a [Line],
}

/// Types with integer scales: a block's sum is taken in `PER` parts, so small that each fits 16 bits and one instruction
/// multiplies it by its scale and adds it to those before. See [`Activations`](super::Activations) for why they fit.
pub(super) struct Grouped<'a, const R: usize, const BITS: usize, const PER: usize, const MIN: bool>
{
    pub panel: &'a Panel,
    pub rows: Rows<'a, R>,
}

impl<const R: usize, const BITS: usize, const PER: usize, const MIN: bool> Task
    for Grouped<'_, R, BITS, PER, MIN>
{
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self { panel, rows } = self;
        let mut scaled = [l.splat(0); R];
        for part in 0..BLOCKS * PER {
            prefetch(l, rows.ahead, part, BLOCKS * PER);
            let mut dots = [l.splat(0); R];
            if !MIN {
                for r in 0..R {
                    dots[r] = l.splat(rows.sides[r].0[part]);
                }
            }
            add_products::<L, R, BITS, PER, false>(l, &rows, part, &mut dots);
            let scale = l.load(&panel.scales[if MIN { part / PER } else { part }]);
            for r in 0..R {
                scaled[r] = l.dot2(scaled[r], dots[r], scale);
            }
        }
        let mut mins = [l.splat(0); R];
        if MIN {
            // The length is hidden from the compiler, which would unroll the loop and split each product into two.
            for (pair, min) in black_box(panel.mins.as_slice()).iter().enumerate() {
                let min = l.load(min);
                for r in 0..R {
                    mins[r] = l.dot2(mins[r], min, l.splat(rows.sides[r].0[pair % 16]));
                }
            }
        }
        let (d, m) = (l.load_floats(&panel.d[0]), l.load_floats(&panel.m[0]));
        for r in 0..R {
            let mut sum = l.mul(l.to_floats(scaled[r]), d);
            if MIN {
                sum = l.neg_mul_add(l.to_floats(mins[r]), m, sum);
            }
            let before = l.load_floats(&rows.sums[r]);
            l.store_floats(
                l.mul_add(sum, l.splat_float(rows.scales[r][0]), before),
                &mut rows.sums[r],
            );
        }
    }
}

/// Types with a float scale a block; activations have one too.
pub(super) struct Blocked<'a, const R: usize, const BITS: usize, const WIDE: bool, const MIN: bool>
{
    pub panel: &'a Panel,
    pub blocks: usize,
    pub rows: Rows<'a, R>,
}

impl<const R: usize, const BITS: usize, const WIDE: bool, const MIN: bool> Task
    for Blocked<'_, R, BITS, WIDE, MIN>
{
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self {
            panel,
            blocks,
            rows,
        } = self;
        let mut sums = [l.splat_float(0.0); R];
        for r in 0..R {
            sums[r] = l.load_floats(&rows.sums[r]);
        }
        for block in 0..blocks.min(BLOCKS) {
            prefetch(l, rows.ahead, block, BLOCKS);
            let mut dots = [l.splat(0); R];
            if !MIN {
                for r in 0..R {
                    dots[r] = l.splat(rows.sides[r].0[block]);
                }
            }
            add_products::<L, R, BITS, 1, WIDE>(l, &rows, block, &mut dots);
            let (d, m) = (
                l.load_floats(&panel.d[block]),
                l.load_floats(&panel.m[block]),
            );
            for r in 0..R {
                let scale = l.mul(d, l.splat_float(rows.scales[r][block]));
                sums[r] = l.mul_add(l.to_floats(dots[r]), scale, sums[r]);
                if MIN {
                    let total = f32::from_bits(rows.sides[r].0[block] as u32);
                    sums[r] = l.mul_add(m, l.splat_float(total), sums[r]);
                }
            }
        }
        for r in 0..R {
            l.store_floats(sums[r], &mut rows.sums[r]);
        }
    }
}

/// Adds the products of every row over the `part`-th 8 steps, or over the `part`-th 4 when blocks have two parts.
#[inline(always)]
fn add_products<L: Lanes, const R: usize, const BITS: usize, const PER: usize, const WIDE: bool>(
    l: L,
    rows: &Rows<R>,
    part: usize,
    dots: &mut [L::Ints; R],
) {
    let weights = &rows.weights[part / PER * BITS..][..BITS];
    for step in 0..STEPS / PER {
        // Narrow codes need a constant place in the block in each arm, for their shifts to be constants too.
        let weights = if BITS == 8 {
            spread::<L, BITS>(l, weights, part % PER * STEPS / PER + step)
        } else if part.is_multiple_of(PER) {
            spread::<L, BITS>(l, weights, step)
        } else {
            spread::<L, BITS>(l, weights, STEPS / 2 + step)
        };
        for r in 0..R {
            let four = i32::from_le_bytes(
                rows.codes[r].0[part * STEPS / PER + step].map(|code| code as u8),
            );
            dots[r] = l.dot4::<WIDE>(dots[r], weights, l.splat(four));
        }
    }
}

/// Up to [`Lanes::ROWS`] rows over one record.
pub(super) struct Cells<'a> {
    pub layout: Layout,
    /// Width of the codes in `weights`.
    pub bits: usize,
    pub weights: &'a [Lines],
    pub panel: &'a Panel,
    pub blocks: usize,
    pub codes: &'a [Bytes],
    pub scales: &'a [[f32; BLOCKS]],
    pub sides: &'a [Sides],
    pub sums: &'a mut [Floats],
    pub ahead: &'a [Line],
}

impl Cells<'_> {
    /// Adds the products of `R` rows.
    pub(super) fn multiply<L: Lanes, const R: usize>(self, l: L) {
        let Self {
            layout,
            panel,
            blocks,
            weights,
            ahead,
            ..
        } = self;
        let rows = Rows::<R> {
            codes: self.codes.as_array().expect("R rows"),
            weights,
            scales: self.scales.as_array().expect("R rows"),
            sides: self.sides.as_array().expect("R rows"),
            sums: self.sums.as_mut_array().expect("R rows"),
            ahead,
        };
        match (layout.family, layout.bits, self.bits) {
            (Family::GroupMin, 4, 4) => l.vectorize(Grouped::<R, 4, 1, true> { panel, rows }),
            (Family::GroupMin, 4, _) => l.vectorize(Grouped::<R, 8, 1, true> { panel, rows }),
            (Family::GroupMin, _, 5) => l.vectorize(Grouped::<R, 5, 2, true> { panel, rows }),
            (Family::GroupMin, _, _) => l.vectorize(Grouped::<R, 8, 2, true> { panel, rows }),
            (Family::Group, _, 6) => l.vectorize(Grouped::<R, 6, 2, false> { panel, rows }),
            (Family::Group, _, _) => l.vectorize(Grouped::<R, 8, 2, false> { panel, rows }),
            (Family::Block, 8, _) => l.vectorize(Blocked::<R, 8, true, false> {
                panel,
                blocks,
                rows,
            }),
            (Family::Block, _, 4) => l.vectorize(Blocked::<R, 4, false, false> {
                panel,
                blocks,
                rows,
            }),
            (Family::Block, _, 5) => l.vectorize(Blocked::<R, 5, false, false> {
                panel,
                blocks,
                rows,
            }),
            (Family::Block, _, _) => l.vectorize(Blocked::<R, 8, false, false> {
                panel,
                blocks,
                rows,
            }),
            (Family::BlockMin, _, 4) => l.vectorize(Blocked::<R, 4, false, true> {
                panel,
                blocks,
                rows,
            }),
            (Family::BlockMin, _, 5) => l.vectorize(Blocked::<R, 5, false, true> {
                panel,
                blocks,
                rows,
            }),
            (Family::BlockMin, _, _) => l.vectorize(Blocked::<R, 8, false, true> {
                panel,
                blocks,
                rows,
            }),
        }
    }
}
