//! AVX2 with FMA and F16C: six vectors of 8 lanes.

use std::arch::x86_64::*;

use super::{Floats, Lanes, Task};
use crate::quant::kernel::Cells;
use crate::quant::layout::{Lines, Run};

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

/// Applies an intrinsic to all six vectors.
macro_rules! each {
    // SAFETY: `Avx2` exists only where the processor has the features, and loads and stores stay within references to
    // 32 bytes a vector.
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
                {
                    let $i = 3;
                    $e
                },
                {
                    let $i = 4;
                    $e
                },
                {
                    let $i = 5;
                    $e
                },
            ]
        }
    }};
}

impl Lanes for Avx2 {
    type Ints = [__m256i; 6];
    type Floats = [__m256; 6];

    // 6 sums in work and 6 finished ones leave 4 of the 16 registers.
    const ROWS: usize = 1;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<T: Task>(lanes: Avx2, task: T) {
            task.run(lanes);
        }
        // SAFETY: `self` exists only where the processor has the features.
        unsafe { inner(self, task) }
    }

    fn multiply(self, cells: Cells) {
        cells.multiply::<_, 1>(self);
    }

    #[inline(always)]
    fn splat(self, value: i32) -> Self::Ints {
        each!(|_i| _mm256_set1_epi32(value))
    }

    #[inline(always)]
    fn load(self, from: &Lines) -> Self::Ints {
        each!(|i| _mm256_load_si256(from.as_ptr().cast::<__m256i>().add(i)))
    }

    #[inline(always)]
    fn store(self, value: Self::Ints, to: &mut Lines) {
        each!(|i| _mm256_store_si256(to.as_mut_ptr().cast::<__m256i>().add(i), value[i]));
    }

    #[inline(always)]
    fn widen_unsigned(self, bytes: &Run) -> Self::Ints {
        each!(|i| _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().add(8 * i).cast())))
    }

    #[inline(always)]
    fn widen_signed(self, bytes: &Run) -> Self::Ints {
        each!(|i| _mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().add(8 * i).cast())))
    }

    #[inline(always)]
    fn and(self, a: Self::Ints, mask: i32) -> Self::Ints {
        each!(|i| _mm256_and_si256(a[i], _mm256_set1_epi32(mask)))
    }

    #[inline(always)]
    fn or(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        each!(|i| _mm256_or_si256(a[i], b[i]))
    }

    #[inline(always)]
    fn shl(self, a: Self::Ints, bits: i32) -> Self::Ints {
        each!(|i| _mm256_sllv_epi32(a[i], _mm256_set1_epi32(bits)))
    }

    #[inline(always)]
    fn shr(self, a: Self::Ints, bits: i32) -> Self::Ints {
        each!(|i| _mm256_srlv_epi32(a[i], _mm256_set1_epi32(bits)))
    }

    #[inline(always)]
    fn dot4<const WIDE: bool>(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        if !WIDE {
            // Below 128, two products add up to at most 2·127·127 and do not saturate 16 bits.
            return each!(|i| {
                let pairs = _mm256_maddubs_epi16(a[i], b[i]);
                _mm256_add_epi32(sum[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            });
        }
        each!(|i| {
            let even = _mm256_and_si256(a[i], _mm256_set1_epi16(255));
            let even =
                _mm256_madd_epi16(even, _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b[i])));
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a[i]), _mm256_srai_epi16::<8>(b[i]));
            _mm256_add_epi32(sum[i], _mm256_add_epi32(even, odd))
        })
    }

    #[inline(always)]
    fn dot2(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        each!(|i| _mm256_add_epi32(sum[i], _mm256_madd_epi16(a[i], b[i])))
    }

    #[inline(always)]
    fn prefetch<T>(self, from: &T, bytes: usize) {
        // SAFETY: a prefetch reads nothing; any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *from).wrapping_byte_add(bytes).cast()) }
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Ints) -> Self::Floats {
        each!(|i| _mm256_cvtepi32_ps(a[i]))
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> Self::Floats {
        each!(|_i| _mm256_set1_ps(value))
    }

    #[inline(always)]
    fn load_floats(self, from: &Floats) -> Self::Floats {
        each!(|i| _mm256_load_ps(from.0.as_ptr().add(8 * i)))
    }

    #[inline(always)]
    fn store_floats(self, value: Self::Floats, to: &mut Floats) {
        each!(|i| _mm256_store_ps(to.0.as_mut_ptr().add(8 * i), value[i]));
    }

    #[inline(always)]
    fn widen_halves(self, runs: &[Run; 2]) -> Self::Floats {
        each!(|i| _mm256_cvtph_ps(_mm_loadu_si128(
            runs.as_flattened().as_ptr().add(16 * i).cast()
        )))
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each!(|i| _mm256_mul_ps(a[i], b[i]))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each!(|i| _mm256_fmadd_ps(a[i], b[i], c[i]))
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each!(|i| _mm256_fnmadd_ps(a[i], b[i], c[i]))
    }
}
