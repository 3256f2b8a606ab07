//! The packed layout: panels of 48 outputs, each a row of records of 256 inputs.
//!
//! A vector holds 16 outputs (a *part* of the panel) by 4 consecutive inputs (a *step*), so that one 4-byte piece of an
//! activation row multiplies 16 outputs at once. Codes fill lines of 64 bytes; each block of 32 inputs (8 steps) has
//! - for 4, 5 or 6 bits: 12 lines of nibbles, line `3 s + part` with step `2 s` low and step `2 s + 1` high;
//!   for 5 bits: 3 more lines, one a part, whose bit `i` is bit 4 of step `i`;
//!   for 6 bits: 6 more lines, line `3 p + part`, whose bits `2 i` and `2 i + 1` are bits 4 and 5 of step `4 p + i`;
//! - for 8 bits: 24 lines, line `3 step + part`.
//!
//! Scales fill runs of 48 bytes, an output a byte ([`Family`]).

/// Outputs of a vector.
pub(super) const LANES: usize = 16;
/// Vectors of a panel. With 3 by 4 rows of activations, sums fill the registers of AVX-512 and loads are fewest: 7 for 12
/// products, where 2 by 6 take 8 and are bound by them.
pub(super) const PARTS: usize = 3;
/// Outputs of a panel.
pub(super) const PANEL: usize = PARTS * LANES;
/// Inputs of a record: a block of the K types. The last record of a row may hold fewer blocks.
pub(super) const GROUP: usize = 256;
/// Inputs that share a scale in the older types, and a minimum in the K types.
pub(super) const BLOCK: usize = 32;
/// Steps of 4 inputs in a block.
pub(super) const STEPS: usize = BLOCK / 4;
/// Blocks of a full record.
pub(super) const BLOCKS: usize = GROUP / BLOCK;

/// A vector in memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u8; 64]);

/// The vectors of a panel for one step.
pub(super) type Lines = [Line; PARTS];

/// A byte an output.
pub(super) type Run = [u8; PANEL];

impl Line {
    pub(super) const ZERO: Self = Self([0; 64]);
}

/// How a record's codes become weights, and in which runs its scales lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Q4_K, Q5_K: `d·scale·code - dmin·min`, 6-bit scale and minimum a block, f16 `d` and `dmin` a record.
    /// 8 runs: low 4 bits of scale and (high nibble) minimum, by block; 4 runs: their bits 4 and 5, for two blocks a byte;
    /// 2 runs of `d`; 2 runs of `dmin`.
    GroupMin,
    /// Q6_K: `d·scale·(code - 32)`, signed 8-bit scale every 16 inputs, f16 `d` a record. 16 runs of scales; 2 runs of `d`.
    Group,
    /// Q4_0, Q5_0, Q8_0: `d·(code - centre)`, f16 `d` a block. 2 runs of `d` a block.
    Block,
    /// Q4_1, Q5_1: `d·code + min`, f16 both, a block. 2 runs of `d`, then 2 of minima, a block.
    BlockMin,
}

/// What a kernel must know of a type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Width of a code.
    pub bits: usize,
    /// The code of a zero weight.
    pub centre: i32,
    pub family: Family,
}

impl Layout {
    /// Lines of one block's codes.
    pub(super) const fn block_lines(self) -> usize {
        self.bits * BLOCK * PANEL / (8 * 64)
    }

    /// Lines of the codes and runs of the scales of `blocks` blocks, in full records where the family has them.
    pub(super) const fn extent(self, blocks: usize) -> (usize, usize) {
        let runs = match self.family {
            Family::GroupMin => 16 * (blocks / BLOCKS),
            Family::Group => 18 * (blocks / BLOCKS),
            Family::Block => 2 * blocks,
            Family::BlockMin => 4 * blocks,
        };
        (blocks * self.block_lines(), runs)
    }

    /// Whether activations share a scale over a whole record, as the integer scales of the K types need.
    pub(super) const fn by_group(self) -> bool {
        matches!(self.family, Family::GroupMin | Family::Group)
    }
}
