//! `intendex build`: runs a job.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::builder::BoolishValueParser;

use super::{Console, ExitStatus, load_job, signals};
use crate::{
    engine::{
        self, EngineError,
        build::{Options, Outcome, Summary},
        stage::Stage,
    },
    job::Job,
    store::{Files, Output, manifest::hash_file},
};

/// Runs a job: reads the corpus and publishes a new generation of the index.
///
/// A build that was ended continues where it was. What earlier builds have computed from the same input with the same
/// settings and model files is taken over; a job whose index is up to date does nothing.
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
    /// The Ballista scheduler on whose executors the stages run, as `engine.cluster` in the job.
    #[arg(long, value_name = "df://HOST:PORT", env = "INTENDEX_BUILD_CLUSTER")]
    pub cluster: Option<String>,
    /// Start over: take nothing from an unfinished build, and build even if nothing has changed.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "INTENDEX_BUILD_RESTART")]
    pub restart: bool,
    /// Compute this stage and all later ones anew, whatever earlier builds have.
    #[arg(long, value_name = "NAME", value_parser = stage, env = "INTENDEX_BUILD_FROM")]
    pub from: Option<Stage>,
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
    let cluster = args.cluster.map(|url| format!("engine.cluster={url}"));
    let set: Vec<String> = args.set.into_iter().chain(cluster).collect();
    let job = load_job(&args.job, &set)?;
    watch_signals(console, &job.output.path, args.restart).context("cannot watch for signals")?;
    let options = Options {
        restart: args.restart,
        from: args.from,
        until: args.stage,
        job_file: Some(hash_file(&args.job)?),
    };
    let summary = engine::build::build(&job, &options, console.progress().into())
        .map_err(EngineError::with_remedy)?;
    match writeln!(std::io::stdout().lock(), "{}", line(&job, &summary)) {
        // What was done counts, whoever has stopped listening.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(if summary.run.quarantined > 0 {
        ExitStatus::Partial
    } else {
        ExitStatus::Done
    })
}

fn line(job: &Job, summary: &Summary) -> String {
    let run = &summary.run;
    let out = job.output.path.display();
    let rows = |stage: &str| run.stages.get(stage).map_or(0, |t| t.rows);
    let quarantine = |number: u64| format!("{out}/generations/{number}/quarantine");
    let number = match summary.outcome {
        Outcome::Published(number) => number,
        Outcome::Unchanged(number) => {
            let rejected = match run.quarantined {
                0 => String::new(),
                rows => format!("; {rows} rows are in {}", quarantine(number)),
            };
            return format!("generation {number} of {out} is up to date; nothing to do{rejected}");
        }
        Outcome::Stopped => {
            return "stopped as told; nothing is published; the next build goes on from here"
                .into();
        }
    };
    let reused: u64 = run.stages.values().map(|t| t.reused).sum();
    let computed: u64 = Stage::ALL
        .iter()
        .filter_map(|stage| run.stages.get(stage.name()))
        .map(|t| t.computed)
        .sum();
    let cut: u64 = run.stages.values().map(|t| t.truncated_rows).sum();
    let lost: u64 = run.stages.values().map(|t| t.truncated_tokens).sum();
    let truncated = match cut {
        0 => String::new(),
        _ => format!(", {cut} inputs cut ({lost} tokens)"),
    };
    let rejected = match run.quarantined {
        0 => "0 quarantined".into(),
        rows => format!("{rows} quarantined (see {})", quarantine(number)),
    };
    format!(
        "published generation {number} of {out}: {} documents, {} chunks, {} questions; rows computed {computed}, \
         reused {reused}; {rejected}{truncated}, {:.0} s",
        rows("documents"),
        rows("chunks"),
        rows("queries"),
        run.seconds,
    )
}

/// A signal may come between publication and its news; what is on disk says which it was.
fn watch_signals(console: &Console, output: &Path, restart: bool) -> std::io::Result<()> {
    let number = |output: Output| output.current().ok().map(|(number, _)| number);
    // What is wrong with it, the build says.
    let fetched = Output::fetch(output, Files::Description);
    let before = number(fetched.unwrap_or_else(|_| Output::new(output)));
    let output = output.to_owned();
    let current = move || number(Output::new(&output));
    let again = match restart {
        true => "run it again without --restart",
        false => "run the same command again",
    };
    signals::watch(console, move || match current() {
        Some(number) if before != Some(number) => {
            format!(" behind its last step: generation {number} is published")
        }
        _ => format!("; nothing was published; {again}: it continues where it stopped"),
    })
}
