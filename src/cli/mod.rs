//! The command line: one file per subcommand, each with its arguments and `run(args)`.
//!
//! Results go to stdout, everything else to stderr. Every flag has an environment name,
//! `INTENDEX_<COMMAND>_<FLAG>`, and `INTENDEX_<FLAG>` where it is global; a variable that is empty counts as not set.

mod arguments;
mod build;
mod completions;
mod console;
mod eval;
mod examples;
#[cfg(feature = "cluster")]
mod executor;
mod gc;
mod generations;
mod import;
mod inspect;
mod man;
mod merge;
mod models;
mod out;
mod plan;
mod processor;
mod progress;
mod rollback;
#[cfg(feature = "cluster")]
mod scheduler;
mod schema;
mod search;
mod signals;
mod verify;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, Subcommand};

pub use console::{Console, LogFormat};

use crate::{
    engine::models::Models,
    job::{Job, JobError},
    model::ModelError,
    store::Manifest,
};

/// Builds a search index from a Parquet corpus: documents cut where they speak for it, each chunk with the questions
/// it answers, one sparse and one dense index over the same chunks.
#[derive(Debug, Parser)]
#[command(name = "intendex", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub console: console::ConsoleArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Import(import::ImportArgs),
    Plan(plan::PlanArgs),
    Build(build::BuildArgs),
    Merge(merge::MergeArgs),
    Search(search::SearchArgs),
    Inspect(inspect::InspectArgs),
    Examples(examples::ExamplesArgs),
    Verify(verify::VerifyArgs),
    Generations(generations::GenerationsArgs),
    Rollback(rollback::RollbackArgs),
    Gc(gc::GcArgs),
    Eval(eval::EvalArgs),
    Models(models::ModelsArgs),
    #[cfg(feature = "cluster")]
    Scheduler(scheduler::SchedulerArgs),
    #[cfg(feature = "cluster")]
    Executor(executor::ExecutorArgs),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// How a command ended, other than by an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Everything was done: 0.
    Done,
    /// Done, but rows went to quarantine or a check failed: 1.
    Partial,
}

/// Usage or fatal error.
const FATAL: u8 = 2;
/// Bad job file (EX_CONFIG of sysexits.h).
const BAD_JOB: u8 = 78;

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Done => ExitCode::from(0),
            ExitStatus::Partial => ExitCode::from(1),
        }
    }
}

/// Parses the arguments, runs the command, and gives its exit code.
pub fn main() -> ExitCode {
    use_every_core();
    let cli = match arguments::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let console = Console::start(&cli.console);
    match run(cli.command, &console) {
        Ok(status) => status.into(),
        // The reader of our stdout has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitStatus::Done.into(),
        Err(error) => {
            console.error(&error);
            ExitCode::from(if is_bad_job(&error) { BAD_JOB } else { FATAL })
        }
    }
}

/// candle counts physical cores, rayon logical ones; this variable makes both use all that the process may run on.
fn use_every_core() {
    const THREADS: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(THREADS).is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // SAFETY: the first thing that the program does; there is no other thread yet that could read it.
        unsafe { std::env::set_var(THREADS, cores.to_string()) };
    }
}

fn run(command: Command, console: &Console) -> anyhow::Result<ExitStatus> {
    processor::check()?;
    match command {
        Command::Import(args) => import::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Build(args) => build::run(args, console),
        Command::Merge(args) => merge::run(args, console),
        Command::Search(args) => search::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Examples(args) => examples::run(args),
        Command::Verify(args) => verify::run(args, console),
        Command::Generations(args) => generations::run(args),
        Command::Rollback(args) => rollback::run(args),
        Command::Gc(args) => gc::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Models(args) => models::run(args),
        #[cfg(feature = "cluster")]
        Command::Scheduler(args) => scheduler::run(args),
        #[cfg(feature = "cluster")]
        Command::Executor(args) => executor::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}

/// Reads a job file; a job without a name is called after its file.
fn load_job(path: &Path, overrides: &[String]) -> Result<Job, JobError> {
    let mut job = Job::load(path, overrides)?;
    job.name.get_or_insert_with(|| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    });
    Ok(job)
}

/// Finds the embedder of an index: where `model` says, else where it lay during the build, else where the job names it.
fn built_with(
    manifest: &Manifest,
    model: Option<&str>,
    device: &str,
    offline: bool,
) -> Result<Models, ModelError> {
    let mut models = manifest.parameters.models.clone();
    models.device = device.to_owned();
    models.offline |= offline;
    let mut files = manifest.embedder.files.iter();
    let recorded = files.find(|file| file.name == "config.json");
    let folder = recorded.and_then(|file| file.path.parent());
    if let Some(model) = model {
        models.embedder.model = model.to_owned();
    } else if let Some(folder) = folder.filter(|folder| folder.is_dir()) {
        models.embedder.model = folder.to_string_lossy().into_owned();
    }
    Models::find(&models, false)
}

/// A number of things of which there must be one.
fn at_least_one<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(n) if n >= T::from(1) => Ok(n),
        _ => Err("must be a whole number, at least 1".into()),
    }
}

fn is_bad_job(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<JobError>())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ResultFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command, CommandFactory};

    use super::Cli;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_name() {
        fn expected(path: &[String], arg: &Arg) -> String {
            let flag = arg.get_long().unwrap_or_default();
            let mut parts = path.to_vec();
            parts.push(flag.to_string());
            format!("INTENDEX_{}", parts.join("_"))
                .to_uppercase()
                .replace('-', "_")
        }
        fn walk(command: &Command, path: &[String]) -> usize {
            let flags = command.get_arguments().filter(|arg| {
                !arg.is_positional() && !["help", "version"].contains(&arg.get_id().as_str())
            });
            let mut seen = 0;
            for arg in flags {
                let env = arg.get_env().map(|env| env.to_string_lossy().into_owned());
                assert_eq!(env, Some(expected(path, arg)), "{path:?} {}", arg.get_id());
                seen += 1;
            }
            for sub in command.get_subcommands() {
                let mut path = path.to_vec();
                path.push(sub.get_name().to_string());
                seen += walk(sub, &path);
            }
            seen
        }
        assert!(walk(&Cli::command(), &[]) > 20);
    }
}
