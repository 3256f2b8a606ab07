//! The SQL of the map stages: which columns each reads, and what its function is given.

use std::path::Path;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, new_null_array},
    compute::concat,
    datatypes::{DataType, FieldRef},
};
use datafusion::{
    error::DataFusionError, execution::SendableRecordBatchStream, prelude::SessionContext,
};

use super::Stage;
use crate::{
    engine::{EngineError, table},
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
    pub(super) fn sql(
        self,
        passthrough: &[FieldRef],
        has_intents: bool,
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
pub(super) async fn register_input(
    stage: Stage,
    ctx: &SessionContext,
    generation: &Path,
    shard: usize,
) -> Result<bool, DataFusionError> {
    table::register(ctx, "input", &stage.input().part(generation, shard)).await?;
    let intents = Dataset::Intents.part(generation, shard);
    let has_intents = stage == Stage::Chunks && intents.exists();
    if has_intents {
        table::register(ctx, "intents", &intents).await?;
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
    let failed = EngineError::in_stage(stage.name(), shard);
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
