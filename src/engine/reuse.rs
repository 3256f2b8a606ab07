//! What a build takes over from earlier ones. A row's key covers all that it is computed from, so a row whose key an
//! earlier build has is the row that this build would compute, wherever its document now stands.
//!
//! For each stage the keys of all input rows are joined, once, with those of the earlier builds. What is found is
//! written beside the shards' inputs, one earlier result or null for each input row. DataFusion sorts and spills, so
//! memory does not grow with the corpus, and the cost is that of sorting it.

mod parts;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array, UInt64Array},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
};
use datafusion::{execution::SendableRecordBatchStream, prelude::SessionContext};
use futures::StreamExt;

use super::{
    EngineError,
    join::Joins,
    stage::{self, Stage},
};
use crate::store::{
    Dataset, StoreError, dataset::PartWriter, generation::remove_folder, manifest::FileSummary,
    progress::Tally, schema::KEY_BYTES,
};
use parts::Parts;

/// Folder below the generation being built; gone when it is published.
const FOLDER: &str = "reuse";

/// Columns of the join beside the earlier rows' own, which get a prefix, as a chunk too has tokens.
const PREFIX: &str = "row_";

/// Longest text of a row, in bytes, that is taken over. A sort must hold some batches of such rows; an input row with a
/// longer one (a document of nothing but white space is a single chunk) is computed anew.
const LONGEST_TEXT: usize = 128 << 10;

/// An earlier build: a published generation, or one that was given up.
#[derive(Debug, Clone)]
pub struct Source {
    pub folder: PathBuf,
    /// Fingerprint of each of its stages.
    pub stages: BTreeMap<String, String>,
    /// Its files, if it was published.
    pub files: Vec<FileSummary>,
}

impl Source {
    /// Whether it has finished rows of the stage with this fingerprint.
    pub fn has(&self, stage: Stage, fingerprint: &str) -> bool {
        let any = |dataset: Dataset| {
            dataset
                .parts(&self.folder)
                .is_ok_and(|parts| !parts.is_empty())
        };
        self.stages.get(stage.name()).map(String::as_str) == Some(fingerprint)
            && any(stage.output())
            && any(stage.outcomes())
    }

    /// Whether the stage's files are as they were published. Damage must not pass into the next generation, whose
    /// hashes would then vouch for it.
    pub fn is_sound(&self, stage: Stage) -> bool {
        let damaged = damaged(
            &self.folder,
            &self.files,
            &[stage.output(), stage.outcomes()],
        );
        if let Some(damage) = &damaged {
            tracing::warn!(
                "{damage}; nothing of the stage {} is taken over, all of it is computed anew",
                stage.name()
            );
        }
        damaged.is_none()
    }
}

/// The first file of these datasets that is not as it was published, and how it differs.
pub fn damaged(folder: &Path, files: &[FileSummary], datasets: &[Dataset]) -> Option<String> {
    let parts: Vec<String> = datasets
        .iter()
        .map(|d| format!("{}/part-", d.folder()))
        .collect();
    files
        .iter()
        .filter(|file| parts.iter().any(|p| file.path.starts_with(p)))
        .find_map(|file| {
            let difference = file.compare(folder, true).err()?;
            let path = folder.join(&file.path);
            Some(format!("{} {difference}", path.display()))
        })
}

/// The search's name in the journal.
pub fn journal_name(stage: Stage) -> String {
    format!("reuse-{}", stage.name())
}

/// Removes what was found for a stage, once it has been used.
pub fn remove(generation: &Path, stage: Stage) -> Result<(), StoreError> {
    remove_folder(&folder(generation, stage))
}

/// Removes what was found for all stages.
pub fn remove_all(generation: &Path) -> Result<(), StoreError> {
    remove_folder(&generation.join(FOLDER))
}

/// The earlier results for a shard's input rows: `line` of the input part, `id`, `result`.
pub fn part(generation: &Path, stage: Stage, shard: usize) -> PathBuf {
    folder(generation, stage).join(format!("part-{shard:05}.parquet"))
}

fn folder(generation: &Path, stage: Stage) -> PathBuf {
    generation.join(FOLDER).join(stage.name())
}

/// Looks up every input row of a stage in the sources and writes a part for each shard. The tally tells how many
/// rows were looked up and how many were found.
pub async fn find(
    stage: Stage,
    ctx: &SessionContext,
    (generation, shards): (&Path, usize),
    sources: &[&Source],
    tally: &mut Tally,
) -> Result<(), EngineError> {
    // What an earlier try left takes room.
    remove(generation, stage)?;
    let what = format!("stage {}, earlier rows", stage.name());
    let joins = Joins::new(ctx, &folder(generation, stage), what)?;
    let candidates = joins.path("candidates");
    tally.rows = write_candidates(stage, ctx, (generation, shards), &candidates).await?;
    joins.register("candidates", &candidates).await?;
    let value = value_type(stage, ctx)?;
    let found = join(stage, &joins, sources, &value).await?;
    tally.reused = Parts::new(stage, generation, value).write(found).await?;
    joins.remove(&["candidates", "matched", "rows"])
}

fn candidates_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("shard", DataType::UInt32, false),
        Field::new("line", DataType::UInt64, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("key", DataType::FixedSizeBinary(KEY_BYTES), false),
    ]))
}

