//! The map stages: which dataset each reads, its function, and the dataset it writes.
//!
//! One shard of one stage is the unit of work: its part is written whole or not at all.

mod input;
mod rows;
mod sql;

use std::path::Path;

use arrow::datatypes::FieldRef;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use super::{EngineError, functions::outcome::Results, ingest, place::Place, table};
use crate::{
    job::{Progress, spec::VectorType},
    store::{Dataset, dataset::PartWriter, progress::Tally, quarantine, schema},
};
pub use input::Input;
use rows::{outcome_rows, output_rows, tell};
pub use sql::{keys, keys_of};

/// In order: a stage reads what earlier ones wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Intents,
    Chunks,
    Keywords,
    Queries,
    Scores,
    TextVectors,
    QueryVectors,
}

impl Stage {
    pub const ALL: [Stage; 7] = [
        Stage::Intents,
        Stage::Chunks,
        Stage::Keywords,
        Stage::Queries,
        Stage::Scores,
        Stage::TextVectors,
        Stage::QueryVectors,
    ];

    /// Name on the command line, in the journal and in run.json.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Intents => "intents",
            Stage::Chunks => "chunks",
            Stage::Keywords => "keywords",
            Stage::Queries => "queries",
            Stage::Scores => "scores",
            Stage::TextVectors => "vectors-text",
            Stage::QueryVectors => "vectors-queries",
        }
    }

    pub fn input(self) -> Dataset {
        match self {
            Stage::Intents | Stage::Chunks => Dataset::Documents,
            Stage::Keywords | Stage::Queries | Stage::TextVectors => Dataset::Chunks,
            Stage::Scores | Stage::QueryVectors => Dataset::Queries,
        }
    }

    pub fn output(self) -> Dataset {
        match self {
            Stage::Intents => Dataset::Intents,
            Stage::Chunks => Dataset::Chunks,
            Stage::Keywords => Dataset::ChunkTopics,
            Stage::Queries => Dataset::Queries,
            Stage::Scores => Dataset::Scores,
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
            Stage::Keywords => Dataset::ChunkTopicOutcomes,
            Stage::Queries => Dataset::QueryOutcomes,
            Stage::Scores => Dataset::ScoreOutcomes,
            Stage::TextVectors => Dataset::TextVectorOutcomes,
            Stage::QueryVectors => Dataset::QueryVectorOutcomes,
        }
    }

    /// Its function in SQL.
    pub fn function(self) -> &'static str {
        match self {
            Stage::Intents => "intents",
            Stage::Chunks => "chunk",
            Stage::Keywords => "keywords",
            Stage::Queries => "queries",
            Stage::Scores => "score",
            Stage::TextVectors => "embed",
            Stage::QueryVectors => "embed_query",
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
    (ctx, place): (&SessionContext, &Place),
    layout: &Layout,
    (generation, shard): (&Path, usize),
    reuse: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Tally, EngineError> {
    let failed = EngineError::in_stage(stage.name(), shard);
    let input = sql::input(stage, (generation, shard), reuse).map_err(&failed)?;
    // Shards may run at once.
    let table = format!("input_{shard}");
    sql::register(ctx, &table, &input).map_err(&failed)?;
    let query = stage.sql(
        &layout.passthrough,
        &table,
        input.has_beside(),
        reuse.is_some(),
    );
    let frame = ctx.sql(&query).await.map_err(&failed)?;
    ctx.deregister_table(&table).map_err(&failed)?;
    let mut batches = place.stream(frame, &input).await.map_err(&failed)?;
    let schemas = [stage.output(), stage.outcomes()]
        .map(|dataset| schema::schema(dataset, &layout.passthrough, layout.vector));
    let path = stage.output().part(generation, shard);
    let mut rows = PartWriter::create(&path, schemas[0].clone())?;
    let mut outcomes = PartWriter::create(
        &stage.outcomes().part(generation, shard),
        schemas[1].clone(),
    )?;
    let mut failures = quarantine::Writer::new(generation, &quarantined(stage, shard));
    let mut tally = Tally::default();
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(&failed)?;
        let bad = EngineError::batch(&path);
        let results = Results::of(&batch, "result").map_err(&bad)?;
        for failure in tell(stage, &batch, &results, &mut tally) {
            failures.add(failure)?;
        }
        if !place.tells_progress() {
            progress.advance(batch.num_rows() as u64);
        }
        rows.write(&output_rows(stage, &batch, &results, &schemas[0]).map_err(&bad)?)?;
        outcomes.write(&outcome_rows(&batch, &results, &schemas[1]).map_err(&bad)?)?;
    }
    outcomes.finish()?;
    tally.rows = rows.finish()? as u64;
    tally.failed = failures.finish()?;
    Ok(tally)
}

/// Name of the file of a shard's failures.
pub fn quarantined(stage: Stage, shard: usize) -> String {
    format!("{}-{shard:05}", stage.name())
}

/// The columns of a documents part beyond its own: those the job passes through.
pub async fn passthrough(ctx: &SessionContext, part: &Path) -> Result<Vec<FieldRef>, EngineError> {
    let failed = EngineError::in_stage(ingest::STAGE, 0);
    let registered = table::register(ctx, "input", part, &[]).await;
    registered.map_err(&failed)?;
    let table = ctx.table("input").await.map_err(&failed)?;
    let own = schema::schema(Dataset::Documents, &[], (VectorType::F32, 0))
        .fields()
        .len();
    Ok(table.schema().fields().iter().skip(own).cloned().collect())
}
