//! `intendex plan`: what a build would do.

use std::{collections::BTreeMap, io::Write, num::NonZeroU64};

use super::{ExitStatus, ResultFormat, load_job};
use crate::engine::{
    self, EngineError,
    plan::{Left, Plan, Suppose},
};

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
    /// Also what the job would come to on corpora of so many documents, from nothing, at the rates of the last run or those given.
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        env = "INTENDEX_PLAN_DOCUMENTS"
    )]
    pub documents: Vec<NonZeroU64>,
    /// With --documents: on so many executors of a cluster.
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1",
        requires = "documents",
        env = "INTENDEX_PLAN_EXECUTORS"
    )]
    pub executors: Vec<NonZeroU64>,
    /// Suppose that a stage computes so many of its input rows a second, as on other hardware, and not as in the last run; may be
    /// repeated.
    #[arg(
        long,
        value_name = "STAGE=ROWS",
        value_delimiter = ',',
        value_parser = rate,
        env = "INTENDEX_PLAN_RATE"
    )]
    pub rate: Vec<(String, f64)>,
    /// How the plan is written.
    #[arg(long, value_enum, default_value = "text", env = "INTENDEX_PLAN_FORMAT")]
    pub format: ResultFormat,
}

pub fn run(args: PlanArgs) -> anyhow::Result<ExitStatus> {
    let job = load_job(&args.job, &args.set)?;
    let numbers = |numbers: &[NonZeroU64]| numbers.iter().map(|n| n.get()).collect();
    let mut rates = BTreeMap::new();
    for (stage, rows) in args.rate {
        if rates.insert(stage.clone(), rows).is_some() {
            anyhow::bail!("--rate gives two rates for {stage}");
        }
    }
    let suppose = Suppose {
        documents: numbers(&args.documents),
        executors: numbers(&args.executors),
        rates,
    };
    let plan = engine::plan::plan(&job, &suppose).map_err(EngineError::with_remedy)?;
    let mut out = std::io::stdout().lock();
    if args.format == ResultFormat::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
        return Ok(ExitStatus::Done);
    }
    writeln!(
        out,
        "{:<16}{:>10}{:>10}{:>14}{:>12}{:>9}  why",
        "stage", "compute", "reuse", "tokens read", "written", "time"
    )?;
    for stage in &plan.stages {
        let about = if stage.estimate.is_some() { "~" } else { "" };
        let count = |n: u64| format!("{about}{n}");
        writeln!(
            out,
            "{:<16}{:>10}{:>10}{:>14}{:>12}{:>9}  {}",
            stage.stage,
            count(stage.compute),
            stage.reuse,
            count(stage.tokens_read),
            count(stage.tokens_written),
            time(stage.seconds),
            stage.reason
        )?;
    }
    for stage in &plan.stages {
        if let Some(basis) = &stage.estimate {
            writeln!(out, "~ {}: {basis}", stage.stage)?;
        }
    }
    writeln!(
        out,
        "time {} ({}); disk {} ({})",
        time(plan.seconds),
        basis(&plan.given_rates),
        bytes(plan.disk_bytes),
        plan.disk_basis
    )?;
    if plan.up_to_date {
        writeln!(
            out,
            "the published index is up to date: a build does nothing"
        )?;
    }
    match plan.unfinished {
        Some(Left::ThisPlan) => writeln!(
            out,
            "an unfinished build of this plan is here: a build goes on from there, and only the rest is counted"
        )?,
        Some(Left::AnotherPlan) => writeln!(
            out,
            "an unfinished build of another plan is here: a build takes over what still fits, which is not counted"
        )?,
        None => {}
    }
    write_scaled(&mut out, &plan)?;
    Ok(ExitStatus::Done)
}

/// Whose rates they are.
fn basis(given: &BTreeMap<String, f64>) -> String {
    let given = given.iter().map(|(stage, rows)| format!("{stage} {rows}"));
    match given.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "rates of the last run".into(),
        given => format!("rates of the last run, but as supposed, in rows a second: {given}"),
    }
}

fn write_scaled(out: &mut impl Write, plan: &Plan) -> std::io::Result<()> {
    if plan.scaled.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\nfrom nothing, at the same rates; in proportion to the documents, the map stages divided among executors like the device of those rates:"
    )?;
    writeln!(
        out,
        "{:>14}{:>11}{:>12}{:>16}{:>12}{:>16}  dense indexes",
        "documents", "executors", "time", "of it alone", "disk", "index memory"
    )?;
    for scaled in &plan.scaled {
        writeln!(
            out,
            "{:>14}{:>11}{:>12}{:>16}{:>12}{:>16}  {}",
            scaled.documents,
            scaled.executors,
            time(Some(scaled.seconds)),
            time(Some(scaled.alone_seconds)),
            bytes(scaled.disk_bytes),
            bytes(scaled.index_memory_bytes),
            dense(&scaled.dense_indexes)
        )?;
    }
    writeln!(
        out,
        "alone: what the building process does by itself, the documents, indexes and verification; index memory: the largest dense index, or shard of one, which is built in memory"
    )
}

/// Of chunks and queries, once where they are of one kind.
fn dense(kinds: &[String]) -> String {
    match kinds {
        [] => "none".into(),
        [one] => one.clone(),
        [first, rest @ ..] if rest.iter().all(|kind| kind == first) => first.clone(),
        several => several.join(" and "),
    }
}

/// A stage's name and its rate.
fn rate(text: &str) -> Result<(String, f64), String> {
    let (stage, rows) = text
        .split_once('=')
        .ok_or("STAGE=ROWS is expected, as in vectors-text=6000")?;
    match rows.parse::<f64>() {
        Ok(rows) if rows.is_finite() && rows > 0.0 => Ok((stage.trim().to_owned(), rows)),
        _ => Err(format!("`{rows}` is no number of rows a second")),
    }
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "?".into(),
        Some(s) if s < 120.0 => format!("{s:.0} s"),
        Some(s) if s < 7200.0 => format!("{:.0} min", s / 60.0),
        Some(s) if s < 360_000.0 => format!("{:.1} h", s / 3600.0),
        Some(s) => format!("{:.0} days", s / 86_400.0),
    }
}

fn bytes(n: u64) -> String {
    match n {
        0..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        1_000_000_000..1_000_000_000_000 => format!("{:.1} GB", n as f64 / 1e9),
        _ => format!("{:.1} TB", n as f64 / 1e12),
    }
}
