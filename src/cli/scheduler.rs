//! `intendex scheduler`: the Ballista scheduler of a cluster.

use std::net::SocketAddr;

use super::ExitStatus;
use crate::engine::cluster::scheduler;

/// Serves a cluster: takes the shards of builds that name it (`engine.cluster`), and gives them to executors.
///
/// Anyone who reaches its port can run jobs: keep it inside a private network. Ends with Ctrl-C.
#[derive(Debug, clap::Args)]
pub struct SchedulerArgs {
    /// Where to listen.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:50050",
        env = "INTENDEX_SCHEDULER_LISTEN"
    )]
    pub listen: SocketAddr,
    /// The name that executors reach this machine by; default: the address it listens on.
    #[arg(long, value_name = "HOST", env = "INTENDEX_SCHEDULER_HOST")]
    pub host: Option<String>,
}

pub fn run(args: SchedulerArgs) -> anyhow::Result<ExitStatus> {
    let host = host(args.host, args.listen)?;
    let runtime = tokio::runtime::Runtime::new()?;
    tracing::info!("serving df://{host}:{}", args.listen.port());
    runtime.block_on(scheduler::serve(args.listen, host))?;
    Ok(ExitStatus::Done)
}

/// What others reach an address by, which must be told where it is every address of a machine.
pub fn host(told: Option<String>, listen: SocketAddr) -> anyhow::Result<String> {
    anyhow::ensure!(
        told.is_some() || !listen.ip().is_unspecified(),
        "--listen {listen} is every address of this machine; say with --host which of them others reach it by"
    );
    Ok(told.unwrap_or_else(|| listen.ip().to_string()))
}
