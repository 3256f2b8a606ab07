//! What a build takes over from earlier ones. A row's key covers all that it is computed from, so a row whose key an
//! earlier build has is the row that this build would compute, wherever its document now stands.
//!
//! For each stage the keys of all input rows are joined, once, with those of the earlier builds. What is found is
//! written beside the shards' inputs, one earlier result or null for each input row. DataFusion sorts and spills, so
//! memory does not grow with the corpus, and the cost is that of sorting it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StructArray, UInt32Array,
        UInt64Array,
    },
    buffer::NullBuffer,
    compute::{cast, concat_batches, take},
    datatypes::{DataType, Field, Fields, Schema, SchemaRef, UInt32Type, UInt64Type},
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
    functions::outcome::{self, Outcome},
    stage::{self, Stage},
};
use crate::{
    engine::fingerprint::Key,
    store::{
        Dataset, StoreError,
        dataset::PartWriter,
        manifest::{FileSummary, hash_file},
        progress::Tally,
        schema::KEY_BYTES,
    },
};

/// Folder below the generation being built; gone when it is published.
const FOLDER: &str = "reuse";

/// Columns of the join beside the earlier rows' own, which get a prefix, as a chunk too has tokens.
const PREFIX: &str = "row_";

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
}

impl Source {
    /// Whether the stage's files are as they were published. Damage must not pass into the next generation, whose
    /// hashes would then vouch for it.
    pub fn is_sound(&self, stage: Stage) -> bool {
        let folders = [stage.output(), stage.outcomes()].map(|d| format!("{}/part-", d.folder()));
        let own = |file: &&FileSummary| folders.iter().any(|f| file.path.starts_with(f));
        let damaged = self.files.iter().filter(own).find(|file| {
            hash_file(&self.folder.join(&file.path)).ok().as_ref() != Some(&file.blake3)
        });
        if let Some(file) = damaged {
            tracing::warn!(
                "{}: not as it was published; nothing of the stage {} is taken over, all of it is computed anew",
                self.folder.join(&file.path).display(),
                stage.name()
            );
        }
        damaged.is_none()
    }
}

/// The search's name in the journal.
pub fn journal_name(stage: Stage) -> String {
    format!("reuse-{}", stage.name())
}

/// Removes what was found, once it has been used.
pub fn remove(generation: &Path) -> Result<(), StoreError> {
    let folder = generation.join(FOLDER);
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(&folder)(e)),
        _ => Ok(()),
    }
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
    let folder = folder(generation, stage);
    fs::create_dir_all(&folder).map_err(StoreError::io(&folder))?;
    let candidates = folder.join("candidates.keys");
    tally.rows = write_candidates(stage, ctx, (generation, shards), &candidates).await?;
    let value = value_type(stage, ctx)?;
    let found = join(stage, ctx, &candidates, sources, &value).await?;
    let mut parts = Parts {
        stage,
        generation,
        value,
        held: Vec::new(),
        shard: 0,
        reused: 0,
    };
    parts.write(found).await?;
    tally.reused = parts.reused;
    fs::remove_file(&candidates).map_err(StoreError::io(&candidates))?;
    Ok(())
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
    let mut writer = PartWriter::create(path, candidates_schema())?;
    for shard in 0..shards {
        let mut line = 0;
        let mut batches = stage::keys(stage, ctx, generation, shard).await?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(failed(stage, shard))?;
            let n = batch.num_rows() as u64;
            let columns: Vec<ArrayRef> = vec![
                Arc::new(UInt32Array::from_value(shard as u32, n as usize)),
                Arc::new(UInt64Array::from_iter_values(line..line + n)),
                batch.column(0).clone(),
                batch.column(1).clone(),
            ];
            line += n;
            let batch = RecordBatch::try_new(candidates_schema(), columns).map_err(bad(path))?;
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
        Some(function) => function.return_type(&[])?,
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
        Stage::TextVectors => ("chunk_id", "CAST(0 AS BIGINT)"),
        Stage::QueryVectors => ("query_id", "CAST(0 AS BIGINT)"),
    }
}

