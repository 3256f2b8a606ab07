//! `intendex plan`: what a build would do.

use std::io::Write;

use super::{ExitStatus, ResultFormat, load_job};
use crate::engine;

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
    let job = load_job(&args.job, &args.set)?;
    let plan = engine::plan::plan(&job)?;
    let mut out = std::io::stdout().lock();
    if args.format == ResultFormat::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
        return Ok(ExitStatus::Done);
    }
    writeln!(
        out,
        "{:<16}{:>12}{:>16}{:>16}  why",
        "stage", "rows", "tokens read", "written"
    )?;
    for stage in &plan.stages {
        let about = if stage.estimate.is_some() { "~" } else { "" };
        let count = |n: u64| format!("{about}{n}");
        let (rows, read, written) = (
            count(stage.rows),
            count(stage.tokens_read),
            count(stage.tokens_written),
        );
        writeln!(
            out,
            "{:<16}{rows:>12}{read:>16}{written:>16}  {}",
            stage.stage, stage.reason
        )?;
    }
    for stage in &plan.stages {
        if let Some(basis) = &stage.estimate {
            writeln!(out, "~ {}: {basis}", stage.stage)?;
        }
    }
    if plan.up_to_date {
        writeln!(out, "the published index was built by this very plan")?;
    }
    Ok(ExitStatus::Done)
}
