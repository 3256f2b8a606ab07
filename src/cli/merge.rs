//! `intendex merge`: several published indexes as one.

use std::{io::Write, path::PathBuf};

use super::{Console, ExitStatus};
use crate::engine::{self, EngineError};

/// Publishes what several indexes have together, without computing anything again.
///
/// They must have been built alike (the same models, parameters and columns), of different documents.
#[derive(Debug, clap::Args)]
pub struct MergeArgs {
    /// The output folders of the jobs, in the order of their documents.
    #[arg(value_name = "OUT", num_args = 2.., required = true)]
    pub outputs: Vec<PathBuf>,
    /// The output folder to publish to: a new one, or that of a job of the same name.
    #[arg(long, value_name = "OUT", env = "INTENDEX_MERGE_INTO")]
    pub into: PathBuf,
    /// Name of the job that it is the output of; default: that of the first index.
    #[arg(long, value_name = "NAME", env = "INTENDEX_MERGE_NAME")]
    pub name: Option<String>,
}

pub fn run(args: MergeArgs, console: &Console) -> anyhow::Result<ExitStatus> {
    let name = args.name.as_deref();
    let progress = console.progress();
    let summary = engine::merge::merge(&args.outputs, &args.into, name, &*progress)
        .map_err(EngineError::with_remedy)?;
    let rows = |stage: &str| summary.run.stages.get(stage).map_or(0, |tally| tally.rows);
    writeln!(
        std::io::stdout().lock(),
        "published generation {} of {}: {} documents, {} chunks, {} questions of {} indexes, {:.0} s",
        summary.number,
        args.into.display(),
        rows("documents"),
        rows("chunks"),
        rows("queries"),
        args.outputs.len(),
        summary.run.seconds,
    )?;
    Ok(ExitStatus::Done)
}
