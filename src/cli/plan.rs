//! `intendex plan`: what a build would do.

use super::{ExitStatus, ResultFormat};
use crate::job::Job;

/// Shows what a build would run, why, and on how many rows and tokens; runs nothing.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// The job file (TOML).
    #[arg(value_name = "JOB")]
    pub job: std::path::PathBuf,
    /// Change a key of the job; may be repeated, in the environment one assignment a line.
    #[arg(
        long,
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        env = "INTENDEX_PLAN_SET"
    )]
    pub set: Vec<String>,
    /// How the plan is written.
    #[arg(long, value_enum, default_value = "text", env = "INTENDEX_PLAN_FORMAT")]
    pub format: ResultFormat,
}

pub fn run(args: PlanArgs) -> anyhow::Result<ExitStatus> {
    let job = Job::load(&args.job, &args.set)?;
    let _ = (job, args.format);
    anyhow::bail!("not connected: engine::plan")
}
