//! `intendex build`: runs a job.

use std::{io::Write, path::PathBuf};

use clap::builder::BoolishValueParser;

use super::{Console, ExitStatus, load_job};
use crate::engine::{self, build::Options, stage::Stage};

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
    /// Start over: take nothing from an unfinished build.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "INTENDEX_BUILD_RESTART")]
    pub restart: bool,
    /// Stop after this stage and publish nothing; the next build goes on from there.
    #[arg(long, value_name = "NAME", value_parser = stage, env = "INTENDEX_BUILD_STAGE")]
    pub stage: Option<Stage>,
}

/// The job's stages that a build can be told to stop after.
fn stage(name: &str) -> Result<Stage, String> {
    let known = Stage::ALL.map(Stage::name);
    Stage::ALL
        .into_iter()
        .find(|stage| stage.name() == name)
        .ok_or_else(|| format!("there are: {}", known.join(", ")))
}

pub fn run(args: BuildArgs, console: &Console) -> anyhow::Result<ExitStatus> {
    let job = load_job(&args.job, &args.set)?;
    let options = Options {
        restart: args.restart,
        until: args.stage,
    };
    let summary = engine::build::build(&job, options, console.progress().into())?;
    let run = &summary.run;
    let rows = |stage: &str| run.stages.get(stage).map_or(0, |t| t.rows);
    let mut out = std::io::stdout().lock();
    match summary.generation {
        Some(number) => writeln!(
            out,
            "published generation {number} of {}: {} documents, {} chunks, {} questions, {} quarantined, {:.0} s",
            job.output.path.display(),
            rows("documents"),
            rows("chunks"),
            rows("queries"),
            run.quarantined,
            run.seconds,
        )?,
        None => writeln!(
            out,
            "stopped as told; nothing is published; the next build goes on from here"
        )?,
    }
    Ok(if run.quarantined > 0 {
        ExitStatus::Partial
    } else {
        ExitStatus::Done
    })
}
