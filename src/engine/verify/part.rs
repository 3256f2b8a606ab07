//! Reading files that may be damaged: what cannot be read is a finding.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{SchemaRef, UInt32Type},
};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{Finding, Subject};
use crate::{
    corpus::error::one_line,
    store::{Dataset, dataset::BATCH_ROWS},
};

/// A result, or what is wrong.
pub type Checked<T> = Result<T, Finding>;

/// Runs a reader of a file that may be damaged. The libraries assert on some damage; that is the file's fault, and must
/// not end the process.
pub fn guarded<T>(
    check: &'static str,
    what: &str,
    read: impl FnOnce() -> Checked<T>,
) -> Checked<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(Finding::new(
            check,
            what,
            "cannot be read: its content makes no sense",
        ))
    })
}

/// A part's path below the generation.
pub fn name(dataset: Dataset, shard: usize) -> String {
    format!("{}/part-{shard:05}.parquet", dataset.folder())
}

type Builder = ParquetRecordBatchReaderBuilder<File>;

fn open(subject: &Subject, name: &str) -> Checked<Builder> {
    let file = File::open(subject.path(name)).map_err(|e| unreadable(name, &e))?;
    Builder::try_new(file).map_err(|e| unreadable(name, &e))
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> Finding {
    Finding::new(
        "datasets",
        name,
        format!("cannot be read: {}", one_line(error)),
    )
}

/// Rows and columns of a Parquet file, from its footer.
pub fn footer(subject: &Subject, name: &str) -> Checked<(u64, SchemaRef)> {
    guarded("datasets", name, || {
        let builder = open(subject, name)?;
        let rows = builder.metadata().file_metadata().num_rows();
        Ok((rows as u64, builder.schema().clone()))
    })
}

/// Visits the named columns of a Parquet file, batch by batch.
pub fn each_batch(
    subject: &Subject,
    name: &str,
    columns: &[&str],
    mut visit: impl FnMut(&RecordBatch) -> Checked<()>,
) -> Checked<()> {
    guarded("datasets", name, || {
        let builder = open(subject, name)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let batches = builder
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|e| unreadable(name, &e))?;
        for batch in batches {
            visit(&batch.map_err(|e| unreadable(name, &e))?)?;
        }
        Ok(())
    })
}

/// The ids of a part of outcomes, and how many rows each gave.
pub fn outcomes(subject: &Subject, name: &str) -> Checked<Vec<(String, u32)>> {
    let mut outcomes = Vec::new();
    each_batch(subject, name, &["id", "rows"], |batch| {
        let ids = batch.column(0).as_string::<i32>();
        let rows = batch.column(1).as_primitive::<UInt32Type>();
        let both = ids.iter().zip(rows.values());
        outcomes.extend(both.map(|(id, rows)| (id.unwrap_or_default().to_owned(), *rows)));
        Ok(())
    })?;
    Ok(outcomes)
}
