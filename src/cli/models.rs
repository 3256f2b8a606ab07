//! `intendex models`: which models there are, and whether a job's can be used.

use std::path::PathBuf;

use super::{Console, ExitStatus};
use crate::job::Job;

/// Lists, checks and finds models.
#[derive(Debug, clap::Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    pub command: ModelsCommand,
}

#[derive(Debug, clap::Subcommand)]
pub enum ModelsCommand {
    /// Lists the models in the hub's cache.
    List,
    Check(ModelsCheckArgs),
    Path(ModelsPathArgs),
}

/// Loads the models of a job, fetching what is missing, and says what they are.
#[derive(Debug, clap::Args)]
pub struct ModelsCheckArgs {
    /// The job file (TOML).
    #[arg(value_name = "JOB")]
    pub job: PathBuf,
    /// Change a key of the job; may be repeated, in the environment one assignment a line.
    #[arg(
        long,
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        env = "INTENDEX_MODELS_CHECK_SET"
    )]
    pub set: Vec<String>,
}

/// Prints where models are on this machine, one path a line.
#[derive(Debug, clap::Args)]
pub struct ModelsPathArgs {
    /// Folders, files, or hub ids as ID@REVISION.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

pub fn run(args: ModelsArgs, console: &Console) -> anyhow::Result<ExitStatus> {
    let _ = console;
    match args.command {
        ModelsCommand::List => anyhow::bail!("not connected: model list"),
        ModelsCommand::Path(args) => anyhow::bail!("not connected: model path {:?}", args.names),
        ModelsCommand::Check(args) => {
            let job = Job::load(&args.job, &args.set)?;
            anyhow::bail!("not connected: model check {}", job.models.embedder.model)
        }
    }
}
