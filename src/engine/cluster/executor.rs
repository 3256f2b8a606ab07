//! An executor's process: Ballista's own, with the map stages' functions.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use ballista_core::{error::BallistaError, ids::new_instance_id};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use tokio::net::TcpStream;

use super::{MESSAGE_BYTES, codec::Codec, link::Link, task::Tasks};

/// Ballista ends an executor whose scheduler has not answered five of these.
pub const HEARTBEAT_SECONDS: u64 = 10;

/// How long an executor waits for a scheduler that is not there yet.
const CONNECT_SECONDS: u16 = 600;

#[derive(Debug, Clone)]
pub struct Options {
    /// Where the scheduler is.
    pub scheduler: (String, u16),
    /// Where results are fetched; tasks are taken on the next port.
    pub address: SocketAddr,
    /// The name that builds and the scheduler reach this machine by.
    pub host: String,
    /// Tasks at once.
    pub tasks: usize,
    /// Where results lie until they are fetched; default: a folder for temporary files.
    pub work: Option<PathBuf>,
    /// Where models run, as `models.device` in a job.
    pub device: String,
    /// Jobs whose models are kept.
    pub jobs: usize,
}

/// What the functions of this process know of it.
struct Place {
    name: String,
    device: String,
    jobs: usize,
}

static PLACE: OnceLock<Place> = OnceLock::new();

/// What this process is called in errors.
pub fn name() -> &'static str {
    PLACE.get().map_or("(scheduler)", |place| &place.name)
}

/// Where this process's models run.
pub fn device() -> &'static str {
    PLACE.get().map_or("auto", |place| &place.device)
}

/// Jobs whose models this process keeps at once.
pub fn jobs() -> usize {
    PLACE.get().map_or(1, |place| place.jobs)
}

/// Serves until the process is ended.
pub async fn serve(options: Options) -> Result<(), BallistaError> {
    let place = Place {
        name: format!("{}:{}", options.host, options.address.port()),
        device: options.device,
        jobs: options.jobs,
    };
    // An error means that the process serves already.
    let _ = PLACE.set(place);
    let (scheduler_host, scheduler_port) = options.scheduler;
    // Ballista's own is gone before it is used.
    let temporary = tempfile::tempdir()?;
    let work = options.work.as_deref().unwrap_or(temporary.path());
    let executor_id = new_instance_id();
    let url = format!("http://{scheduler_host}:{scheduler_port}");
    let link = Link::new(url, executor_id.clone()).map_err(BallistaError::TonicError)?;
    let scheduler = format!("df://{scheduler_host}:{scheduler_port}");
    let reached = TcpStream::connect((scheduler_host.as_str(), scheduler_port)).await;
    match reached {
        Ok(_) => tracing::info!("takes tasks of {scheduler}"),
        Err(error) => tracing::warn!(
            "{scheduler} does not answer ({error}); waiting for it, {} minutes at most",
            CONNECT_SECONDS / 60
        ),
    }
    let config = ExecutorProcessConfig {
        executor_id,
        bind_host: options.address.ip().to_string(),
        external_host: Some(options.host),
        port: options.address.port(),
        grpc_port: options.address.port() + 1,
        scheduler_host,
        scheduler_port,
        scheduler_connect_timeout_seconds: CONNECT_SECONDS,
        vcores: options.tasks,
        work_dir: Some(work.display().to_string()),
        executor_heartbeat_interval_seconds: HEARTBEAT_SECONDS,
        // The scheduler has results removed that a build has fetched. What is left over goes after Ballista's usual week: a task's own
        // files count as left over, too, when they have not changed for so long.
        job_data_clean_up_interval_seconds: 3600,
        grpc_max_decoding_message_size: MESSAGE_BYTES,
        grpc_max_encoding_message_size: MESSAGE_BYTES,
        override_physical_codec: Some(Arc::new(Codec::default())),
        override_execution_engine: Some(Arc::new(Tasks::new(options.tasks, link))),
        ..ExecutorProcessConfig::default()
    };
    start_executor_process(Arc::new(config)).await
}
