//! A task on an executor: Ballista's own, on a thread where it can be stopped, and told of until the scheduler knows its end.

use std::{fmt, sync::Arc};

use ballista_core::{
    JobId,
    serde::protobuf::{
        ExecutionError, FailedTask, ShuffleWritePartition, SuccessfulTask, TaskColumnStats,
        TaskStatus, failed_task::FailedReason, task_status,
    },
};
use ballista_executor::execution_engine::{
    DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor,
};
use datafusion::{
    error::{DataFusionError, Result},
    execution::TaskContext,
    physical_plan::{ExecutionPlan, metrics::MetricsSet},
    prelude::SessionConfig,
};
use futures::future::{Either, select};
use tokio::{runtime::Builder, sync::Semaphore, task::spawn_blocking};

use super::{
    function::{self, failed},
    link::Link,
    stop::Stop,
};

/// Makes tasks.
pub struct Tasks {
    ballista: DefaultExecutionEngine,
    /// As many as tasks at once: one that is stopped keeps its own until it has noticed, and a GPU has room for one.
    slots: Arc<Semaphore>,
    link: Link,
}

impl Tasks {
    pub fn new(at_once: usize, link: Link) -> Self {
        Self {
            ballista: DefaultExecutionEngine::new(),
            slots: Arc::new(Semaphore::new(at_once)),
            link,
        }
    }
}

impl ExecutionEngine for Tasks {
    fn create_query_stage_exec(
        &self,
        job: JobId,
        stage: usize,
        task: usize,
        partitions: Vec<usize>,
        plan: Arc<dyn ExecutionPlan>,
        work: &str,
        config: &SessionConfig,
    ) -> Result<Arc<dyn QueryStageExecutor>> {
        let ballista = self.ballista.create_query_stage_exec(
            job.clone(),
            stage,
            task,
            partitions,
            plan,
            work,
            config,
        )?;
        Ok(Arc::new(Task {
            ballista,
            job,
            stage,
            slots: self.slots.clone(),
            link: self.link.clone(),
        }))
    }
}

#[derive(Debug)]
struct Task {
    ballista: Arc<dyn QueryStageExecutor>,
    job: JobId,
    stage: usize,
    slots: Arc<Semaphore>,
    link: Link,
}

#[tonic::async_trait]
impl QueryStageExecutor for Task {
    /// Dropped where the job is cancelled.
    async fn execute_query_stage(
        &self,
        task: usize,
        ctx: Arc<TaskContext>,
    ) -> Result<Vec<ShuffleWritePartition>> {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|e| failed(&e))?;
        let attempt = attempt(&ctx);
        let stop = Stop::default();
        let _stopped_with_this = stop.on_drop();
        let ballista = self.ballista.clone();
        // What Ballista spawns stays on the thread, with a runtime of its own.
        let work = spawn_blocking(move || {
            let _slot = slot;
            let runtime = Builder::new_current_thread().enable_all().build()?;
            stop.during(|| runtime.block_on(ballista.execute_query_stage(task, ctx)))
        });
        let gone = Box::pin(self.link.until_gone(&self.job));
        let result = match select(work, gone).await {
            Either::Left((done, _)) => match done {
                Ok(result) => result.map_err(of_here),
                Err(panic) => Err(failed(&panic)),
            },
            Either::Right(_) => return Err(failed(&"nobody waits for the shard any more")),
        };
        let status = self.status(task, attempt, &result);
        tokio::spawn(self.link.clone().tell(status));
        result
    }

    fn collect_plan_metrics(&self) -> Vec<MetricsSet> {
        self.ballista.collect_plan_metrics()
    }

    fn collect_column_stats(&self) -> Vec<TaskColumnStats> {
        self.ballista.collect_column_stats()
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.ballista.fmt(f)
    }
}

impl Task {
    /// As Ballista tells it, without its measurements.
    fn status(
        &self,
        task: usize,
        attempt: u32,
        result: &Result<Vec<ShuffleWritePartition>>,
    ) -> TaskStatus {
        let status = match result {
            Ok(partitions) => task_status::Status::Successful(SuccessfulTask {
                executor_id: self.link.executor.clone(),
                partitions: partitions.clone(),
                ..SuccessfulTask::default()
            }),
            Err(error) => task_status::Status::Failed(FailedTask {
                error: error.to_string(),
                failed_reason: Some(FailedReason::ExecutionError(ExecutionError {})),
                ..FailedTask::default()
            }),
        };
        TaskStatus {
            task_id: task as u32,
            job_id: self.job.clone().into(),
            stage_id: self.stage as u32,
            stage_attempt_num: attempt,
            status: Some(status),
            ..TaskStatus::default()
        }
    }
}

/// The stage's attempt, of a task that Ballista names `TID job/stage.attempt/task.attempt`.
fn attempt(ctx: &TaskContext) -> u32 {
    let name = ctx.task_id();
    let stage = name.as_deref().and_then(|name| name.split('/').nth(1));
    let attempt = stage.and_then(|stage| stage.split('.').nth(1));
    attempt.and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// Names this executor, and is no error that Ballista would try again by itself: the build does.
fn of_here(error: DataFusionError) -> DataFusionError {
    match error.to_string().contains(function::ERROR) {
        true => error,
        false => failed(&error),
    }
}
