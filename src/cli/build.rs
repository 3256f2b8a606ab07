//! `intendex build`: runs a job.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;

use super::{Console, ExitStatus};
use crate::job::Job;

/// Runs a job: reads the corpus and publishes a new generation of the index.
///
/// A build that was ended continues where it was.
#[derive(Debug, clap::Args)]
pub struct BuildArgs {
    /// The job file (TOML).
    #[arg(value_name = "JOB")]
    pub job: PathBuf,
    /// Change a key of the job; may be repeated, in the environment one assignment a line.
    #[arg(
        long,
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        env = "INTENDEX_BUILD_SET"
    )]
    pub set: Vec<String>,
    /// Start over: take nothing from an unfinished build or the last generation.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "INTENDEX_BUILD_RESTART")]
    pub restart: bool,
    /// Stop after this stage; nothing is published unless it is the last.
    #[arg(long, value_name = "NAME", env = "INTENDEX_BUILD_STAGE")]
    pub stage: Option<String>,
}

pub fn run(args: BuildArgs, console: &Console) -> anyhow::Result<ExitStatus> {
    let job = Job::load(&args.job, &args.set)?;
    let progress = console.progress();
    let _ = (job, args.restart, args.stage, progress);
    anyhow::bail!("not connected: engine::build")
}
