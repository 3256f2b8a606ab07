//! Matrix products: panels of outputs over threads, rows in the cache, records in order.

use rayon::prelude::*;

use super::activations::{Activations, Form, Sides};
use super::kernel::Cells;
use super::lanes::{Choose, Floats, Lanes, Path};
use super::layout::{Line, PANEL};
use super::pack::Quantized;
use super::unpack::{Panel, SpreadCodes, SpreadScales};

/// Rows that go by a spread panel at a time: their sums and a record of theirs stay in the caches.
const CHUNK: usize = 128;

/// Multiplies the same rows by several matrices, all in one go over rayon's current threads.
///
/// For each `(w, y)`, `y[row, o] = Σ x[row, i] w[o, i]`; `y` is `[n, out]` and is overwritten.
///
/// # Panics
/// When a matrix takes rows of another length, or a `y` does not hold its product.
pub fn project<'a>(x: &Activations, products: &mut [(&'a Quantized, &'a mut [f32])]) {
    project_on(Path::best(), x, products);
}

/// [`project`] on the given instruction set, or on the portable one where the processor lacks it. The bits are the same.
pub fn project_on<'a>(
    path: Path,
    x: &Activations,
    products: &mut [(&'a Quantized, &'a mut [f32])],
) {
    path.choose(Project { x, products });
}

impl Quantized {
    /// Multiplies `x`, `[n, input]`, into `y`, `[n, out]`; [`project`] with one matrix.
    ///
    /// # Panics
    /// When `x` or `y` is no whole number of rows or they differ in it.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        project(&Activations::new(x, self.input()), &mut [(self, y)]);
    }
}

struct Project<'a, 'b> {
    x: &'a Activations<'a>,
    products: &'a mut [(&'b Quantized, &'b mut [f32])],
}

/// Panels of one matrix for one thread, and the columns of the product that they fill.
struct Run<'a> {
    matrix: &'a Quantized,
    form: &'a Form,
    sides: &'a [Sides],
    first: usize,
    columns: Vec<&'a mut [f32]>,
}

impl Choose for Project<'_, '_> {
    type Output = ();

    fn on<L: Lanes>(self, lanes: L) {
        let n = self.x.rows();
        if n == 0 {
            return;
        }
        // Several runs a thread, so that one which another process holds up leaves its share to the others.
        let panels: usize = self
            .products
            .iter()
            .map(|(matrix, _)| matrix.panels())
            .sum();
        let panels = panels.div_ceil(8 * rayon::current_num_threads()).max(1);
        let mut runs = Vec::new();
        for (matrix, y) in &mut *self.products {
            assert_eq!(
                (self.x.input(), n * matrix.out()),
                (matrix.input(), y.len()),
                "input and product of a matrix"
            );
            let form = self.x.form(lanes, matrix.layout());
            let sides = form.sides(matrix.layout());
            for (at, columns) in columns(y, matrix.out(), panels * PANEL)
                .into_iter()
                .enumerate()
            {
                runs.push(Run {
                    matrix,
                    form,
                    sides,
                    first: at * panels,
                    columns,
                });
            }
        }
        runs.into_par_iter().for_each(|run| run.compute(lanes));
    }
}

/// Cuts the rows of `y` into pieces of `width` columns.
fn columns(y: &mut [f32], out: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    let mut pieces: Vec<Vec<_>> = (0..out.div_ceil(width))
        .map(|_| Vec::with_capacity(y.len() / out))
        .collect();
    for row in y.chunks_exact_mut(out) {
        for (piece, columns) in pieces.iter_mut().zip(row.chunks_mut(width)) {
            piece.push(columns);
        }
    }
    pieces
}

impl Run<'_> {
    fn compute<L: Lanes>(mut self, lanes: L) {
        let n = self.columns.len();
        let mut panel = Panel::ZERO;
        let mut sums = [Floats::ZERO; CHUNK];
        for start in (0..n).step_by(CHUNK) {
            let sums = &mut sums[..CHUNK.min(n - start)];
            for at in 0..self.columns[0].len().div_ceil(PANEL) {
                sums.fill(Floats::ZERO);
                self.panel(lanes, self.first + at, start, &mut panel, sums);
                for (sums, row) in sums.iter().zip(&mut self.columns[start..]) {
                    let width = PANEL.min(row.len() - at * PANEL);
                    row[at * PANEL..][..width].copy_from_slice(&sums.0[..width]);
                }
            }
        }
    }

    /// Sums of the rows from `start` over the inputs of one panel.
    fn panel<L: Lanes>(
        &self,
        lanes: L,
        at: usize,
        start: usize,
        panel: &mut Panel,
        sums: &mut [Floats],
    ) {
        let (layout, n, place) = (
            self.matrix.layout(),
            self.columns.len(),
            (at - self.first) * PANEL,
        );
        let batches = sums.len().div_ceil(L::ROWS);
        for (record, (codes, scales)) in self.matrix.records(at).enumerate() {
            let codes = codes.as_chunks().0;
            // Spread codes pay from the second batch on.
            let spread = batches > 1 && layout.bits < 8;
            let mut ahead =
                Shares::of(self.matrix.after(at, record), batches + usize::from(spread));
            lanes.vectorize(SpreadScales {
                layout,
                scales,
                panel,
            });
            if spread {
                lanes.vectorize(SpreadCodes {
                    layout,
                    codes,
                    panel,
                    ahead: ahead.next(),
                });
            }
            let mut row = 0;
            for batch in 0..batches {
                // As even as can be: two batches of 3 keep the processor busier than one of 4 and one of 2.
                let end = sums.len() * (batch + 1) / batches;
                if record == 0 {
                    // The rows of the product lie far apart; to wait for each when the sums are done would cost a tenth.
                    for row in &self.columns[start + row..start + end] {
                        let width = PANEL.min(row.len() - place);
                        (0..width)
                            .step_by(16)
                            .for_each(|at| lanes.prefetch(&row[place + at], 0));
                    }
                }
                let cells = record * n + start + row..record * n + start + end;
                lanes.multiply(Cells {
                    layout,
                    bits: if spread { 8 } else { layout.bits },
                    panel,
                    weights: if spread { &panel.codes } else { codes },
                    blocks: codes.len() / layout.bits,
                    codes: &self.form.codes[cells.clone()],
                    scales: &self.form.scales[cells.clone()],
                    sides: &self.sides[cells],
                    sums: &mut sums[row..end],
                    ahead: ahead.next(),
                });
                row = end;
            }
        }
    }
}

/// Lines to be asked for, dealt out evenly.
struct Shares<'a> {
    lines: &'a [Line],
    share: usize,
}

impl<'a> Shares<'a> {
    fn of(lines: &'a [Line], shares: usize) -> Self {
        Self {
            lines,
            share: lines.len().div_ceil(shares),
        }
    }

    fn next(&mut self) -> &'a [Line] {
        let (share, rest) = self.lines.split_at(self.share.min(self.lines.len()));
        self.lines = rest;
        share
    }
}
