//! `intendex models`: which models there are, and whether a job's can be used.

use std::{io::Write, path::PathBuf};

use super::{ExitStatus, load_job};
use crate::{
    engine::models::Models,
    model::{ModelIdentity, source},
};

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
    /// Folders, files, or hub ids as ID@REVISION (an embedder) or ID@REVISION/FILE (a GGUF file).
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

pub fn run(args: ModelsArgs) -> anyhow::Result<ExitStatus> {
    match args.command {
        ModelsCommand::List => list(),
        ModelsCommand::Check(args) => check(&args),
        ModelsCommand::Path(args) => path(&args),
    }
}

fn list() -> anyhow::Result<ExitStatus> {
    let mut out = std::io::stdout().lock();
    for model in source::list() {
        writeln!(
            out,
            "{}@{}\t{}\t{}",
            model.id,
            model.revision,
            megabytes(model.bytes),
            model.folder.display()
        )?;
    }
    Ok(ExitStatus::Done)
}

fn check(args: &ModelsCheckArgs) -> anyhow::Result<ExitStatus> {
    let job = load_job(&args.job, &args.set)?;
    let models = Models::find(&job.models, job.models.generator.is_some())?;
    let embedder = models.embedder()?;
    let mut out = std::io::stdout().lock();
    describe(&mut out, "embedder", embedder.identity())?;
    writeln!(
        out,
        "  vectors of {}, texts of up to {} tokens, in {} on {}",
        embedder.dim(),
        embedder.max_text_tokens(),
        models.precision(),
        models.device()
    )?;
    if models.has_generator() {
        let generator = models.generator()?;
        describe(&mut out, "generator", generator.identity())?;
        let scores = if models.scorer()?.is_some() {
            "scores"
        } else {
            "cannot score"
        };
        writeln!(
            out,
            "  {} tokens of context, {scores}",
            generator.context_tokens()
        )?;
    }
    Ok(ExitStatus::Done)
}

fn describe(out: &mut impl Write, role: &str, identity: &ModelIdentity) -> std::io::Result<()> {
    writeln!(out, "{role}: {} ({})", identity.name, identity.architecture)?;
    for file in &identity.files {
        writeln!(
            out,
            "  {}\t{}\tblake3 {}",
            file.name,
            megabytes(file.bytes),
            file.blake3
        )?;
    }
    Ok(())
}

/// Fetches what is missing of a hub model.
fn path(args: &ModelsPathArgs) -> anyhow::Result<ExitStatus> {
    let mut out = std::io::stdout().lock();
    for name in &args.names {
        let path = source::locate(name)?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(ExitStatus::Done)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
