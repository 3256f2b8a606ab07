//! Plain Rust, which defines what the other paths compute.

use std::array::from_fn;

use half::f16;

use super::{Floats, Lanes, Task};
use crate::quant::kernel::Cells;
use crate::quant::layout::{LANES, Lines, PANEL, Run};

#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Lanes for Portable {
    type Ints = [i32; PANEL];
    type Floats = [f32; PANEL];

    const ROWS: usize = 1;

    fn vectorize<T: Task>(self, task: T) {
        task.run(self);
    }

    fn multiply(self, cells: Cells) {
        cells.multiply::<_, 1>(self);
    }

    #[inline(always)]
    fn splat(self, value: i32) -> Self::Ints {
        [value; PANEL]
    }

    #[inline(always)]
    fn load(self, from: &Lines) -> Self::Ints {
        from_fn(|i| {
            let bytes = &from[i / LANES].0[i % LANES * 4..];
            i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        })
    }

    #[inline(always)]
    fn store(self, value: Self::Ints, to: &mut Lines) {
        for (i, value) in value.into_iter().enumerate() {
            to[i / LANES].0[i % LANES * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
    }

    #[inline(always)]
    fn widen_unsigned(self, bytes: &Run) -> Self::Ints {
        bytes.map(i32::from)
    }

    #[inline(always)]
    fn widen_signed(self, bytes: &Run) -> Self::Ints {
        bytes.map(|byte| i32::from(byte as i8))
    }

    #[inline(always)]
    fn and(self, a: Self::Ints, mask: i32) -> Self::Ints {
        a.map(|a| a & mask)
    }

    #[inline(always)]
    fn or(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn shl(self, a: Self::Ints, bits: i32) -> Self::Ints {
        a.map(|a| a << bits)
    }

    #[inline(always)]
    fn shr(self, a: Self::Ints, bits: i32) -> Self::Ints {
        a.map(|a| ((a as u32) >> bits) as i32)
    }

    #[inline(always)]
    fn dot4<const WIDE: bool>(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        let byte =
            |i: usize, at: u32| ((a[i] >> (8 * at)) & 255) * i32::from((b[i] >> (8 * at)) as i8);
        from_fn(|i| sum[i] + byte(i, 0) + byte(i, 1) + byte(i, 2) + byte(i, 3))
    }

    #[inline(always)]
    fn dot2(self, sum: Self::Ints, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        from_fn(|i| {
            sum[i] + i32::from(a[i] as i16) * i32::from(b[i] as i16) + (a[i] >> 16) * (b[i] >> 16)
        })
    }

    #[inline(always)]
    fn prefetch<T>(self, _from: &T, _bytes: usize) {}

    #[inline(always)]
    fn to_floats(self, a: Self::Ints) -> Self::Floats {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    fn splat_float(self, value: f32) -> Self::Floats {
        [value; PANEL]
    }

    #[inline(always)]
    fn load_floats(self, from: &Floats) -> Self::Floats {
        from.0
    }

    #[inline(always)]
    fn store_floats(self, value: Self::Floats, to: &mut Floats) {
        to.0 = value;
    }

    #[inline(always)]
    fn widen_halves(self, runs: &[Run; 2]) -> Self::Floats {
        let bytes = runs.as_flattened();
        from_fn(|i| f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }
}
