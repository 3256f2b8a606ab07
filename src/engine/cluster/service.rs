//! The scheduler's service: Ballista's own, but a job whose build has gone is cancelled.
//!
//! A build follows each of its jobs on a stream, which closes with the build, however it ends: an error, Ctrl-C, `kill -9`, a
//! cut cable. Ballista by itself would have the job computed all the same.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ballista_core::{
    ids::new_instance_id,
    serde::protobuf::{scheduler_grpc_server::SchedulerGrpc, *},
};
use ballista_scheduler::scheduler_server::{JobIdGenerator, SchedulerServer};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use futures::{Stream, StreamExt, stream::BoxStream};
use tonic::{Request, Response, Status};

use super::is_running;

/// How long a job that is cancelled is given before it is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// The job that a request has become.
    static JOB: RefCell<String>;
}

/// Names jobs, and tells their requests, to which Ballista names them only when they are done.
pub struct JobIds;

#[tonic::async_trait]
impl JobIdGenerator for JobIds {
    async fn next_id(&self) -> String {
        let id = new_instance_id();
        // An error means that nobody follows the job.
        let _ = JOB.try_with(|job| job.replace(id.clone()));
        id
    }
}

type Ballista = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;
type Answer<T> = Result<Response<T>, Status>;
type Statuses = BoxStream<'static, Result<GetJobStatusResult, Status>>;

pub struct Service(pub Arc<Ballista>);

impl Service {
    async fn follow(&self, request: Request<ExecuteQueryParams>) -> Answer<Statuses> {
        let submitted = async {
            let answer = self.0.execute_query_push(request).await;
            (answer, JOB.with(RefCell::take))
        };
        let (answer, job) = JOB.scope(RefCell::default(), submitted).await;
        Ok(answer?.map(|statuses| {
            let followed = Followed {
                statuses: statuses.boxed(),
                job,
                is_over: false,
                ballista: self.0.clone(),
            };
            followed.boxed()
        }))
    }
}

/// What a build is told of a job; the job ends with it.
struct Followed {
    statuses: Statuses,
    job: String,
    is_over: bool,
    ballista: Arc<Ballista>,
}

impl Stream for Followed {
    type Item = Result<GetJobStatusResult, Status>;

    fn poll_next(mut self: Pin<&mut Self>, ctx: &mut Context) -> Poll<Option<Self::Item>> {
        let next = self.statuses.poll_next_unpin(ctx);
        self.is_over |= match &next {
            Poll::Ready(Some(Ok(told))) => !is_running(told),
            Poll::Ready(_) => true,
            Poll::Pending => false,
        };
        next
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        if !self.is_over {
            tracing::info!("job {} is cancelled: its build has gone", self.job);
            tokio::spawn(cancel(self.ballista.clone(), self.job.clone()));
        }
    }
}

/// A job that is still being planned is not cancelled by being told so.
async fn cancel(ballista: Arc<Ballista>, job_id: String) {
    loop {
        if let Err(error) = ballista.cancel_job(job_id.clone().into()).await {
            tracing::warn!("job {job_id} is not cancelled: {error}");
        }
        tokio::time::sleep(AGAIN).await;
        let job_id = job_id.clone();
        let asked = Request::new(GetJobStatusParams { job_id });
        let told = ballista.get_job_status(asked).await;
        if !told.is_ok_and(|told| is_running(told.get_ref())) {
            return;
        }
    }
}

/// All methods but the one that is followed are Ballista's.
macro_rules! service {
    ($($method:ident($asked:ty) -> $told:ty;)*) => {
        #[tonic::async_trait]
        impl SchedulerGrpc for Service {
            type ExecuteQueryPushStream = Statuses;

            async fn execute_query_push(
                &self,
                request: Request<ExecuteQueryParams>,
            ) -> Answer<Statuses> {
                self.follow(request).await
            }

            $(async fn $method(&self, request: Request<$asked>) -> Answer<$told> {
                SchedulerGrpc::$method(&*self.0, request).await
            })*
        }
    };
}

service! {
    poll_work(PollWorkParams) -> PollWorkResult;
    register_executor(RegisterExecutorParams) -> RegisterExecutorResult;
    heart_beat_from_executor(HeartBeatParams) -> HeartBeatResult;
    update_task_status(UpdateTaskStatusParams) -> UpdateTaskStatusResult;
    create_update_session(CreateUpdateSessionParams) -> CreateUpdateSessionResult;
    remove_session(RemoveSessionParams) -> RemoveSessionResult;
    execute_query(ExecuteQueryParams) -> ExecuteQueryResult;
    get_job_status(GetJobStatusParams) -> GetJobStatusResult;
    get_job_metrics(GetJobMetricsParams) -> GetJobMetricsResult;
    executor_stopped(ExecutorStoppedParams) -> ExecutorStoppedResult;
    cancel_job(CancelJobParams) -> CancelJobResult;
    clean_job_data(CleanJobDataParams) -> CleanJobDataResult;
}
