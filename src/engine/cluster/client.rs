//! The build's side: sends a shard's plan, and gives its rows.

use std::{any::Any, path::PathBuf, sync::Arc, time::Duration};

use ballista_core::{
    config::BALLISTA_CLIENT_GRPC_MAX_MESSAGE_SIZE, execution_plans::execute_physical_plan,
    extension::SessionConfigExt,
};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    error::{DataFusionError, Result},
    execution::SendableRecordBatchStream,
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
    prelude::{DataFrame, SessionConfig, SessionContext},
};
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::TryStreamExt;
use url::Url;

use super::{MESSAGE_BYTES, codec::Codec, function, scan::ShardScan};
use crate::{
    engine::{EngineError, stage::Input},
    job::Job,
    store::{Dataset, Sending, StoreError},
};

/// Ballista's usual port.
pub const PORT: u16 = 50050;

/// How often a shard is sent where the cluster fails, the waits doubling from [`WAIT`]: half a minute in all, in which a
/// scheduler starts again.
const ATTEMPTS: u32 = 6;
const WAIT: Duration = Duration::from_secs(1);
/// How often a shard is sent whose function fails: perhaps on one machine only.
const FUNCTION_ATTEMPTS: u32 = 3;

/// A cluster that a build's map stages run on.
#[derive(Debug)]
pub struct Cluster {
    /// `http://host:port` of the scheduler.
    scheduler: String,
    codec: Codec,
    session: String,
    config: SessionConfig,
    generation: PathBuf,
    /// Where the output is on object storage, its parts go before the tasks that read them.
    sending: Option<Arc<Sending>>,
}

impl Cluster {
    /// The cluster at `df://host:port`, for a job whose generation is being built in this folder.
    pub fn new(
        url: &str,
        job: &Job,
        (generation, sending): (PathBuf, Option<Arc<Sending>>),
        ctx: &SessionContext,
    ) -> Result<Self, String> {
        let (host, port) = address(url)?;
        let config = ctx.copied_config().upgrade_for_ballista().set_str(
            BALLISTA_CLIENT_GRPC_MAX_MESSAGE_SIZE,
            &MESSAGE_BYTES.to_string(),
        );
        Ok(Self {
            scheduler: format!("http://{host}:{port}"),
            codec: Codec::of(
                job,
                match &sending {
                    Some(sending) => sending.address().into(),
                    None => generation.clone(),
                },
            ),
            session: ctx.session_id(),
            config,
            generation,
            sending,
        })
    }

    /// The input as executors find it.
    async fn shared(&self, input: &Input) -> Result<Input> {
        let Some(sending) = self.sending.clone() else {
            return Ok(input.absolute()?);
        };
        let mut parts = input.parts();
        parts.push(Dataset::Topics.part(&self.generation, 0));
        let offered = tokio::task::spawn_blocking(move || sending.offer(&parts)).await;
        let external = |error: StoreError| DataFusionError::External(error.into());
        let address = offered.map_err(|e| DataFusionError::External(e.into()))?;
        Ok(input.moved(&self.generation, &address.map_err(external)?))
    }

    /// Waits as long as is due after this attempt (from 1), unless it was the last.
    pub async fn sends_again(&self, attempt: u32, error: &EngineError) -> bool {
        let EngineError::Stage { source, .. } = error else {
            return false;
        };
        let is_function = source.to_string().contains(function::ERROR);
        let most = if is_function {
            FUNCTION_ATTEMPTS
        } else {
            ATTEMPTS
        };
        if attempt >= most {
            return false;
        }
        tracing::warn!("{error}; sending the shard again");
        if !is_function {
            tokio::time::sleep(WAIT * 2u32.pow(attempt - 1)).await;
        }
        true
    }

    /// Runs the plan of a shard whose input this is, on whichever executor is free.
    pub async fn stream(
        &self,
        frame: DataFrame,
        input: &Input,
    ) -> Result<SendableRecordBatchStream> {
        let input = self.shared(input).await?;
        let plan = frame.create_physical_plan().await?;
        let plan = plan.transform_up(|node| {
            let any: &dyn Any = node.as_ref();
            let Some(scan) = any.downcast_ref::<StreamingTableExec>() else {
                return Ok(Transformed::no(node));
            };
            let all = 0..input.schema().fields().len();
            let columns = scan
                .projection()
                .as_ref()
                .map_or_else(|| all.collect(), |p| p.to_vec());
            let scan: Arc<dyn ExecutionPlan> = Arc::new(ShardScan::new(input.clone(), columns)?);
            Ok(Transformed::yes(scan))
        })?;
        let settings = self.config.ballista_config();
        let rows = execute_physical_plan::<PhysicalPlanNode>(
            self.scheduler.clone(),
            &settings,
            plan.data,
            &self.codec,
            self.session.clone(),
            self.config.clone(),
        );
        let scheduler = self.scheduler.clone();
        let plain = move |error| plain(&scheduler, error);
        let rows = rows.await.map_err(&plain)?;
        let schema = rows.schema();
        let rows = rows.map_err(plain);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// What an executor said, without what Ballista has wrapped around it; or of which cluster an error is.
fn plain(scheduler: &str, error: DataFusionError) -> DataFusionError {
    let text = error.to_string();
    let Some(own) = text.find(function::ERROR).map(|at| &text[at..]) else {
        if text.contains("ConnectError") {
            let remedy = "is `intendex scheduler` running there, and can it be reached?";
            return DataFusionError::Execution(format!("nothing answers at {scheduler}; {remedy}"));
        }
        return DataFusionError::Execution(format!("the cluster at {scheduler}: {text}"));
    };
    let own = own.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, ')' | '"'));
    DataFusionError::Execution(own.replace("\\\"", "\""))
}

/// Host and port of `df://host:port`.
pub fn address(url: &str) -> Result<(String, u16), String> {
    let wrong = || format!("{url}: must be df://HOST:PORT");
    let parsed = Url::parse(url).map_err(|_| wrong())?;
    match (parsed.scheme(), parsed.host_str()) {
        ("df", Some(host)) => Ok((host.to_owned(), parsed.port().unwrap_or(PORT))),
        _ => Err(wrong()),
    }
}