/// Writes shard, line, id and key of every input row.
async fn write_candidates(
    stage: Stage,
    ctx: &SessionContext,
    (generation, shards): (&Path, usize),
    path: &Path,
) -> Result<u64, EngineError> {
    let mut writer = PartWriter::scratch(path, candidates_schema())?;
    for shard in 0..shards {
        let mut line = 0;
        let failed = EngineError::in_stage(stage.name(), shard);
        let mut batches = stage::keys(stage, ctx, generation, shard).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(&failed)?;
            let n = batch.num_rows() as u64;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(UInt32Array::from_value(shard as u32, n as usize)),
                Arc::new(UInt64Array::from_iter_values(line..line + n)),
                batch.column(0).clone(),
                batch.column(1).clone(),
            ];
            line += n;
            let batch = RecordBatch::try_new(candidates_schema(), columns)
                .map_err(EngineError::batch(path))?;
            writer.write(&batch)?;
        }
    }
    Ok(writer.finish()? as u64)
}

/// Type of the stage's values, as its function gives them.
fn value_type(stage: Stage, ctx: &SessionContext) -> Result<DataType, EngineError> {
    let function = ctx
        .state_ref()
        .read()
        .scalar_functions()
        .get(stage.function())
        .cloned();
    let result = match function {
        Some(function) => function
            .return_type(&[])
            .map_err(EngineError::during(format!("stage {}", stage.name())))?,
        None => {
            return Err(EngineError::Refused(format!(
                "no function {}",
                stage.function()
            )));
        }
    };
    match result {
        DataType::Struct(fields) => Ok(fields[fields.len() - 1].data_type().clone()),
        other => Ok(other),
    }
}

/// Names of an earlier row's columns: those of a list's rows, or the vector.
fn columns(value: &DataType) -> Vec<String> {
    match row_fields(value) {
        Some(fields) => fields.iter().map(|f| f.name().clone()).collect(),
        None => vec!["vector".into()],
    }
}

fn row_fields(value: &DataType) -> Option<&Fields> {
    match value {
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => Some(fields),
            _ => None,
        },
        _ => None,
    }
}

/// Which input row an earlier row came from, and its place among that row's.
fn parent_and_place(stage: Stage) -> (&'static str, &'static str) {
    match stage {
        Stage::Intents | Stage::Chunks => ("doc_id", "CAST(ordinal AS BIGINT)"),
        Stage::Queries => (
            "chunk_id",
            "CAST(substr(query_id, character_length(chunk_id) + 2) AS BIGINT)",
        ),
        Stage::Keywords | Stage::TextVectors => ("chunk_id", "CAST(0 AS BIGINT)"),
        Stage::Scores | Stage::QueryVectors => ("query_id", "CAST(0 AS BIGINT)"),
    }
}

/// Every row of the table `candidates` in order, with what the sources have for it. Of several earlier rows with one
/// key the first is taken: they are all the same.
async fn join(
    stage: Stage,
    joins: &Joins,
    sources: &[&Source],
    value: &DataType,
) -> Result<SendableRecordBatchStream, EngineError> {
    let own = columns(value);
    let (outcomes, rows) = earlier(stage, joins, sources, &own).await?;
    let by_key = ["key", "source", "parent"];
    joins.sort("outcomes", &outcomes, &by_key).await?;
    let candidates = "SELECT * FROM candidates";
    joins.sort("asked", candidates, &["key"]).await?;
    let matched = "SELECT c.shard, c.line, c.id, o.* FROM asked c LEFT JOIN \
        (SELECT * FROM (SELECT *, row_number() OVER \
        (PARTITION BY key ORDER BY source NULLS FIRST, parent NULLS FIRST) AS n FROM outcomes) WHERE n = 1) o \
        ON c.key = o.key";
    let by_parent = ["source", "parent"];
    joins.sort("matched", matched, &by_parent).await?;
    joins.remove(&["asked", "outcomes"])?;
    joins.sort("rows", &rows, &by_parent).await?;
    let wanted: String = own.iter().map(|c| format!(", p.\"{PREFIX}{c}\"")).collect();
    let found = format!(
        "SELECT m.shard, m.line, m.id, m.key, m.rows, m.tokens, m.truncated, m.skipped, p.place{wanted} \
         FROM matched m LEFT JOIN rows p ON m.source = p.source AND m.parent = p.parent \
         ORDER BY m.shard, m.line, p.place"
    );
    joins.stream(&found).await
}

/// Statements for what the sources say became of each row of their inputs, its id as `parent`, and for the rows that
/// came of it, in their `place`; `own` are the latter's columns.
async fn earlier(
    stage: Stage,
    joins: &Joins,
    sources: &[&Source],
    own: &[String],
) -> Result<(String, String), EngineError> {
    let (parent, place) = parent_and_place(stage);
    let short = match own.iter().any(|c| c == "text") {
        true => format!(" WHERE octet_length(text) <= {LONGEST_TEXT}"),
        false => String::new(),
    };
    let own: String = own
        .iter()
        .map(|c| format!(", \"{c}\" AS \"{PREFIX}{c}\""))
        .collect();
    let (mut outcomes, mut rows) = (Vec::new(), Vec::new());
    for (n, source) in sources.iter().enumerate() {
        let at = |dataset: Dataset| source.folder.join(dataset.folder());
        let names = [format!("outcomes_{n}"), format!("rows_{n}")];
        joins.register(&names[0], &at(stage.outcomes())).await?;
        joins.register(&names[1], &at(stage.output())).await?;
        outcomes.push(format!(
            "SELECT {n} AS source, id AS parent, key, rows, tokens, truncated, skipped FROM {}",
            names[0]
        ));
        rows.push(format!(
            "SELECT {n} AS source, {parent} AS parent, {place} AS place{own} FROM {}{short}",
            names[1]
        ));
    }
    Ok((outcomes.join(" UNION ALL "), rows.join(" UNION ALL ")))
}
