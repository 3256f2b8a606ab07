//! `intendex eval`: measures.

mod expansion;
mod scores;

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::{ValueEnum, builder::BoolishValueParser};

use self::expansion::EvalExpansionArgs;
use super::{ExitStatus, ResultFormat, at_least_one};
use crate::{
    engine::models::Models,
    eval::{
        Measures,
        chunks::{
            Comparison, compare,
            method::Intents,
            report::{write_parquet, write_tables},
            set::Set,
        },
        evaluate_run,
        half::Half,
    },
    job::spec::{self, ChunkMethod},
    model::Embed,
    search::columns,
};

/// Measures search results.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    pub command: EvalCommand,
}

#[derive(Debug, clap::Subcommand)]
pub enum EvalCommand {
    Run(EvalRunArgs),
    Chunks(EvalChunksArgs),
    Expansion(EvalExpansionArgs),
    Scores(scores::EvalScoresArgs),
}

/// Compares chunkers at equal mean length on questions whose answers are spans of the documents.
///
/// R@1, R@5 and MRR count the chunks that hold a whole answer; recall, precision and IoU are those of the text that a
/// reader takes within a budget of tokens, as the Chroma chunking evaluation counts them.
#[derive(Debug, clap::Args)]
pub struct EvalChunksArgs {
    /// A folder with corpus.parquet (doc_id, text), queries.parquet (query_id, text) and answers.parquet (query_id, doc_id,
    /// start, end: code points).
    #[arg(value_name = "SET")]
    pub set: PathBuf,
    /// Folder of the embedder.
    #[arg(long, value_name = "FOLDER", env = "INTENDEX_EVAL_CHUNKS_MODEL")]
    pub model: String,
    /// Mean lengths in tokens.
    #[arg(long, value_delimiter = ',', value_parser = at_least_one::<usize>, default_value = "60,100,150", env = "INTENDEX_EVAL_CHUNKS_LENGTHS")]
    pub lengths: Vec<usize>,
    /// The chunkers; default: all, but without --intents none that needs them.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        env = "INTENDEX_EVAL_CHUNKS_METHODS"
    )]
    pub methods: Vec<ChunkMethod>,
    /// Most tokens of a chunk; default: what the embedder takes.
    #[arg(long, value_parser = at_least_one::<usize>, env = "INTENDEX_EVAL_CHUNKS_MAX_TOKENS")]
    pub max_tokens: Option<usize>,
    /// Parquet file or part of predicted questions: columns doc_id and text.
    #[arg(long, value_name = "FILE", env = "INTENDEX_EVAL_CHUNKS_INTENTS")]
    pub intents: Option<PathBuf>,
    /// Use half of the documents: choose parameters on one half, and report of the other.
    #[arg(long, value_enum, env = "INTENDEX_EVAL_CHUNKS_HALF")]
    pub half: Option<Half>,
    /// Make every line break a space.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "INTENDEX_EVAL_CHUNKS_NO_MARKS")]
    pub no_marks: bool,
    /// Write the measures of every question here (Parquet).
    #[arg(long, value_name = "FILE", env = "INTENDEX_EVAL_CHUNKS_OUT")]
    pub out: Option<PathBuf>,
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
    match args.command {
        EvalCommand::Run(args) => run_file(&args),
        EvalCommand::Chunks(args) => chunks(&args),
        EvalCommand::Expansion(args) => expansion::run(&args),
        EvalCommand::Scores(args) => scores::run(&args),
    }
}

/// What would make the run useless is found before there is work to lose.
fn check_out(file: Option<&Path>) -> anyhow::Result<()> {
    if let Some(folder) = file.and_then(Path::parent) {
        let is_there = folder.as_os_str().is_empty() || folder.is_dir();
        anyhow::ensure!(is_there, "--out: there is no folder {}", folder.display());
    }
    Ok(())
}

fn embedder(folder: &str) -> anyhow::Result<Arc<dyn Embed>> {
    let model = toml::Value::from(folder);
    let models: spec::Models = toml::from_str(&format!("embedder.model = {model}"))?;
    Ok(Models::find(&models, false)?.embedder()?)
}

fn chunks(args: &EvalChunksArgs) -> anyhow::Result<ExitStatus> {
    check_out(args.out.as_deref())?;
    let embedder = embedder(&args.model)?;
    let intents = match &args.intents {
        Some(path) => read_intents(path)?,
        None => Intents::new(),
    };
    let methods: Vec<ChunkMethod> = match args.methods.as_slice() {
        [] => ChunkMethod::value_variants()
            .iter()
            .copied()
            .filter(|method| *method != ChunkMethod::Intent || args.intents.is_some())
            .collect(),
        named => named.to_vec(),
    };
    if methods.contains(&ChunkMethod::Intent) && intents.is_empty() {
        anyhow::bail!("intent needs predicted questions; name their file with --intents");
    }
    let set = Set::read(&args.set, args.half, !args.no_marks, &*embedder)?;
    let most = embedder.max_text_tokens();
    let comparison = Comparison {
        methods: &methods,
        lengths: &args.lengths,
        cap: args.max_tokens.unwrap_or(most).min(most),
        intents: &intents,
    };
    let outcome = compare(&set, &comparison, &*embedder)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} documents, {} questions; chunks of at most {} tokens",
        args.set.display(),
        set.documents.len(),
        set.questions.len(),
        comparison.cap
    )?;
    write_tables(&mut out, &outcome)?;
    if let Some(path) = &args.out {
        write_parquet(path, &outcome, &set)?;
    }
    anyhow::ensure!(
        !outcome.cells.is_empty(),
        "no method makes chunks of any of these lengths; none can be longer than {} tokens (--max-tokens, and what the \
         embedder takes)",
        comparison.cap
    );
    Ok(ExitStatus::Done)
}

fn read_intents(path: &Path) -> anyhow::Result<Intents> {
    let columns = columns::read(path, "doc_id", "text", None).context("--intents")?;
    let mut intents = Intents::new();
    for (document, text) in columns.first.into_iter().zip(columns.second) {
        intents.entry(document).or_default().push(text);
    }
    Ok(intents)
}

fn run_file(args: &EvalRunArgs) -> anyhow::Result<ExitStatus> {
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
