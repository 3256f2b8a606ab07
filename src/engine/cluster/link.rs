//! What an executor asks the scheduler, and tells it, of its own accord.
//!
//! Ballista tells a task's end once. Where that message is lost, the scheduler has the job running, and its build waits, for
//! ever; and an executor never hears of a job that a scheduler has forgotten.

use std::time::Duration;

use ballista_core::{
    JobId,
    serde::protobuf::{
        GetJobStatusParams, TaskStatus, UpdateTaskStatusParams,
        scheduler_grpc_client::SchedulerGrpcClient,
    },
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{MESSAGE_BYTES, executor::HEARTBEAT_SECONDS, is_running};

const INTERVAL: Duration = Duration::from_secs(HEARTBEAT_SECONDS);

/// How long Ballista's own message of an end is given.
const OWN_MESSAGE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub struct Link {
    scheduler: SchedulerGrpcClient<Channel>,
    /// Ballista's name of this executor.
    pub executor: String,
}

impl Link {
    /// To the scheduler at `http://host:port`, which need not be there yet.
    pub fn new(url: String, executor: String) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(url)?;
        let endpoint = endpoint.connect_timeout(INTERVAL).timeout(INTERVAL);
        let bytes = MESSAGE_BYTES as usize;
        let scheduler = SchedulerGrpcClient::new(endpoint.connect_lazy())
            .max_encoding_message_size(bytes)
            .max_decoding_message_size(bytes);
        Ok(Self {
            scheduler,
            executor,
        })
    }

    async fn is_running(&self, job_id: &str) -> Result<bool, Status> {
        let job_id = job_id.to_owned();
        let mut scheduler = self.scheduler.clone();
        let told = scheduler
            .get_job_status(GetJobStatusParams { job_id })
            .await?;
        Ok(is_running(told.get_ref()))
    }

    /// Returns once the scheduler says that this job is over, or not its own. A scheduler that does not answer says nothing.
    pub async fn until_gone(&self, job: &JobId) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Ok(false) = self.is_running(job.as_str()).await {
                return;
            }
        }
    }

    /// Tells the end of a task whose job runs on after it, once: where it does so by right, as when others have got the
    /// task, the scheduler knows that.
    pub async fn tell(self, status: TaskStatus) {
        tokio::time::sleep(OWN_MESSAGE).await;
        loop {
            match self.is_running(&status.job_id).await {
                Ok(true) if self.update(status.clone()).await.is_ok() => return,
                Ok(false) => return,
                _ => tokio::time::sleep(INTERVAL).await,
            }
        }
    }

    async fn update(&self, status: TaskStatus) -> Result<(), Status> {
        tracing::warn!("job {} runs on; its end is told again", status.job_id);
        let told = UpdateTaskStatusParams {
            executor_id: self.executor.clone(),
            task_status: vec![status],
        };
        self.scheduler.clone().update_task_status(told).await?;
        Ok(())
    }
}
