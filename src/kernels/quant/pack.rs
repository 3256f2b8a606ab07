//! Weights repacked from GGUF blocks into panels ([`layout`](super::layout)).

use std::fmt;

use rayon::prelude::*;

use super::block::Row;
use super::kind::{Kind, PackError};
use super::layout::{
    BLOCK, BLOCKS, Family, GROUP, LANES, Layout, Line, Lines, PANEL, PARTS, Run, STEPS,
};

/// A weight matrix `[out, input]` in the kernels' layout, with the codes and scales of the file, unchanged.
pub struct Quantized {
    kind: Kind,
    out: usize,
    input: usize,
    /// Codes by panel, then by record.
    codes: Vec<Line>,
    /// Scales, likewise.
    scales: Vec<Run>,
}

/// A record's codes as bytes, before they are joined: 4 bytes an output, by step.
type Codes = [Lines; GROUP / 4];

impl fmt::Debug for Quantized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} [{}, {}]", self.kind, self.out, self.input)
    }
}

impl Quantized {
    /// Repacks `bytes`, the GGUF blocks of a row-major `[out, input]` matrix; rows that fill the last panel up are zero.
    ///
    /// # Errors
    /// When `input` is no whole number of blocks, or `bytes` is not as long as the matrix.
    pub fn pack(kind: Kind, bytes: &[u8], out: usize, input: usize) -> Result<Self, PackError> {
        let row_bytes = kind.row_bytes(input)?;
        let (expected, found) = (out * row_bytes, bytes.len());
        if expected != found {
            return Err(PackError::Length {
                kind,
                out,
                input,
                expected,
                found,
            });
        }
        let group_bytes = GROUP / kind.block() * kind.block_bytes();
        Ok(Self::of_rows(kind, out, input, |row, group| {
            let row = &bytes[row * row_bytes..][..row_bytes];
            let end = row_bytes.min((group + 1) * group_bytes);
            Row::read(kind, &row[group * group_bytes..end])
        }))
    }

    /// The given rows, in that order, as a matrix of their own.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn take(&self, rows: &[u32]) -> Self {
        let (lines, runs) = self.layout().extent(self.input / BLOCK);
        let (record_lines, record_runs) = self.layout().extent(BLOCKS);
        Self::of_rows(self.kind, rows.len(), self.input, |row, group| {
            let row = rows[row] as usize;
            assert!(row < self.out, "row {row} of {}", self.out);
            let codes = &self.codes[row / PANEL * lines..][..lines][group * record_lines..];
            let scales = &self.scales[row / PANEL * runs..][..runs][group * record_runs..];
            let codes = &codes[..record_lines.min(codes.len())];
            let scales = &scales[..record_runs.min(scales.len())];
            read_record(self.layout(), codes, scales, row % PANEL)
        })
    }

    /// Packs what `row` reads of a row's record.
    fn of_rows(
        kind: Kind,
        out: usize,
        input: usize,
        row: impl Fn(usize, usize) -> Row + Sync,
    ) -> Self {
        let (panels, (lines, runs)) = (out.div_ceil(PANEL), kind.layout().extent(input / BLOCK));
        let (mut codes, mut scales) = (
            vec![Line::ZERO; panels * lines],
            vec![[0; PANEL]; panels * runs],
        );
        let panels = codes.par_chunks_mut(lines).zip(scales.par_chunks_mut(runs));
        panels.enumerate().for_each(|(panel, (codes, scales))| {
            let first = panel * PANEL;
            let rows = PANEL.min(out - first);
            pack_panel(kind, rows, |o, group| row(first + o, group), codes, scales);
        });
        Self {
            kind,
            out,
            input,
            codes,
            scales,
        }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Rows of the matrix: values it produces.
    pub fn out(&self) -> usize {
        self.out
    }

    /// Columns of the matrix: values it takes.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Bytes that one product reads.
    pub fn bytes(&self) -> usize {
        size_of_val(self.codes.as_slice()) + size_of_val(self.scales.as_slice())
    }

    /// Dequantises row `i` into `weights[..input]`.
    ///
    /// # Panics
    /// When there is no row `i` or `weights` is not `input` long.
    pub fn row(&self, i: usize, weights: &mut [f32]) {
        assert!(
            i < self.out && weights.len() == self.input,
            "row {i} of {} into {}",
            self.out,
            weights.len()
        );
        let layout = self.layout();
        for ((codes, scales), weights) in self.records(i / PANEL).zip(weights.chunks_mut(GROUP)) {
            read_record(layout, codes, scales, i % PANEL).dequantize(layout, weights);
        }
    }

    pub(super) fn layout(&self) -> Layout {
        self.kind.layout()
    }

    pub(super) fn panels(&self) -> usize {
        self.out.div_ceil(PANEL)
    }

    /// Codes of the record after the `record`-th of a panel, the next panel's or a shorter one at the end included.
    pub(super) fn after(&self, panel: usize, record: usize) -> &[Line] {
        let (panel_lines, lines) = (
            self.layout().extent(self.input / BLOCK).0,
            self.layout().extent(BLOCKS).0,
        );
        let at = (panel * panel_lines + (record + 1) * lines).min(self.codes.len());
        &self.codes[at..self.codes.len().min(at + lines)]
    }

    /// Codes and scales of the records of a panel.
    pub(super) fn records(&self, panel: usize) -> impl Iterator<Item = (&[Line], &[Run])> {
        let ((lines, runs), record) = (
            self.layout().extent(self.input / BLOCK),
            self.layout().extent(BLOCKS),
        );
        let (codes, scales) = (
            &self.codes[panel * lines..][..lines],
            &self.scales[panel * runs..][..runs],
        );
        codes.chunks(record.0).zip(scales.chunks(record.1))
    }
}

