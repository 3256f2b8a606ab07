//! The map stages: which dataset each reads, the SQL that calls its function, and the dataset it writes.
//!
//! One shard of one stage is the unit of work: its part is written whole or not at all.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, UInt32Array, UInt64Array,
        new_null_array,
    },
    compute::{cast, concat, filter_record_batch, take},
    datatypes::{DataType, FieldRef, SchemaRef},
    error::ArrowError,
};
use datafusion::{
    error::DataFusionError,
    execution::SendableRecordBatchStream,
    prelude::{ParquetReadOptions, SessionContext},
};
use futures::StreamExt;

use super::{
    EngineError,
    functions::outcome::{Outcome, Results},
};
use crate::{
    job::spec::VectorType,
    store::{
        Dataset,
        dataset::PartWriter,
        progress::Tally,
        quarantine::{self, Failure},
        schema::{self, KEY_BYTES},
    },
};

/// In order: a stage reads what earlier ones wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Intents,
    Chunks,
    Queries,
    TextVectors,
    QueryVectors,
}

impl Stage {
    pub const ALL: [Stage; 5] = [
        Stage::Intents,
        Stage::Chunks,
        Stage::Queries,
        Stage::TextVectors,
        Stage::QueryVectors,
    ];

    /// Name on the command line, in the journal and in run.json.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Intents => "intents",
            Stage::Chunks => "chunks",
            Stage::Queries => "queries",
            Stage::TextVectors => "vectors-text",
            Stage::QueryVectors => "vectors-queries",
        }
    }

    pub fn input(self) -> Dataset {
        match self {
            Stage::Intents | Stage::Chunks => Dataset::Documents,
            Stage::Queries | Stage::TextVectors => Dataset::Chunks,
            Stage::QueryVectors => Dataset::Queries,
        }
    }

    pub fn output(self) -> Dataset {
        match self {
            Stage::Intents => Dataset::Intents,
            Stage::Chunks => Dataset::Chunks,
            Stage::Queries => Dataset::Queries,
            Stage::TextVectors => Dataset::TextVectors,
            Stage::QueryVectors => Dataset::QueryVectors,
        }
    }

    /// What a bar counts.
    pub fn unit(self) -> &'static str {
        match self.input() {
            Dataset::Documents => "documents",
            Dataset::Chunks => "chunks",
            _ => "queries",
        }
    }

    pub fn outcomes(self) -> Dataset {
        match self {
            Stage::Intents => Dataset::IntentOutcomes,
            Stage::Chunks => Dataset::ChunkOutcomes,
            Stage::Queries => Dataset::QueryOutcomes,
            Stage::TextVectors => Dataset::TextVectorOutcomes,
            Stage::QueryVectors => Dataset::QueryVectorOutcomes,
        }
    }

    /// Its function in SQL.
    pub fn function(self) -> &'static str {
        match self {
            Stage::Intents => "intents",
            Stage::Chunks => "chunk",
            Stage::Queries => "queries",
            Stage::TextVectors => "embed",
            Stage::QueryVectors => "embed_query",
        }
    }

    /// The input's id.
    fn id(self) -> &'static str {
        match self.input() {
            Dataset::Documents => "doc_id",
            Dataset::Chunks => "chunk_id",
            _ => "query_id",
        }
    }

    fn arguments(self, has_intents: bool) -> &'static str {
        match self {
            Stage::Intents => "d.title, d.text, d.intents",
            Stage::Chunks if has_intents => "d.title, d.text, i.texts",
            Stage::Chunks => "d.title, d.text, NULL",
            Stage::Queries => "d.title, d.text, d.intents",
            Stage::TextVectors => "d.title, d.text",
            Stage::QueryVectors => "d.text",
        }
    }

    fn from(has_intents: bool) -> &'static str {
        match has_intents {
            true => {
                "FROM input d LEFT JOIN (SELECT doc_id, array_agg(text ORDER BY ordinal) AS texts FROM intents \
                 GROUP BY doc_id) i ON d.doc_id = i.doc_id"
            }
            false => "FROM input d",
        }
    }

    /// The input's columns that reach the output, then the function's result. Rows keep their order: a join would
    /// lose it, so what is joined brings it.
    fn sql(self, passthrough: &[FieldRef], has_intents: bool, has_reuse: bool) -> String {
        let id = self.id();
        let extra: String = passthrough
            .iter()
            .map(|f| format!(", d.\"{}\"", f.name().replace('"', "\"\"")))
            .collect();
        let columns = match self {
            Stage::Chunks => format!(", d.title{extra}"),
            _ => String::new(),
        };
        let (earlier, join, order) = match (has_reuse, has_intents) {
            (true, _) => (
                ", r.result",
                format!(" JOIN reuse r ON d.{id} = r.id"),
                " ORDER BY r.line",
            ),
            (false, true) => ("", String::new(), " ORDER BY d.position"),
            (false, false) => ("", String::new(), ""),
        };
        let (function, arguments) = (self.function(), self.arguments(has_intents));
        let from = Self::from(has_intents);
        format!(
            "SELECT d.{id}, d.text AS input{columns}, {function}({arguments}{earlier}) AS result {from}{join}{order}"
        )
    }

    /// Id and key of every input row, in order.
    fn keys_sql(self, has_intents: bool) -> String {
        let (id, function, arguments) = (self.id(), self.function(), self.arguments(has_intents));
        let order = if has_intents {
            " ORDER BY d.position"
        } else {
            ""
        };
        let from = Self::from(has_intents);
        format!("SELECT d.{id} AS id, {function}_key({arguments}) AS key {from}{order}")
    }
}

