//! The map stages: which dataset each reads, the SQL that calls its function, and the dataset it writes.
//!
//! One shard of one stage is the unit of work: its part is written whole or not at all.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array},
    compute::{cast, filter_record_batch, take},
    datatypes::{FieldRef, SchemaRef},
    error::ArrowError,
};
use datafusion::{
    error::DataFusionError,
    prelude::{ParquetReadOptions, SessionContext},
};
use futures::StreamExt;

use super::{
    EngineError,
    functions::outcome::{self, Outcome, Results},
};
use crate::{
    job::spec::VectorType,
    store::{
        Dataset,
        dataset::PartWriter,
        progress::Tally,
        quarantine::{self, Failure},
        schema,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// The input's columns that reach the output, then the function's result. Rows keep their order.
    fn sql(self, passthrough: &[FieldRef], has_intents: bool) -> String {
        let id = match self.input() {
            Dataset::Documents => "doc_id",
            Dataset::Chunks => "chunk_id",
            _ => "query_id",
        };
        let extra: String = passthrough
            .iter()
            .map(|f| format!(", d.\"{}\"", f.name().replace('"', "\"\"")))
            .collect();
        let (columns, call) = match self {
            Stage::Intents => (String::new(), "intents(d.title, d.text, d.intents)"),
            Stage::Chunks if has_intents => (
                format!(", d.title{extra}"),
                "chunk(d.title, d.text, i.texts)",
            ),
            Stage::Chunks => (format!(", d.title{extra}"), "chunk(d.title, d.text, NULL)"),
            Stage::Queries => (String::new(), "queries(d.title, d.text, d.intents)"),
            Stage::TextVectors => (String::new(), "embed(d.title, d.text)"),
            Stage::QueryVectors => (String::new(), "embed_query(d.text)"),
        };
        let select =
            format!("SELECT d.{id}, d.text AS input{columns}, {call} AS result FROM input d");
        match self {
            Stage::Chunks if has_intents => format!(
                "{select} LEFT JOIN (SELECT doc_id, array_agg(text ORDER BY ordinal) AS texts FROM intents \
                 GROUP BY doc_id) i ON d.doc_id = i.doc_id ORDER BY d.position"
            ),
            _ => select,
        }
    }
}

/// What a stage needs besides its functions.
#[derive(Debug, Clone)]
pub struct Layout {
    pub passthrough: Vec<FieldRef>,
    pub vector: (VectorType, usize),
}

/// Runs one shard of a stage: reads its input part, calls the function, writes the output part and the failures.
pub async fn run(
    stage: Stage,
    ctx: &SessionContext,
    layout: &Layout,
    generation: &Path,
    shard: usize,
    tally: &mut Tally,
) -> Result<(), EngineError> {
    let failed = |source| EngineError::Stage {
        stage: stage.name(),
        shard,
        source,
    };
    register(ctx, "input", &stage.input().part(generation, shard))
        .await
        .map_err(failed)?;
    let intents = Dataset::Intents.part(generation, shard);
    let has_intents = stage == Stage::Chunks && intents.exists();
    if has_intents {
        register(ctx, "intents", &intents).await.map_err(failed)?;
    }
    let query = stage.sql(&layout.passthrough, has_intents);
    let mut batches = ctx
        .sql(&query)
        .await
        .map_err(failed)?
        .execute_stream()
        .await
        .map_err(failed)?;
    let schema = schema::schema(stage.output(), &layout.passthrough, layout.vector);
    let path = stage.output().part(generation, shard);
    let mut writer = PartWriter::create(&path, schema.clone())?;
    let mut failures = Vec::new();
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(failed)?;
        let rows = output_rows(stage, &batch, &schema, tally, &mut failures).map_err(|source| {
            EngineError::Batch {
                path: path.clone(),
                source,
            }
        })?;
        writer.write(&rows)?;
    }
    tally.rows = writer.finish()? as u64;
    tally.failed = failures.len() as u64;
    Ok(quarantine::write(
        generation,
        &format!("{}-{shard:05}", stage.name()),
        &failures,
    )?)
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

/// Turns a batch of results into rows of the output dataset; rows that failed become failures.
fn output_rows(
    stage: Stage,
    batch: &RecordBatch,
    schema: &SchemaRef,
    tally: &mut Tally,
    failures: &mut Vec<Failure>,
) -> Result<RecordBatch, ArrowError> {
    let results = Results::of(batch, "result")?;
    let [ids, inputs] = [
        batch.column(0).as_string::<i32>(),
        batch.column(1).as_string::<i32>(),
    ];
    let outcomes: Vec<Outcome> = (0..batch.num_rows()).map(|i| results.outcome(i)).collect();
    for (i, outcome) in outcomes.iter().enumerate() {
        count(stage, outcome, tally);
        if let Some(error) = &outcome.error {
            failures.push(Failure::new(
                stage.name(),
                ids.value(i),
                error,
                inputs.value(i),
            ));
        }
    }
    match stage {
        Stage::TextVectors | Stage::QueryVectors => vector_rows(batch, &outcomes, &results, schema),
        _ => exploded_rows(stage, batch, &outcomes, &results, schema),
    }
}

fn count(stage: Stage, outcome: &Outcome, tally: &mut Tally) {
    tally.tokens += outcome.tokens as u64;
    tally.skipped += u64::from(outcome.skipped);
    if stage == Stage::Chunks {
        tally.cut_sentences += outcome.truncated as u64;
    } else {
        tally.truncated_rows += u64::from(outcome.truncated > 0);
        tally.truncated_tokens += outcome.truncated as u64;
    }
}

fn vector_rows(
    batch: &RecordBatch,
    outcomes: &[Outcome],
    results: &Results,
    schema: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let keys = outcome::key_column(outcomes.iter().map(|o| o.key))?;
    let columns = vec![batch.column(0).clone(), results.value().clone(), keys];
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(c, f)| cast(&c, f.data_type()));
    let rows = RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)?;
    filter_record_batch(
        &rows,
        &outcomes.iter().map(|o| Some(o.error.is_none())).collect(),
    )
}

/// One output row for each row in a result's list, numbered within its input row. A column of the output is the
/// list's, or else the input's.
fn exploded_rows(
    stage: Stage,
    batch: &RecordBatch,
    outcomes: &[Outcome],
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
            "key" => outcome::key_column(parents.iter().map(|p| outcomes[*p as usize].key))?,
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
