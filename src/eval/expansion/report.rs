//! The comparison as a table, and as a Parquet file with every question.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow::error::ArrowError;
use rayon::prelude::*;

use super::set::Set;
use super::{Cell, ExpansionError, Outcome};
use crate::eval::retrieval::Retrieval;
use crate::eval::rows;
use crate::eval::significance::{confidence_interval, randomisation_test};

/// What a cell of the table says.
struct Figures {
    mean: f64,
    interval: (f64, f64),
    /// Relative change to the baseline, where that is not 0, and the p of the paired test; None for a baseline.
    against: Option<(Option<f64>, f64)>,
}

impl Figures {
    fn of(cell: &Cell, outcome: &Outcome) -> Self {
        let baseline = outcome.plan.variants[cell.variant].baseline;
        let against = (baseline != cell.variant).then(|| {
            let base = &outcome.cell(baseline, cell.retrieval).values;
            let change = (mean(base) > 0.0).then(|| mean(&cell.values) / mean(base) - 1.0);
            (change, randomisation_test(&cell.values, base))
        });
        Self {
            mean: mean(&cell.values),
            interval: confidence_interval(&cell.values),
            against,
        }
    }

    fn columns(&self) -> String {
        let (low, high) = self.interval;
        let change = self.against.and_then(|(change, _)| change);
        let change = change.map(|change| format!("{:+.1}%", 100.0 * change));
        let p = self.against.map(|(_, p)| format!("{p:.4}"));
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        format!(
            "{:>9.4} [{low:.3}, {high:.3}]{:>9}{:>8}",
            self.mean,
            or_dash(change),
            or_dash(p)
        )
    }
}

/// Of a kind of retrieval that a variant is not measured under: as wide as [`Figures::columns`].
const WIDTH: usize = 41;

/// A line for every variant. Changes and `p`, that of the paired test, are against the variant without queries.
pub fn write_table(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    let variants = &outcome.plan.variants;
    let names = variants.iter().map(|variant| variant.name.chars().count());
    let name = names.max().unwrap_or_default() + 2;
    let figures = outcome
        .cells
        .par_iter()
        .map(|cell| Figures::of(cell, outcome));
    let figures: Vec<Figures> = figures.collect();
    let heads = Retrieval::ALL.map(|retrieval| {
        let retrieval = retrieval.name();
        format!("{retrieval:>9} {:<14}{:>9}{:>8}", "[95%]", "change", "p")
    });
    for (i, variant) in variants.iter().enumerate() {
        if i == 0 || variants[i - 1].section != variant.section {
            let section = variant.section;
            writeln!(out, "\n{section:<name$}{:>8}{}", "queries", heads.concat())?;
        }
        let of = |retrieval: Retrieval| {
            let at = outcome.position(i, retrieval);
            at.map_or_else(|| " ".repeat(WIDTH), |at| figures[at].columns())
        };
        let columns = Retrieval::ALL.map(of).concat();
        let queries = outcome.plan.queries_per_chunk(variant);
        let line = format!("{:<name$}{queries:>8.2}{columns}", variant.name);
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// A row for every question of every cell. The file appears when it is whole.
pub fn write_parquet(path: &Path, outcome: &Outcome, set: &Set) -> Result<(), ExpansionError> {
    let cells = outcome.cells.iter();
    Ok(rows::write(
        path,
        cells.map(|cell| columns(cell, outcome, set)),
    )?)
}

fn columns(cell: &Cell, outcome: &Outcome, set: &Set) -> Result<RecordBatch, ArrowError> {
    let n = cell.values.len();
    let text = |value: &str| Arc::new(StringArray::from(vec![value; n])) as ArrayRef;
    let ids = set.questions.iter().map(|question| question.id.as_str());
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(ids));
    let values: ArrayRef = Arc::new(Float64Array::from(cell.values.clone()));
    RecordBatch::try_from_iter([
        ("variant", text(&outcome.plan.variants[cell.variant].name)),
        ("retrieval", text(cell.retrieval.name())),
        ("query_id", ids),
        ("value", values),
    ])
}