/// Packs 48 rows or fewer.
fn pack_panel(
    kind: Kind,
    rows: usize,
    row: impl Fn(usize, usize) -> Row,
    codes: &mut [Line],
    scales: &mut [Run],
) {
    let layout = kind.layout();
    let (lines, runs) = layout.extent(BLOCKS);
    let mut bytes: Codes = [[Line::ZERO; PARTS]; GROUP / 4];
    for (group, (codes, scales)) in codes
        .chunks_mut(lines)
        .zip(scales.chunks_mut(runs))
        .enumerate()
    {
        for o in 0..rows {
            let row = row(o, group);
            for (step, four) in row.codes.as_chunks::<4>().0.iter().enumerate() {
                bytes[step][o / LANES].0.as_chunks_mut::<4>().0[o % LANES] = *four;
            }
            pack_scales(layout.family, &row, o, scales);
        }
        pack_codes(layout.bits, &bytes, codes);
    }
}

/// Joins codes of a byte each into nibbles and bit planes.
fn pack_codes(bits: usize, codes: &Codes, lines: &mut [Line]) {
    for (block, lines) in lines.chunks_exact_mut(bits * PARTS).enumerate() {
        for (step, part) in (0..STEPS).flat_map(|step| (0..PARTS).map(move |part| (step, part))) {
            let code = &codes[block * STEPS + step][part];
            for (place, shift, drop, mask) in planes(bits, step, part).into_iter().flatten() {
                for (byte, code) in lines[place].0.iter_mut().zip(&code.0) {
                    *byte |= (code >> drop & mask) << shift;
                }
            }
        }
    }
}

/// Where the bits of a step's codes lie: line of the block, shift there, first bit, mask; the nibble, then what is above it.
fn planes(bits: usize, step: usize, part: usize) -> [Option<(usize, usize, usize, u8)>; 2] {
    let nibble = Some((step / 2 * PARTS + part, step % 2 * 4, 0, 15));
    match bits {
        5 => [nibble, Some((4 * PARTS + part, step, 4, 1))],
        6 => [
            nibble,
            Some(((4 + step / 4) * PARTS + part, step % 4 * 2, 4, 3)),
        ],
        8 => [Some((step * PARTS + part, 0, 0, 255)), None],
        _ => [nibble, None],
    }
}

/// Writes the scales of output `o` of the panel.
fn pack_scales(family: Family, row: &Row, o: usize, runs: &mut [Run]) {
    match family {
        Family::GroupMin => {
            for b in 0..BLOCKS {
                let (scale, min) = (row.scales[b], row.mins[b]);
                runs[b][o] = scale & 15 | min << 4;
                runs[8 + b / 2][o] |= (scale >> 4 | min >> 4 << 2) << (b % 2 * 4);
            }
            set_half(&mut runs[12..], o, row.d[0]);
            set_half(&mut runs[14..], o, row.m[0]);
        }
        Family::Group => {
            for (run, scale) in runs.iter_mut().zip(row.scales) {
                run[o] = scale;
            }
            set_half(&mut runs[16..], o, row.d[0]);
        }
        Family::Block => {
            for (runs, d) in runs.chunks_exact_mut(2).zip(row.d) {
                set_half(runs, o, d);
            }
        }
        Family::BlockMin => {
            for (runs, (d, m)) in runs.chunks_exact_mut(4).zip(row.d.into_iter().zip(row.m)) {
                set_half(runs, o, d);
                set_half(&mut runs[2..], o, m);
            }
        }
    }
}

/// Output `o` of a record: the inverse of packing.
fn read_record(layout: Layout, codes: &[Line], runs: &[Run], o: usize) -> Row {
    let (mut row, block_lines) = (Row::ZERO, layout.block_lines());
    for (i, code) in row.codes[..codes.len() / block_lines * BLOCK]
        .iter_mut()
        .enumerate()
    {
        let lines = &codes[i / BLOCK * block_lines..];
        for (place, shift, drop, mask) in planes(layout.bits, i % BLOCK / 4, o / LANES)
            .into_iter()
            .flatten()
        {
            *code |= (lines[place].0[o % LANES * 4 + i % 4] >> shift & mask) << drop;
        }
    }
    match layout.family {
        Family::GroupMin => {
            for b in 0..BLOCKS {
                let (low, high) = (runs[b][o], runs[8 + b / 2][o] >> (b % 2 * 4));
                (row.scales[b], row.mins[b]) =
                    (low & 15 | (high & 3) << 4, low >> 4 | (high >> 2 & 3) << 4);
            }
            (row.d[0], row.m[0]) = (half(&runs[12..], o), half(&runs[14..], o));
        }
        Family::Group => {
            for (run, scale) in runs.iter().zip(&mut row.scales) {
                *scale = run[o];
            }
            row.d[0] = half(&runs[16..], o);
        }
        Family::Block => {
            for (runs, d) in runs.chunks_exact(2).zip(&mut row.d) {
                *d = half(runs, o);
            }
        }
        Family::BlockMin => {
            for (runs, (d, m)) in runs.chunks_exact(4).zip(row.d.iter_mut().zip(&mut row.m)) {
                (*d, *m) = (half(runs, o), half(&runs[2..], o));
            }
        }
    }
    row
}

/// The `o`-th 16 bits of two runs.
fn half(runs: &[Run], o: usize) -> u16 {
    u16::from_le_bytes(runs.as_flattened().as_chunks().0[o])
}

fn set_half(runs: &mut [Run], o: usize, bits: u16) {
    runs.as_flattened_mut().as_chunks_mut().0[o] = bits.to_le_bytes();
}
