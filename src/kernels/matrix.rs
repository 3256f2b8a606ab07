//! Products of f32 matrices that lie in slices, on the calling thread; tensors' own products go over all threads and
//! copy what is not contiguous.

use gemm::{Parallelism, gemm};

/// Below so many rows on the left, the copy that gemm makes of the right takes longer than the product.
pub const FEW: usize = 8;
/// Sums of a product of two rows, each over every so manieth value.
const LANES: usize = 32;

/// A view of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `columns` values that begin `stride` apart.
    ///
    /// # Panics
    /// When `values` are too few.
    pub fn rows(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || columns <= stride && (rows - 1) * stride + columns <= values.len(),
            "{rows} rows of {columns} values, {stride} apart, in {} values",
            values.len()
        );
        Self {
            values,
            rows,
            columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// # Panics
    /// When the matrix ends before.
    pub fn some_rows(self, from: usize, count: usize) -> Self {
        assert!(from + count <= self.rows);
        Self {
            values: &self.values[from * self.row_stride..],
            rows: count,
            ..self
        }
    }

    /// # Panics
    /// When the matrix ends before.
    pub fn some_columns(self, from: usize, count: usize) -> Self {
        self.transposed().some_rows(from, count).transposed()
    }
}

/// Writes a · b into `out`, whose rows begin `stride` apart; or adds it to what is there.
///
/// # Panics
/// When the sizes do not fit.
pub fn multiply(a: Matrix, b: Matrix, out: &mut [f32], stride: usize, add: bool) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "columns of the left and rows of the right");
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        n <= stride && (m - 1) * stride + n <= out.len(),
        "the product does not fit"
    );
    if m < FEW && a.column_stride == 1 && (b.row_stride == 1 || b.column_stride == 1) {
        return multiply_few(a, b, out, stride, add);
    }
    // SAFETY: every element that gemm reads or writes lies inside the slices: a `Matrix` is checked where it is made and
    // narrowed, the output above.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

vectorized! {
    /// [`multiply`] of few rows, which the right's values meet where they lie.
    fn multiply_few<'a>(
        a: Matrix<'a>,
        b: Matrix<'a>,
        out: &'a mut [f32],
        stride: usize,
        add: bool,
    ) -> () {
        let (n, k) = (b.columns, a.columns);
        for i in 0..a.rows {
            let row = &a.values[i * a.row_stride..][..k];
            let out = &mut out[i * stride..][..n];
            if !add {
                out.fill(0.0);
            }
            if b.row_stride == 1 {
                for (j, out) in out.iter_mut().enumerate() {
                    *out += dot(row, &b.values[j * b.column_stride..][..k]);
                }
            } else {
                for (l, &x) in row.iter().enumerate() {
                    let values = &b.values[l * b.row_stride..][..n];
                    out.iter_mut()
                        .zip(values)
                        .for_each(|(out, y)| *out += x * y);
                }
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
    // In halves, so that this too is done in vectors.
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn products_are_those_of_the_definition(
            (m, n, k) in (1usize..12, 1usize..40, 1usize..40),
            pad in 0usize..3,
            add: bool,
            values in prop::collection::vec(-1f32..1.0, 2200),
        ) {
            let a = Matrix::rows(&values[..m * (k + pad)], m, k, k + pad);
            let b = Matrix::rows(&values[500..500 + n * (k + pad)], n, k, k + pad).transposed();
            let mut out = vec![0.5; m * (n + pad)];
            multiply(a, b, &mut out, n + pad, add);
            // The same right side, its rows contiguous.
            let turned: Vec<f32> = (0..k * n).map(|at| values[500 + at % n * (k + pad) + at / n]).collect();
            let mut other = vec![0.5; m * (n + pad)];
            multiply(a, Matrix::rows(&turned, k, n, n), &mut other, n + pad, add);
            prop_assert!(out.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-4));
            for i in 0..m {
                for j in 0..n + pad {
                    let product = |l: usize| values[i * (k + pad) + l] * values[500 + j * (k + pad) + l];
                    let expected = match j < n {
                        true => (0..k).map(product).sum::<f32>() + if add { 0.5 } else { 0.0 },
                        false => 0.5,
                    };
                    prop_assert!((out[i * (n + pad) + j] - expected).abs() < 1e-4);
                }
            }
        }
    }
}