/// Every input row in order, with what the sources have for it. Of several earlier rows with one key the first is
/// taken: they are all the same.
async fn join(
    stage: Stage,
    ctx: &SessionContext,
    candidates: &Path,
    sources: &[&Source],
    value: &DataType,
) -> Result<SendableRecordBatchStream, EngineError> {
    let (parent, place) = parent_and_place(stage);
    let names = columns(value);
    let own: String = names
        .iter()
        .map(|c| format!(", \"{c}\" AS \"{PREFIX}{c}\""))
        .collect();
    let wanted: String = names
        .iter()
        .map(|c| format!(", p.\"{PREFIX}{c}\""))
        .collect();
    register(ctx, "candidates", candidates, ".keys").await?;
    let (mut outcomes, mut rows) = (Vec::new(), Vec::new());
    for (n, source) in sources.iter().enumerate() {
        let name = |what: &str| format!("{what}_{n}");
        let at = |dataset: Dataset| source.folder.join(dataset.folder());
        register(ctx, &name("outcomes"), &at(stage.outcomes()), ".parquet").await?;
        register(ctx, &name("rows"), &at(stage.output()), ".parquet").await?;
        outcomes.push(format!("SELECT {n} AS source, * FROM outcomes_{n}"));
        rows.push(format!(
            "SELECT {n} AS source, {parent} AS parent, {place} AS place{own} FROM rows_{n}"
        ));
    }
    let (outcomes, rows) = (outcomes.join(" UNION ALL "), rows.join(" UNION ALL "));
    let sql = format!(
        "WITH o AS (SELECT DISTINCT ON (key) key, source, id, rows, tokens, truncated, skipped FROM ({outcomes}) \
         ORDER BY key, source, id), p AS ({rows}) \
         SELECT c.shard, c.line, c.id, o.key, o.rows, o.tokens, o.truncated, o.skipped, p.place{wanted} \
         FROM candidates c LEFT JOIN o ON c.key = o.key \
         LEFT JOIN p ON o.source = p.source AND o.id = p.parent ORDER BY c.shard, c.line, p.place"
    );
    Ok(ctx.sql(&sql).await?.execute_stream().await?)
}

async fn register(
    ctx: &SessionContext,
    table: &str,
    path: &Path,
    extension: &str,
) -> Result<(), DataFusionError> {
    ctx.deregister_table(table)?;
    let options = ParquetReadOptions {
        file_extension: extension,
        ..ParquetReadOptions::default()
    };
    ctx.register_parquet(table, path.to_string_lossy(), options)
        .await
}

fn failed(stage: Stage, shard: usize) -> impl FnOnce(DataFusionError) -> EngineError {
    move |source| EngineError::Stage {
        stage: stage.name(),
        shard,
        source,
    }
}

fn bad(path: &Path) -> impl FnOnce(ArrowError) -> EngineError + '_ {
    move |source| EngineError::Batch {
        path: path.to_owned(),
        source,
    }
}

/// Cuts the joined rows into the shards' parts.
struct Parts<'a> {
    stage: Stage,
    generation: &'a Path,
    value: DataType,
    held: Vec<RecordBatch>,
    shard: u32,
    reused: u64,
}

impl Parts<'_> {
    async fn write(&mut self, mut found: SendableRecordBatchStream) -> Result<(), EngineError> {
        while let Some(batch) = found.next().await {
            let batch = batch.map_err(failed(self.stage, self.shard as usize))?;
            let shards = batch
                .column(0)
                .as_primitive::<UInt32Type>()
                .values()
                .to_vec();
            let mut start = 0;
            for rows in shards.chunk_by(|a, b| a == b) {
                if rows[0] != self.shard {
                    self.close()?;
                    self.shard = rows[0];
                }
                self.held.push(batch.slice(start, rows.len()));
                start += rows.len();
            }
        }
        self.close()
    }

    fn close(&mut self) -> Result<(), EngineError> {
        let Some(first) = self.held.first() else {
            return Ok(());
        };
        let path = part(self.generation, self.stage, self.shard as usize);
        let rows = concat_batches(&first.schema(), &self.held).map_err(bad(&path))?;
        self.held.clear();
        let earlier = Earlier::new(&rows);
        let batch = earlier.results(&rows, &self.value).map_err(bad(&path))?;
        self.reused += earlier.hits();
        let mut writer = PartWriter::create(&path, batch.schema())?;
        writer.write(&batch)?;
        writer.finish()?;
        Ok(())
    }
}

