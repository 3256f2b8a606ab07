//! The comparison as a table, and as a Parquet file with every question.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};

use super::score::NAMES;
use super::set::Set;
use super::{Cell, ChunksError, Outcome, Scope};
use crate::eval::retrieval::Retrieval;
use crate::eval::rows;
use crate::eval::significance::{confidence_interval, randomisation_test};

/// Measures that methods are compared by: R@1 and the recall within 400 tokens.
const COMPARED: [usize; 2] = [0, 6];

/// A table for each scope and kind of retrieval. `p` is that of the paired test against the best other method at the same
/// length by that measure.
pub fn write_tables(out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
    for scope in Scope::ALL {
        for retrieval in Retrieval::ALL {
            let of = |cell: &&Cell| (cell.scope, cell.retrieval) == (scope, retrieval);
            let cells: Vec<&Cell> = outcome.cells.iter().filter(of).collect();
            if cells.is_empty() {
                continue;
            }
            writeln!(out, "\n{}, {}", scope.name(), retrieval.name())?;
            writeln!(
                out,
                "{:<11}{:>7}{:>8}{:>7} {:<15}{:>7}{:>7}{:>7}{:>9} {:<15}{:>7}{:>10}{:>9}",
                "method",
                "tokens",
                "chunks",
                "R@1",
                "[95%]",
                "p",
                "R@5",
                "MRR",
                "rec@400",
                "[95%]",
                "p",
                "prec@400",
                "IoU@400"
            )?;
            for cell in &cells {
                write_row(out, cell, &cells)?;
            }
        }
    }
    for (method, length) in &outcome.unreached {
        writeln!(
            out,
            "{} has no parameter for a mean of {length} tokens",
            method.name()
        )?;
    }
    Ok(())
}

fn write_row(out: &mut impl Write, cell: &Cell, cells: &[&Cell]) -> io::Result<()> {
    let mean = |m: usize| mean(&column(cell, m));
    let [hits, recall] = COMPARED;
    let interval = |m: usize| {
        let (low, high) = confidence_interval(&column(cell, m));
        format!("[{low:.3}, {high:.3}]")
    };
    let p = |m: usize| match against_best(cell, cells, m) {
        Some(p) => format!("{p:.4}"),
        None => "–".into(),
    };
    writeln!(
        out,
        "{:<11}{:>7.1}{:>8}{:>7.3} {:<15}{:>7}{:>7.3}{:>7.3}{:>9.3} {:<15}{:>7}{:>10.3}{:>9.3}",
        cell.method.name(),
        cell.mean_tokens,
        cell.chunks,
        mean(hits),
        interval(hits),
        p(hits),
        mean(1),
        mean(2),
        mean(recall),
        interval(recall),
        p(recall),
        mean(recall + 1),
        mean(recall + 2),
    )
}

fn against_best(cell: &Cell, cells: &[&Cell], measure: usize) -> Option<f64> {
    let others = cells
        .iter()
        .filter(|other| other.length == cell.length && other.method != cell.method);
    let best =
        others.max_by(|a, b| mean(&column(a, measure)).total_cmp(&mean(&column(b, measure))))?;
    Some(randomisation_test(
        &column(cell, measure),
        &column(best, measure),
    ))
}

fn column(cell: &Cell, measure: usize) -> Vec<f64> {
    cell.scores.iter().map(|of| of[measure]).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// A row for every question of every cell. The file appears when it is whole.
pub fn write_parquet(path: &Path, outcome: &Outcome, set: &Set) -> Result<(), ChunksError> {
    let cells = outcome.cells.iter();
    Ok(rows::write(path, cells.map(|cell| columns(cell, set)))?)
}

fn columns(cell: &Cell, set: &Set) -> Result<RecordBatch, arrow::error::ArrowError> {
    let n = cell.scores.len();
    let text = |value: &str| Arc::new(StringArray::from(vec![value; n])) as ArrayRef;
    let number = |value: usize| Arc::new(UInt64Array::from_value(value as u64, n)) as ArrayRef;
    let real = |value: f64| Arc::new(Float64Array::from_value(value, n)) as ArrayRef;
    let ids = set.questions.iter().map(|question| question.id.as_str());
    let mut columns = vec![
        ("scope", text(cell.scope.name())),
        ("retrieval", text(cell.retrieval.name())),
        ("method", text(cell.method.name())),
        ("length", number(cell.length)),
        ("mean_tokens", real(cell.mean_tokens)),
        ("chunks", number(cell.chunks)),
        ("parameter", real(cell.parameter)),
        (
            "query_id",
            Arc::new(StringArray::from_iter_values(ids)) as ArrayRef,
        ),
    ];
    columns.extend(NAMES.iter().enumerate().map(|(m, name)| {
        (
            *name,
            Arc::new(Float64Array::from(column(cell, m))) as ArrayRef,
        )
    }));
    RecordBatch::try_from_iter(columns)
}
