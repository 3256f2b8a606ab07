//! `intendex eval`: measures.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;

use super::{ExitStatus, ResultFormat};

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
    let _ = args;
    anyhow::bail!("not connected: eval")
}
