//! Plans between the processes: Ballista's own nodes, our scan and our functions.

use std::{any::Any, path::PathBuf, sync::Arc};

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::{
    error::Result, execution::TaskContext, logical_expr::ScalarUDF, physical_plan::ExecutionPlan,
};
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};

use super::{
    function::{Definition, Remote},
    scan::ShardScan,
};
use crate::{engine::functions::MapFunction, job::Job};

/// Begins what Ballista's codec does not know.
const MARK: &[u8] = b"intendex ShardScan ";

/// With the job on the side of the build; the other processes hand on what they get.
#[derive(Debug, Default)]
pub struct Codec {
    ballista: BallistaPhysicalExtensionCodec,
    job: Option<Sent>,
}

/// What a function needs beyond its name.
#[derive(Debug)]
struct Sent {
    job: Job,
    generation: PathBuf,
}

impl Codec {
    /// `generation` is the folder being built, as executors see it.
    pub fn of(job: &Job, generation: PathBuf) -> Self {
        Self {
            ballista: BallistaPhysicalExtensionCodec::default(),
            job: Some(Sent {
                job: job.clone(),
                generation,
            }),
        }
    }
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match bytes.strip_prefix(MARK) {
            Some(own) => Ok(Arc::new(ShardScan::decode(own)?)),
            None => self.ballista.try_decode(bytes, inputs, ctx, converter),
        }
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let any: &dyn Any = node.as_ref();
        match any.downcast_ref::<ShardScan>() {
            Some(scan) => {
                bytes.extend_from_slice(MARK);
                bytes.extend(scan.encode()?);
                Ok(())
            }
            None => self.ballista.try_encode(node, bytes, converter),
        }
    }

    fn try_decode_udf(&self, name: &str, bytes: &[u8]) -> Result<Arc<ScalarUDF>> {
        match Definition::decode(bytes) {
            Some(definition) => Ok(Arc::new(ScalarUDF::from(Remote::new(definition?)))),
            None => self.ballista.try_decode_udf(name, bytes),
        }
    }

    fn try_encode_udf(&self, function: &ScalarUDF, bytes: &mut Vec<u8>) -> Result<()> {
        let any: &dyn Any = function.inner().as_ref();
        if let Some(remote) = any.downcast_ref::<Remote>() {
            return remote.definition().encode(bytes);
        }
        match (any.downcast_ref::<MapFunction>(), &self.job) {
            (Some(own), Some(sent)) => {
                Definition::new(own.stage(), &sent.job, &sent.generation).encode(bytes)
            }
            _ => self.ballista.try_encode_udf(function, bytes),
        }
    }
}
