//! 48 lanes of integers or floats, one an output of a panel, on each instruction set.
//!
//! The kernels are written once over [`Lanes`]. Integer operations wrap and are exact; float operations round once, to
//! nearest, a multiplication and its addition together: so every path gives the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use super::kernel::Cells;
use super::layout::{Lines, PANEL, Run};

/// A float a lane.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Floats(pub [f32; PANEL]);

impl Floats {
    pub(super) const ZERO: Self = Self([0.0; PANEL]);
}

/// Work to be compiled for an instruction set.
pub(super) trait Task {
    fn run<L: Lanes>(self, lanes: L);
}

/// The operations of an instruction set. A value is a proof that the processor has it.
///
/// Methods are inlined into [`vectorize`](Self::vectorize), outside of which they are right but slow.
pub(super) trait Lanes: Copy + Send + Sync {
    type Ints: Copy;
    type Floats: Copy;

    /// Rows of activations whose sums fit in the registers.
    const ROWS: usize;

    /// Runs `task` compiled for this instruction set.
    fn vectorize<T: Task>(self, task: T);

    /// Adds the products of up to `ROWS` rows.
    fn multiply(self, cells: Cells);

    fn splat(self, value: i32) -> Self::Ints;
    fn load(self, from: &Lines) -> Self::Ints;
    fn store(self, value: Self::Ints, to: &mut Lines);
    /// Bytes, made integers.
    fn widen_unsigned(self, bytes: &Run) -> Self::Ints;
    fn widen_signed(self, bytes: &Run) -> Self::Ints;
    fn and(self, a: Self::Ints, mask: i32) -> Self::Ints;
    fn or(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    fn shl(self, a: Self::Ints, bits: i32) -> Self::Ints;
    fn shr(self, a: Self::Ints, bits: i32) -> Self::Ints;
    /// Adds the products of 4 unsigned bytes of `a` and 4 signed ones of `b`; without `WIDE`, those of `a` are below 128.
    fn dot4<const WIDE: bool>(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Adds the products of 2 signed 16-bit values of `a` and of `b`.
    fn dot2(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// Starts the way of what lies `bytes` after `from` into the cache; nothing need be there.
    fn prefetch<T>(self, from: &T, bytes: usize);

    fn to_floats(self, a: Self::Ints) -> Self::Floats;
    fn splat_float(self, value: f32) -> Self::Floats;
    fn load_floats(self, from: &Floats) -> Self::Floats;
    fn store_floats(self, value: Self::Floats, to: &mut Floats);
    /// f16, made f32.
    fn widen_halves(self, runs: &[Run; 2]) -> Self::Floats;
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a b + c`, rounded once.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a b`, rounded once.
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
}

/// An instruction set to compute on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// AVX-512 F, BW and VNNI.
    Avx512Vnni,
    /// AVX2, FMA and F16C.
    Avx2,
    /// Any processor.
    Portable,
}

/// Work to be run on whichever instruction set is chosen.
pub(super) trait Choose {
    type Output;
    fn on<L: Lanes>(self, lanes: L) -> Self::Output;
}

impl Path {
    /// The paths that this processor has, fastest first.
    pub fn available() -> Vec<Self> {
        [Self::Avx512Vnni, Self::Avx2, Self::Portable]
            .into_iter()
            .filter(|path| path.exists())
            .collect()
    }

    /// The fastest path of this processor.
    pub fn best() -> Self {
        Self::available()[0]
    }

    fn exists(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => avx512::Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::Avx2::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512Vnni | Self::Avx2 => false,
            Self::Portable => true,
        }
    }

    /// Runs `work` on this path, or on the portable one where the processor lacks it.
    pub(super) fn choose<W: Choose>(self, work: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        {
            if self == Self::Avx512Vnni
                && let Some(lanes) = avx512::Avx512::detect()
            {
                return work.on(lanes);
            }
            if self == Self::Avx2
                && let Some(lanes) = avx2::Avx2::detect()
            {
                return work.on(lanes);
            }
        }
        work.on(portable::Portable)
    }
}
