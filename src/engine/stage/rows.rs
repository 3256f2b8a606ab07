//! A batch of results, unpacked into rows of the output dataset, of its outcomes and of the quarantine.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array, UInt64Array},
    compute::{cast, filter_record_batch, take},
    datatypes::SchemaRef,
    error::ArrowError,
};

use super::Stage;
use crate::{
    engine::functions::outcome::{Outcome, Results},
    store::{progress::Tally, quarantine::Failure},
};

/// Counts a batch's outcomes and names its failures.
pub fn tell(
    stage: Stage,
    batch: &RecordBatch,
    results: &Results,
    tally: &mut Tally,
) -> Vec<Failure> {
    let [ids, inputs] = [0, 1].map(|c| batch.column(c).as_string::<i32>());
    let mut failures = Vec::new();
    for i in 0..batch.num_rows() {
        let outcome = results.outcome(i);
        count(stage, &outcome, tally);
        if let Some(error) = &outcome.error {
            failures.push(Failure::new(
                stage.name(),
                ids.value(i),
                error,
                inputs.value(i),
            ));
        }
    }
    failures
}

fn count(stage: Stage, outcome: &Outcome, tally: &mut Tally) {
    match outcome.reused {
        true => tally.reused += 1,
        false => {
            tally.computed += 1;
            tally.tokens += outcome.tokens as u64;
        }
    }
    match stage {
        Stage::Chunks => {
            tally.without_intents += u64::from(outcome.skipped);
            tally.cut_sentences += outcome.truncated as u64;
        }
        _ => {
            tally.skipped += u64::from(outcome.skipped);
            tally.truncated_rows += u64::from(outcome.truncated > 0);
            tally.truncated_tokens += outcome.truncated as u64;
        }
    }
}

/// Turns a batch of results into rows of the output dataset.
pub fn output_rows(
    stage: Stage,
    batch: &RecordBatch,
    results: &Results,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    match stage {
        Stage::TextVectors | Stage::QueryVectors => vector_rows(batch, results, schema),
        _ => exploded_rows(stage, batch, results, schema),
    }
}

/// What became of each row that did not fail.
pub fn outcome_rows(
    batch: &RecordBatch,
    results: &Results,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let outcomes: Vec<Outcome> = (0..batch.num_rows()).map(|i| results.outcome(i)).collect();
    let numbers = |get: fn(&Outcome) -> usize| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(
            outcomes.iter().map(|o| get(o) as u64),
        ))
    };
    let skipped = BooleanArray::from_iter(outcomes.iter().map(|o| Some(o.skipped)));
    let columns: Vec<ArrayRef> = vec![
        batch.column(0).clone(),
        results.keys().clone(),
        Arc::new(UInt32Array::from(results.lengths())),
        numbers(|o| o.tokens),
        numbers(|o| o.truncated),
        Arc::new(skipped),
    ];
    let whole = outcomes.iter().map(|o| Some(o.error.is_none())).collect();
    filter_record_batch(&RecordBatch::try_new(schema.clone(), columns)?, &whole)
}

fn vector_rows(
    batch: &RecordBatch,
    results: &Results,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let columns = vec![
        batch.column(0).clone(),
        results.value().clone(),
        results.keys().clone(),
    ];
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(c, f)| cast(&c, f.data_type()));
    let rows = RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)?;
    filter_record_batch(
        &rows,
        &(0..rows.num_rows())
            .map(|i| Some(results.outcome(i).error.is_none()))
            .collect(),
    )
}

/// One output row for each row in a result's list, numbered within its input row. A column of the output is the
/// list's, or else the input's.
fn exploded_rows(
    stage: Stage,
    batch: &RecordBatch,
    results: &Results,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let (parents, rows) = results.rows();
    // Column by column, and only those wanted: taking the batch would copy a document's text for each of its chunks.
    let indices = UInt32Array::from(parents.clone());
    let taken = |column: &ArrayRef| take(column, &indices, None);
    let parent_ids = taken(batch.column(0))?;
    let mut ordinals = Vec::with_capacity(parents.len());
    for (i, parent) in parents.iter().enumerate() {
        let first = i == 0 || parents[i - 1] != *parent;
        ordinals.push(if first { 0 } else { ordinals[i - 1] + 1 });
    }
    let ids = |separator: char| -> ArrayRef {
        let ids = parent_ids
            .as_string::<i32>()
            .iter()
            .zip(&ordinals)
            .map(|(id, n)| format!("{}{separator}{n}", id.unwrap_or_default()));
        Arc::new(StringArray::from_iter_values(ids))
    };
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let column = match field.name().as_str() {
            "key" => taken(results.keys())?,
            "ordinal" => Arc::new(UInt32Array::from(ordinals.clone())),
            "chunk_id" if stage == Stage::Chunks => ids('#'),
            "query_id" if stage == Stage::Queries => ids('?'),
            name => match (rows.column_by_name(name), batch.column_by_name(name)) {
                (Some(column), _) => cast(column, field.data_type())?,
                (None, Some(column)) => cast(&taken(column)?, field.data_type())?,
                (None, None) => return Err(ArrowError::SchemaError(format!("no column {name}"))),
            },
        };
        columns.push(column);
    }
    RecordBatch::try_new(schema.clone(), columns)
}
