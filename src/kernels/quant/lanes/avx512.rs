//! AVX-512 with VNNI: three vectors of 16 lanes.

use std::arch::x86_64::*;

use super::{Floats, Lanes, Task};
use crate::quant::kernel::Cells;
use crate::quant::layout::{Lines, Run};

/// Proof of AVX-512 F, BW and VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Self(()))
    }
}

/// Applies an intrinsic to all three vectors.
macro_rules! each {
    // SAFETY: `Avx512` exists only where the processor has the features, and loads and stores stay within references to
    // 64 bytes a vector.
    (|$i:ident| $e:expr) => {{
        unsafe {
            [
                {
                    let $i = 0;
                    $e
                },
                {
                    let $i = 1;
                    $e
                },
                {
                    let $i = 2;
                    $e
                },
            ]
        }
    }};
}

impl Lanes for Avx512 {
    type Ints = [__m512i; 3];
    type Floats = [__m512; 3];

    // 12 sums in work, 12 finished, 3 vectors of weights and 1 of activations leave 4 of the 32 registers.
    const ROWS: usize = 4;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn inner<T: Task>(lanes: Avx512, task: T) {
            task.run(lanes);
        }
        // SAFETY: `self` exists only where the processor has the features.
        unsafe { inner(self, task) }
    }

    fn multiply(self, cells: Cells) {
        match cells.sums.len() {
            1 => cells.multiply::<_, 1>(self),
            2 => cells.multiply::<_, 2>(self),
            3 => cells.multiply::<_, 3>(self),
            _ => cells.multiply::<_, 4>(self),
        }
    }

    #[inline(always)]
    fn splat(self, value: i32) -> Self::Ints {
        each!(|_i| _mm512_set1_epi32(value))
    }

    #[inline(always)]
    fn load(self, from: &Lines) -> Self::Ints {
        each!(|i| _mm512_load_si512((&raw const from[i]).cast()))
    }

    #[inline(always)]
    fn store(self, value: Self::Ints, to: &mut Lines) {
        each!(|i| _mm512_store_si512((&raw mut to[i]).cast(), value[i]));
    }

    #[inline(always)]
    fn widen_unsigned(self, bytes: &Run) -> Self::Ints {
        each!(|i| _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().add(16 * i).cast())))
    }

    #[inline(always)]
    fn widen_signed(self, bytes: &Run) -> Self::Ints {
        each!(|i| _mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().add(16 * i).cast())))
    }

    #[inline(always)]
    fn and(self, a: Self::Ints, mask: i32) -> Self::Ints {
        each!(|i| _mm512_and_si512(a[i], _mm512_set1_epi32(mask)))
    }

    #[inline(always)]
    fn or(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        each!(|i| _mm512_or_si512(a[i], b[i]))
    }

    #[inline(always)]
    fn shl(self, a: Self::Ints, bits: i32) -> Self::Ints {
        each!(|i| _mm512_sllv_epi32(a[i], _mm512_set1_epi32(bits)))
    }

    #[inline(always)]
    fn shr(self, a: Self::Ints, bits: i32) -> Self::Ints {
        each!(|i| _mm512_srlv_epi32(a[i], _mm512_set1_epi32(bits)))
    }

    #[inline(always)]
    fn dot4<const WIDE: bool>(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        each!(|i| _mm512_dpbusd_epi32(sum[i], a[i], b[i]))
    }

    #[inline(always)]
    fn dot2(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        each!(|i| _mm512_dpwssd_epi32(sum[i], a[i], b[i]))
    }

    #[inline(always)]
    fn prefetch<T>(self, from: &T, bytes: usize) {
        // SAFETY: a prefetch reads nothing; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *from).wrapping_byte_add(bytes).cast()) }
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Ints) -> Self::Floats {
        each!(|i| _mm512_cvtepi32_ps(a[i]))
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> Self::Floats {
        each!(|_i| _mm512_set1_ps(value))
    }

    #[inline(always)]
    fn load_floats(self, from: &Floats) -> Self::Floats {
        each!(|i| _mm512_load_ps(from.0.as_ptr().add(16 * i)))
    }

    #[inline(always)]
    fn store_floats(self, value: Self::Floats, to: &mut Floats) {
        each!(|i| _mm512_store_ps(to.0.as_mut_ptr().add(16 * i), value[i]));
    }

    #[inline(always)]
    fn widen_halves(self, runs: &[Run; 2]) -> Self::Floats {
        each!(|i| _mm512_cvtph_ps(_mm256_loadu_si256(
            runs.as_flattened().as_ptr().add(32 * i).cast()
        )))
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each!(|i| _mm512_mul_ps(a[i], b[i]))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each!(|i| _mm512_fmadd_ps(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each!(|i| _mm512_fnmadd_ps(a[i], b[i], c[i]))
    }
}
