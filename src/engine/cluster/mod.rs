//! Map stages on an Apache Ballista cluster (feature `cluster`).
//!
//! A shard of a stage is one Ballista job of one task: the plan that DataFusion makes of the stage's SQL here, sent as it is
//! ([`codec`]), so that parts, resume and quarantine are those of a local build. Executors read the shard's parts from the
//! same path as the build, or from object storage ([`scan`]), load the job's models once ([`function`]), and send the rows back; the build writes them.
//! What nobody waits for is stopped ([`service`], [`task`]), and an end is told until it is known ([`link`]).

pub mod client;
mod codec;
pub mod executor;
mod function;
mod link;
mod scan;
pub mod scheduler;
mod service;
mod stop;
mod task;

use ballista_core::serde::protobuf::{GetJobStatusResult, job_status::Status};

/// Largest message between the processes, in bytes: a plan holds a whole job, a row may hold a whole document.
const MESSAGE_BYTES: u32 = 1 << 30;

/// Whether a job is neither over nor unknown.
fn is_running(told: &GetJobStatusResult) -> bool {
    let status = told.status.as_ref().and_then(|job| job.status.as_ref());
    matches!(status, Some(Status::Queued(_) | Status::Running(_)))
}
