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
    pub(super) fn sql(self, passthrough: &[FieldRef], has_beside: bool, has_reuse: bool) -> String {
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
            "SELECT d.{id}, d.text AS input{columns}, {function}({arguments}{earlier}) AS result FROM input d"
        )
    }

    /// Id and key of every input row.
    fn keys_sql(self, has_beside: bool) -> String {
        let (id, function, arguments) = (self.id(), self.function(), self.arguments(has_beside));
        format!("SELECT d.{id} AS id, {function}_key({arguments}) AS key FROM input d")
    }
}

/// Makes a shard's input the table `input`, with what is read beside it and the earlier results; tells whether there is
/// something beside it.
pub(super) fn register_input(
    stage: Stage,
    ctx: &SessionContext,
    (generation, shard): (&Path, usize),
    reuse: Option<&Path>,
) -> Result<bool, DataFusionError> {
    let beside = stage.beside(generation, shard);
    let has_beside = beside.is_some();
    let rows = stage.input().part(generation, shard);
    let input = Input::new(stage.id(), rows, beside, reuse.map(Into::into))?;
    let table = StreamingTable::try_new(input.schema().clone(), vec![Arc::new(input)])?;
    ctx.deregister_table("input")?;
    ctx.register_table("input", Arc::new(table))?;
    Ok(has_beside)
}

/// The ids (`id`) and keys (`key`) of a shard's input rows, in order, without computing them.
pub async fn keys(
    stage: Stage,
    ctx: &SessionContext,
    generation: &Path,
    shard: usize,
) -> Result<SendableRecordBatchStream, EngineError> {
    let failed = EngineError::in_stage(stage.name(), shard);
    let has_beside = register_input(stage, ctx, (generation, shard), None).map_err(&failed)?;
    let frame = ctx
        .sql(&stage.keys_sql(has_beside))
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
    let failed = EngineError::in_stage(stage.name(), 0);
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
