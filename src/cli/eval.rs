//! `intendex eval`: measures.

use std::{io::Write, path::PathBuf};

use clap::builder::BoolishValueParser;

use super::{ExitStatus, ResultFormat};
use crate::eval::{Measures, evaluate_run};

/// Measures search results.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    pub command: EvalCommand,
}

#[derive(Debug, clap::Subcommand)]
pub enum EvalCommand {
    Run(EvalRunArgs),
}

/// Measures a TREC run file: nDCG@10, MAP, R@100 and MRR@10, as trec_eval computes them.
#[derive(Debug, clap::Args)]
pub struct EvalRunArgs {
    /// The run file.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Relevance judgements (Parquet): columns query_id, doc_id and relevance.
    #[arg(long, value_name = "FILE", env = "INTENDEX_EVAL_RUN_QRELS")]
    pub qrels: PathBuf,
    /// Another run to compare with, by a paired test over queries.
    #[arg(long, value_name = "RUN", env = "INTENDEX_EVAL_RUN_AGAINST")]
    pub against: Option<PathBuf>,
    /// Show every query's measures too.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "INTENDEX_EVAL_RUN_BY_QUERY")]
    pub by_query: bool,
    /// How the measures are written.
    #[arg(
        long,
        value_enum,
        default_value = "text",
        env = "INTENDEX_EVAL_RUN_FORMAT"
    )]
    pub format: ResultFormat,
}

pub fn run(args: EvalArgs) -> anyhow::Result<ExitStatus> {
    let EvalCommand::Run(args) = args.command;
    let report = evaluate_run(&args.run, &args.qrels, args.against.as_deref())?;
    let mut out = std::io::stdout().lock();
    if args.format == ResultFormat::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitStatus::Done);
    }
    writeln!(
        out,
        "{:<24}{}",
        "query",
        Measures::NAMES.map(|name| format!("{name:>10}")).concat()
    )?;
    let mut line = |name: &str, measures: &Measures| {
        let values = measures.values().map(|value| format!("{value:>10.4}"));
        writeln!(out, "{name:<24}{}", values.concat())
    };
    if args.by_query {
        for (query, measures) in &report.queries {
            line(query, measures)?;
        }
    }
    line("all", &report.mean)?;
    if let Some(against) = &report.against {
        line("against", &against.mean)?;
        line("p (paired)", &against.p)?;
    }
    if report.missing > 0 {
        writeln!(
            out,
            "{} judged queries have no results in the run and count as 0",
            report.missing
        )?;
    }
    Ok(ExitStatus::Done)
}