/// The joined rows of a shard, by input row: where each one's earlier rows begin, how many there are, and whether
/// they can be taken.
struct Earlier {
    groups: Vec<(usize, usize, bool)>,
}

impl Earlier {
    fn new(joined: &RecordBatch) -> Self {
        let lines = joined.column(1).as_primitive::<UInt64Type>();
        let wanted = joined.column(4).as_primitive::<UInt32Type>();
        let place = joined.column(8);
        let mut groups = Vec::new();
        let mut start = 0;
        for same in lines.values().chunk_by(|a, b| a == b) {
            let found = (start..start + same.len())
                .filter(|i| place.is_valid(*i))
                .count();
            // Fewer rows than there should be: that build was killed while it wrote them.
            let whole = wanted.is_valid(start) && wanted.value(start) as usize == found;
            groups.push((start, found, whole));
            start += same.len();
        }
        Self { groups }
    }

    fn hits(&self) -> u64 {
        self.groups.iter().filter(|(_, _, whole)| *whole).count() as u64
    }

    fn results(&self, joined: &RecordBatch, value: &DataType) -> Result<RecordBatch, ArrowError> {
        let firsts: UInt64Array = self.groups.iter().map(|g| Some(g.0 as u64)).collect();
        let (keys, outcomes) = self.outcomes(joined);
        let results = outcome::column(&keys, &outcomes, self.values(joined, value)?)?;
        let nulls = NullBuffer::from_iter(self.groups.iter().map(|(_, _, whole)| *whole));
        let results = results.as_struct();
        let results = StructArray::try_new(
            results.fields().clone(),
            results.columns().to_vec(),
            Some(nulls),
        )?;
        let result_type = results.data_type().clone();
        let schema = Schema::new(vec![
            Field::new("line", DataType::UInt64, false),
            Field::new("id", DataType::Utf8, false),
            Field::new("result", result_type, true),
        ]);
        RecordBatch::try_new(
            Arc::new(schema),
            vec![
                take(joined.column(1), &firsts, None)?,
                take(joined.column(2), &firsts, None)?,
                Arc::new(results),
            ],
        )
    }

    fn outcomes(&self, joined: &RecordBatch) -> (Vec<Key>, Vec<Outcome>) {
        let keys: &FixedSizeBinaryArray = joined.column(3).as_fixed_size_binary();
        let number = |c: usize, i: usize| joined.column(c).as_primitive::<UInt64Type>().value(i);
        let outcome = |&(i, _, whole): &(usize, usize, bool)| {
            let mut key = Key::default();
            if !whole {
                return (key, Outcome::default());
            }
            key.copy_from_slice(keys.value(i));
            let outcome = Outcome {
                error: None,
                tokens: number(5, i) as usize,
                truncated: number(6, i) as usize,
                skipped: joined.column(7).as_boolean().value(i),
                reused: true,
            };
            (key, outcome)
        };
        self.groups.iter().map(outcome).unzip()
    }

    /// The values of the input rows, empty or null where there is nothing to take.
    fn values(&self, joined: &RecordBatch, value: &DataType) -> Result<ArrayRef, ArrowError> {
        let own = &joined.columns()[9..];
        let Some(fields) = row_fields(value) else {
            let at = self
                .groups
                .iter()
                .map(|(i, _, whole)| whole.then_some(*i as u64));
            return cast(&take(&own[0], &UInt64Array::from_iter(at), None)?, value);
        };
        let taken = |g: &(usize, usize, bool)| if g.2 { g.1 } else { 0 };
        let lengths: Vec<usize> = self.groups.iter().map(taken).collect();
        let at: UInt64Array = self
            .groups
            .iter()
            .flat_map(|g| g.0..g.0 + taken(g))
            .map(|i| Some(i as u64))
            .collect();
        let columns = own
            .iter()
            .zip(fields)
            .map(|(column, field)| cast(&take(column, &at, None)?, field.data_type()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        outcome::lists(
            &lengths,
            StructArray::try_new(fields.clone(), columns, None)?,
        )
    }
}
