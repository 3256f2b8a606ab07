//! Reads a shard's input where the task runs.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
        streaming::PartitionStream,
    },
};
use datafusion_proto::protobuf;
use futures::StreamExt;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::function;
use crate::engine::stage::Input;

/// The rows of a shard, of which the plan reads these columns. The one partition is the shard, in its order.
#[derive(Debug, Clone)]
pub struct ShardScan {
    input: Input,
    columns: Vec<usize>,
    properties: Arc<PlanProperties>,
}

/// A [`ShardScan`] on its way: the scheduler need not see the files, so that the schema comes along.
#[derive(Serialize, Deserialize)]
struct Sent {
    input: Input,
    columns: Vec<usize>,
    schema: Vec<u8>,
}

impl ShardScan {
    pub fn new(input: Input, columns: Vec<usize>) -> Result<Self> {
        let schema = Arc::new(input.schema().project(&columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            input,
            columns,
            properties: Arc::new(properties),
        })
    }

    pub fn encode(&self) -> Result<Vec<u8>> {
        let schema = protobuf::Schema::try_from(self.input.schema().as_ref())?;
        let sent = Sent {
            input: self.input.clone(),
            columns: self.columns.clone(),
            schema: schema.encode_to_vec(),
        };
        serde_json::to_vec(&sent).map_err(|e| DataFusionError::External(e.into()))
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let external = |e| DataFusionError::External(e);
        let sent: Sent = serde_json::from_slice(bytes).map_err(|e| external(e.into()))?;
        let schema = protobuf::Schema::decode(sent.schema.as_slice());
        let schema = Schema::try_from(&schema.map_err(|e| external(e.into()))?)?;
        Self::new(sent.input.with_schema(Arc::new(schema)), sent.columns)
    }
}

impl DisplayAs for ShardScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "ShardScan: {}", self.input.path().display())
    }
}

impl ExecutionPlan for ShardScan {
    fn name(&self) -> &str {
        "ShardScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, ctx: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let columns = self.columns.clone();
        let batches = self.input.execute(ctx);
        let projected = batches.map(move |batch| {
            let batch = batch.map_err(|e| function::failed(&e))?;
            Ok(batch.project(&columns)?)
        });
        let schema = self.schema();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, projected)))
    }
}
