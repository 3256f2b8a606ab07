//! The SQL of the map stages: which columns each reads, and what its function is given.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, RecordBatch, new_null_array},
    compute::concat,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    catalog::streaming::StreamingTable, error::DataFusionError,
    execution::SendableRecordBatchStream, physical_plan::streaming::PartitionStream,
    prelude::SessionContext,
};

use super::{
    Stage,
    input::{Beside, EARLIER, Input},
};
use crate::{
    engine::EngineError,
    store::{Dataset, schema::KEY_BYTES},
};

impl Stage {
    /// The input's id.
    fn id(self) -> &'static str {
        match self.input() {
            Dataset::Documents => "doc_id",
            Dataset::Chunks => "chunk_id",
            _ => "query_id",
        }
    }

    /// `has_beside`: there is a part to read beside the input.
    fn arguments(self, has_beside: bool) -> &'static str {
        match self {
            Stage::Intents => "d.title, d.text, d.intents",
            Stage::Chunks if has_beside => "d.title, d.text, d.__list",
            Stage::Chunks => "d.title, d.text, NULL",
            Stage::Keywords => "d.text",
            Stage::Queries if has_beside => "d.title, d.text, d.intents, d.__list",
            Stage::Queries => "d.title, d.text, d.intents, NULL",
            Stage::Scores => "d.__title, d.__text, d.text",
            Stage::TextVectors => "d.title, d.text",
            Stage::QueryVectors => "d.text",
        }
    }

    /// What is read beside a shard's input.
    fn beside(self, generation: &Path, shard: usize) -> Option<Beside> {
        let there = |dataset: Dataset| Some(dataset.part(generation, shard)).filter(|p| p.exists());
        match self {
            Stage::Chunks => there(Dataset::Intents).map(Beside::Intents),
            Stage::Queries => there(Dataset::ChunkTopics).map(Beside::Keywords),
            Stage::Scores => Some(Beside::Chunks(Dataset::Chunks.part(generation, shard))),
            _ => None,
        }
    }

    /// The input's columns that reach the output, then the function's result.
    pub(super) fn sql(
        self,
        passthrough: &[FieldRef],
        table: &str,
        has_beside: bool,
        has_reuse: bool,
    ) -> String {
        let id = self.id();
        let extra: String = passthrough
            .iter()
            .map(|f| format!(", d.\"{}\"", f.name().replace('"', "\"\"")))
            .collect();
        let columns = match self {
            Stage::Chunks => format!(", d.title{extra}"),
            _ => String::new(),
        };
        let earlier = match has_reuse {
            true => format!(", d.{EARLIER}"),
            false => String::new(),
        };
        let (function, arguments) = (self.function(), self.arguments(has_beside));
        format!(
            "SELECT d.{id}, d.text AS input{columns}, {function}({arguments}{earlier}) AS result FROM {table} d"
        )
    }

    /// Id and key of every input row.
    fn keys_sql(self, table: &str, has_beside: bool) -> String {
        let (id, function, arguments) = (self.id(), self.function(), self.arguments(has_beside));
        format!("SELECT d.{id} AS id, {function}_key({arguments}) AS key FROM {table} d")
    }
}

/// The table of what is read now.
const INPUT: &str = "input";

/// A shard's input, with what is read beside it and the earlier results.
pub(super) fn input(
    stage: Stage,
    (generation, shard): (&Path, usize),
    reuse: Option<&Path>,
) -> Result<Input, DataFusionError> {
    let rows = stage.input().part(generation, shard);
    let beside = stage.beside(generation, shard);
    Input::new(stage.id(), rows, beside, reuse.map(Into::into))
}

/// Makes a shard's input the table of this name, in place of an earlier one.
pub(super) fn register(
    ctx: &SessionContext,
    table: &str,
    input: &Input,
) -> Result<(), DataFusionError> {
    let stream = StreamingTable::try_new(input.schema().clone(), vec![Arc::new(input.clone())])?;
    ctx.deregister_table(table)?;
    ctx.register_table(table, Arc::new(stream))?;
    Ok(())
}

/// The ids (`id`) and keys (`key`) of a shard's input rows, in order, without computing them.
pub async fn keys(
    stage: Stage,
    ctx: &SessionContext,
    generation: &Path,
    shard: usize,
) -> Result<SendableRecordBatchStream, EngineError> {
    let failed = EngineError::in_stage(stage.name(), shard);
    let input = input(stage, (generation, shard), None).map_err(&failed)?;
    register(ctx, INPUT, &input).map_err(&failed)?;
    let sql = stage.keys_sql(INPUT, input.has_beside());
    let frame = ctx.sql(&sql).await.map_err(&failed)?;
    frame.execute_stream().await.map_err(&failed)
}

/// The keys of documents that are not in a part yet.
pub async fn keys_of(
    stage: Stage,
    ctx: &SessionContext,
    documents: RecordBatch,
) -> Result<ArrayRef, EngineError> {
    let failed = EngineError::in_stage(stage.name(), 0);
    let rows = documents.num_rows();
    ctx.deregister_table(INPUT).map_err(&failed)?;
    ctx.register_batch(INPUT, documents).map_err(&failed)?;
    let sql = stage.keys_sql(INPUT, false);
    let frame = ctx.sql(&sql).await.map_err(&failed)?;
    let batches = frame.collect().await.map_err(&failed)?;
    let keys: Vec<&dyn Array> = batches.iter().map(|b| b.column(1).as_ref()).collect();
    if keys.is_empty() {
        return Ok(new_null_array(&DataType::FixedSizeBinary(KEY_BYTES), rows));
    }
    concat(&keys).map_err(|e| failed(e.into()))
}
