//! `intendex search`: one query, or a file of them, over a published index.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;

use super::{Console, ExitStatus};

/// Searches a published index.
#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub index: PathBuf,
    /// What to search for.
    #[arg(required_unless_present = "queries", conflicts_with = "queries")]
    pub query: Option<String>,
    /// How many results a query gets.
    #[arg(short, long, default_value_t = 10, env = "INTENDEX_SEARCH_K")]
    pub k: usize,
    /// Which indexes answer; default: both, or the one there is.
    #[arg(long, value_enum, env = "INTENDEX_SEARCH_MODE")]
    pub mode: Option<SearchMode>,
    /// How results are written; default: text, or trec with --queries.
    #[arg(long, value_enum, env = "INTENDEX_SEARCH_FORMAT")]
    pub format: Option<SearchFormat>,
    /// Parquet file of queries: columns query_id and text.
    #[arg(long, value_name = "FILE", env = "INTENDEX_SEARCH_QUERIES")]
    pub queries: Option<PathBuf>,
    /// Write results here instead of to stdout.
    #[arg(long, value_name = "FILE", env = "INTENDEX_SEARCH_OUT")]
    pub out: Option<PathBuf>,
    /// What a result is; a document ranks by its best chunk.
    #[arg(long, value_enum, default_value = "chunk", env = "INTENDEX_SEARCH_BY")]
    pub by: SearchBy,
    /// Share of the best question's cosine in a chunk's dense score; default: as the index was built.
    #[arg(long, value_parser = share, env = "INTENDEX_SEARCH_ALPHA")]
    pub alpha: Option<f32>,
    /// Share of the dense score in a hybrid search; default: as the index was built.
    #[arg(long, value_parser = share, env = "INTENDEX_SEARCH_HYBRID_WEIGHT")]
    pub hybrid_weight: Option<f32>,
    /// How sparse and dense results are combined.
    #[arg(
        long,
        value_enum,
        default_value = "weighted",
        env = "INTENDEX_SEARCH_FUSION"
    )]
    pub fusion: FusionMethod,
    /// Device of the embedder: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", env = "INTENDEX_SEARCH_DEVICE")]
    pub device: String,
    /// Never touch the network.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "INTENDEX_SEARCH_OFFLINE")]
    pub offline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SearchMode {
    Hybrid,
    Sparse,
    Dense,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SearchFormat {
    Text,
    Json,
    /// A TREC run file.
    Trec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SearchBy {
    Chunk,
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FusionMethod {
    /// A weighted sum of scores normalised per query.
    Weighted,
    /// The sum of reciprocal ranks.
    Reciprocal,
}

fn share(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(x) if (0.0..=1.0).contains(&x) => Ok(x),
        _ => Err("must be from 0 to 1".into()),
    }
}

pub fn run(args: SearchArgs, console: &Console) -> anyhow::Result<ExitStatus> {
    let _ = (args, console);
    anyhow::bail!("not connected: search")
}