/// Registers a shard's input, and the intents that cut it; tells whether there are any.
async fn register_input(
    stage: Stage,
    ctx: &SessionContext,
    generation: &Path,
    shard: usize,
) -> Result<bool, DataFusionError> {
    register(ctx, "input", &stage.input().part(generation, shard)).await?;
    let intents = Dataset::Intents.part(generation, shard);
    let has_intents = stage == Stage::Chunks && intents.exists();
    if has_intents {
        register(ctx, "intents", &intents).await?;
    }
    Ok(has_intents)
}

/// The ids (`id`) and keys (`key`) of a shard's input rows, in order, without computing them.
pub async fn keys(
    stage: Stage,
    ctx: &SessionContext,
    generation: &Path,
    shard: usize,
) -> Result<SendableRecordBatchStream, EngineError> {
    let failed = stage.failed(shard);
    let has_intents = register_input(stage, ctx, generation, shard)
        .await
        .map_err(&failed)?;
    let frame = ctx
        .sql(&stage.keys_sql(has_intents))
        .await
        .map_err(&failed)?;
    frame.execute_stream().await.map_err(&failed)
}

/// The keys of documents that are not in a part yet.
pub async fn keys_of(
    stage: Stage,
    ctx: &SessionContext,
    documents: RecordBatch,
) -> Result<ArrayRef, EngineError> {
    let failed = stage.failed(0);
    let rows = documents.num_rows();
    ctx.deregister_table("input").map_err(&failed)?;
    ctx.register_batch("input", documents).map_err(&failed)?;
    let frame = ctx.sql(&stage.keys_sql(false)).await.map_err(&failed)?;
    let batches = frame.collect().await.map_err(&failed)?;
    let keys: Vec<&dyn Array> = batches.iter().map(|b| b.column(1).as_ref()).collect();
    if keys.is_empty() {
        return Ok(new_null_array(&DataType::FixedSizeBinary(KEY_BYTES), rows));
    }
    concat(&keys).map_err(|e| failed(e.into()))
}

impl Stage {
    fn failed(self, shard: usize) -> impl Fn(DataFusionError) -> EngineError {
        move |source| EngineError::Stage {
            stage: self.name(),
            shard,
            source,
        }
    }
}

/// What a stage needs besides its functions.
#[derive(Debug, Clone)]
pub struct Layout {
    pub passthrough: Vec<FieldRef>,
    pub vector: (VectorType, usize),
}

/// Runs one shard of a stage: reads its input part, calls the function, writes the output part, what became of each
/// row, and the failures. `reuse` is a part of earlier results, one for each input row.
pub async fn run(
    stage: Stage,
    ctx: &SessionContext,
    layout: &Layout,
    (generation, shard): (&Path, usize),
    reuse: Option<&Path>,
    tally: &mut Tally,
) -> Result<(), EngineError> {
    let failed = stage.failed(shard);
    let has_intents = register_input(stage, ctx, generation, shard)
        .await
        .map_err(&failed)?;
    if let Some(reuse) = reuse {
        register(ctx, "reuse", reuse).await.map_err(&failed)?;
    }
    let query = stage.sql(&layout.passthrough, has_intents, reuse.is_some());
    let frame = ctx.sql(&query).await.map_err(&failed)?;
    let mut batches = frame.execute_stream().await.map_err(&failed)?;
    let schemas = [stage.output(), stage.outcomes()]
        .map(|dataset| schema::schema(dataset, &layout.passthrough, layout.vector));
    let path = stage.output().part(generation, shard);
    let mut rows = PartWriter::create(&path, schemas[0].clone())?;
    let mut outcomes = PartWriter::create(
        &stage.outcomes().part(generation, shard),
        schemas[1].clone(),
    )?;
    let file = format!("{}-{shard:05}", stage.name());
    let mut failures = quarantine::Writer::new(generation, &file);
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(&failed)?;
        let bad = |source| EngineError::Batch {
            path: path.clone(),
            source,
        };
        let results = Results::of(&batch, "result").map_err(bad)?;
        for failure in tell(stage, &batch, &results, tally) {
            failures.add(failure)?;
        }
        rows.write(&output_rows(stage, &batch, &results, &schemas[0]).map_err(bad)?)?;
        outcomes.write(&outcome_rows(&batch, &results, &schemas[1]).map_err(bad)?)?;
    }
    outcomes.finish()?;
    tally.rows = rows.finish()? as u64;
    tally.failed = failures.finish()?;
    Ok(())
}

/// The columns of a documents part beyond its own: those the job passes through.
pub async fn passthrough(ctx: &SessionContext, part: &Path) -> Result<Vec<FieldRef>, EngineError> {
    let failed = |source| EngineError::Stage {
        stage: "documents",
        shard: 0,
        source,
    };
    register(ctx, "input", part).await.map_err(failed)?;
    let table = ctx.table("input").await.map_err(failed)?;
    let own = schema::schema(Dataset::Documents, &[], (VectorType::F32, 0))
        .fields()
        .len();
    Ok(table.schema().fields().iter().skip(own).cloned().collect())
}

async fn register(ctx: &SessionContext, table: &str, part: &Path) -> Result<(), DataFusionError> {
    ctx.deregister_table(table)?;
    ctx.register_parquet(table, part.to_string_lossy(), ParquetReadOptions::default())
        .await
}

/// Counts a batch's outcomes and names its failures.
fn tell(stage: Stage, batch: &RecordBatch, results: &Results, tally: &mut Tally) -> Vec<Failure> {
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
fn output_rows(
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
fn outcome_rows(
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
            "query_id" => ids('?'),
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
