//! A record of a panel, spread from the packed layout to what the kernels load.

use super::lanes::{Floats, Lanes, Task};
use super::layout::{BLOCKS, Family, GROUP, Layout, Line, Lines, PARTS, Run, STEPS};

/// A record as the kernels read it: about 18 KB, which stay in the first-level cache while rows pass.
pub(super) struct Panel {
    /// Unsigned codes of 4 inputs a lane, by step.
    pub codes: [Lines; GROUP / 4],
    /// Integer scales: 16 bits signed, above them zeros.
    pub scales: [Lines; 16],
    /// Integer minima of two blocks a lane.
    pub mins: [Lines; BLOCKS / 2],
    /// Float scales, by block or for the record.
    pub d: [Floats; BLOCKS],
    /// Float minima, likewise.
    pub m: [Floats; BLOCKS],
}

impl Panel {
    pub(super) const ZERO: Self = Self {
        codes: [[Line::ZERO; PARTS]; GROUP / 4],
        scales: [[Line::ZERO; PARTS]; 16],
        mins: [[Line::ZERO; PARTS]; BLOCKS / 2],
        d: [Floats::ZERO; BLOCKS],
        m: [Floats::ZERO; BLOCKS],
    };
}

/// Asks for the `part`-th of `parts` shares of `lines`. Spread over the work, it hides the memory's latency; all at once, it
/// would wait for it.
#[inline(always)]
pub(super) fn prefetch<L: Lanes>(l: L, lines: &[Line], part: usize, parts: usize) {
    let (mut at, end) = (lines.len() * part / parts, lines.len() * (part + 1) / parts);
    while at < end {
        l.prefetch(&lines[at], 0);
        at += 1;
    }
}

/// The low nibble of every byte.
const LOW: i32 = 0x0f0f_0f0f;

/// Spreads a record's codes into `panel`.
pub(super) struct SpreadCodes<'a> {
    pub layout: Layout,
    pub codes: &'a [Lines],
    pub panel: &'a mut Panel,
    /// Lines to be asked for meanwhile.
    pub ahead: &'a [Line],
}

impl Task for SpreadCodes<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self {
            layout,
            codes,
            panel,
            ahead,
        } = self;
        match layout.bits {
            4 => spread_all::<L, 4>(l, codes, ahead, &mut panel.codes),
            5 => spread_all::<L, 5>(l, codes, ahead, &mut panel.codes),
            6 => spread_all::<L, 6>(l, codes, ahead, &mut panel.codes),
            bits => unreachable!("{bits} bits are spread as they are"),
        }
    }
}

/// Spreads a record's scales into `panel`.
pub(super) struct SpreadScales<'a> {
    pub layout: Layout,
    pub scales: &'a [Run],
    pub panel: &'a mut Panel,
}

impl Task for SpreadScales<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self {
            layout,
            scales,
            panel,
        } = self;
        match layout.family {
            Family::GroupMin => group_min(l, scales, panel),
            Family::Group => group(l, scales, panel),
            Family::Block => {
                for (runs, d) in scales.as_chunks().0.iter().zip(&mut panel.d) {
                    l.store_floats(l.widen_halves(runs), d);
                }
            }
            Family::BlockMin => {
                for ((runs, d), m) in scales
                    .as_chunks()
                    .0
                    .chunks_exact(2)
                    .zip(&mut panel.d)
                    .zip(&mut panel.m)
                {
                    l.store_floats(l.widen_halves(&runs[0]), d);
                    l.store_floats(l.widen_halves(&runs[1]), m);
                }
            }
        }
    }
}

/// Spreads codes of `BITS` bits to `codes`.
#[inline(always)]
fn spread_all<L: Lanes, const BITS: usize>(
    l: L,
    lines: &[Lines],
    ahead: &[Line],
    codes: &mut [Lines; GROUP / 4],
) {
    for (block, (lines, codes)) in lines
        .chunks_exact(BITS)
        .zip(codes.as_chunks_mut::<STEPS>().0)
        .enumerate()
    {
        prefetch(l, ahead, block, BLOCKS);
        for (step, code) in codes.iter_mut().enumerate() {
            l.store(spread::<L, BITS>(l, lines, step), code);
        }
    }
}

/// The codes of a step of the block `lines`, a byte each.
#[inline(always)]
pub(super) fn spread<L: Lanes, const BITS: usize>(l: L, lines: &[Lines], step: usize) -> L::Ints {
    if BITS == 8 {
        return l.load(&lines[step]);
    }
    let at = step as i32;
    let nibble = l.and(l.shr(l.load(&lines[step / 2]), at % 2 * 4), LOW);
    match BITS {
        5 => l.or(
            nibble,
            l.and(moved(l, l.load(&lines[4]), at, 4), (LOW / 15) << 4),
        ),
        6 => l.or(
            nibble,
            l.and(
                moved(l, l.load(&lines[4 + step / 4]), at % 4 * 2, 4),
                (LOW / 5) << 4,
            ),
        ),
        _ => nibble,
    }
}

/// Brings the bits from `at` of every byte to bit `to`; what crosses bytes is for the caller to mask.
#[inline(always)]
fn moved<L: Lanes>(l: L, a: L::Ints, at: i32, to: i32) -> L::Ints {
    if at < to {
        l.shl(a, to - at)
    } else {
        l.shr(a, at - to)
    }
}

/// The low 4 bits of `low`, and above them 2 bits of `high` from `at`.
#[inline(always)]
fn joined<L: Lanes>(l: L, low: L::Ints, high: L::Ints, at: i32) -> L::Ints {
    l.or(l.and(low, 15), l.and(moved(l, high, at, 4), 3 << 4))
}

#[inline(always)]
fn group_min<L: Lanes>(l: L, runs: &[Run], panel: &mut Panel) {
    for pair in 0..BLOCKS / 2 {
        let high = l.widen_unsigned(&runs[BLOCKS + pair]);
        let (first, second) = (
            l.widen_unsigned(&runs[2 * pair]),
            l.widen_unsigned(&runs[2 * pair + 1]),
        );
        l.store(joined(l, first, high, 0), &mut panel.scales[2 * pair]);
        l.store(joined(l, second, high, 4), &mut panel.scales[2 * pair + 1]);
        let first = joined(l, l.shr(first, 4), high, 2);
        let second = joined(l, l.shr(second, 4), high, 6);
        l.store(l.or(first, l.shl(second, 16)), &mut panel.mins[pair]);
    }
    let halves = runs[12..].as_chunks().0;
    l.store_floats(l.widen_halves(&halves[0]), &mut panel.d[0]);
    l.store_floats(l.widen_halves(&halves[1]), &mut panel.m[0]);
}

#[inline(always)]
fn group<L: Lanes>(l: L, runs: &[Run], panel: &mut Panel) {
    for (run, scale) in runs.iter().zip(&mut panel.scales) {
        l.store(l.and(l.widen_signed(run), 0xffff), scale);
    }
    l.store_floats(
        l.widen_halves(&runs[16..].as_chunks().0[0]),
        &mut panel.d[0],
    );
}
