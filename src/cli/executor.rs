//! `intendex executor`: a machine, or a GPU of one, that works for a cluster.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread};

use super::{ExitStatus, scheduler::host};
use crate::{
    engine::cluster::{client, executor},
    model::device::device,
};

/// Works for a cluster: loads the models of the jobs it is given, once, and computes their shards.
///
/// It reads models and the builds' output folders from the same paths as the builds do. Start one for each GPU
/// (CUDA_VISIBLE_DEVICES, or --device). Ends with Ctrl-C; others compute what it was at.
#[derive(Debug, clap::Args)]
pub struct ExecutorArgs {
    /// The scheduler it works for.
    #[arg(long, value_name = "df://HOST:PORT", value_parser = client::address, env = "INTENDEX_EXECUTOR_SCHEDULER")]
    pub scheduler: (String, u16),
    /// Where results are fetched; the port after it is used, too.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:50051",
        env = "INTENDEX_EXECUTOR_LISTEN"
    )]
    pub listen: SocketAddr,
    /// The name that builds and the scheduler reach this machine by; default: the address it listens on.
    #[arg(long, value_name = "HOST", env = "INTENDEX_EXECUTOR_HOST")]
    pub host: Option<String>,
    /// Shards at once; default: 1 on a GPU, on CPUs one for every four.
    #[arg(long, value_name = "N", env = "INTENDEX_EXECUTOR_TASKS")]
    pub tasks: Option<NonZeroUsize>,
    /// Where models run: auto, cpu or cuda:N.
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "auto",
        env = "INTENDEX_EXECUTOR_DEVICE"
    )]
    pub device: String,
    /// Jobs whose models are kept at once, where builds of several jobs take turns: their memory adds up.
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        env = "INTENDEX_EXECUTOR_JOBS"
    )]
    pub jobs: NonZeroUsize,
    /// Folder for results until they are fetched; default: one for temporary files.
    #[arg(long, value_name = "FOLDER", env = "INTENDEX_EXECUTOR_WORK")]
    pub work: Option<PathBuf>,
}

/// CPUs that a model's own parallelism keeps busy.
const CPUS_OF_A_TASK: usize = 4;

pub fn run(args: ExecutorArgs) -> anyhow::Result<ExitStatus> {
    let on_cpu = device(&args.device)?.is_cpu();
    let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let usual = if on_cpu {
        (cpus / CPUS_OF_A_TASK).max(1)
    } else {
        1
    };
    let options = executor::Options {
        scheduler: args.scheduler,
        address: args.listen,
        host: host(args.host, args.listen)?,
        tasks: args.tasks.map_or(usual, NonZeroUsize::get),
        work: args.work,
        device: args.device,
        jobs: args.jobs.get(),
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(executor::serve(options))?;
    Ok(ExitStatus::Done)
}
