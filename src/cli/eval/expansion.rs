//! `intendex eval expansion`: what generated queries do for retrieval.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use super::{check_out, embedder};
use crate::{
    cli::{ExitStatus, at_least_one},
    eval::{
        expansion::{
            embedding::Embedding,
            expanded::Expanded,
            filters::complete,
            measure,
            report::{write_parquet, write_table},
            sample::write_sample,
            set::{By, Set},
        },
        half::Half,
    },
    store::{Files, Output},
};

/// Measures what generated queries do for retrieval, by ranking the chunks of one index with subsets and forms of them.
///
/// R@1 counts the questions whose first chunk holds a whole answer; nDCG@10 is that of documents by their best chunk. Changes
/// and p, that of a paired test over questions, are against the ranking without queries.
#[derive(Debug, clap::Args)]
pub struct EvalExpansionArgs {
    /// The output folder of a job, or a folder with chunks/, queries/, vectors/ and perhaps scores/ of a generation.
    #[arg(value_name = "INDEX")]
    pub index: PathBuf,
    /// A folder with queries.parquet (query_id, text) and answers.parquet (query_id, doc_id, start, end: code points) or
    /// qrels.parquet (query_id, doc_id, relevance).
    #[arg(value_name = "SET")]
    pub set: PathBuf,
    /// Folder of the embedder, which must be the one of the index.
    #[arg(
        long,
        value_name = "FOLDER",
        required_unless_present = "sample",
        env = "INTENDEX_EVAL_EXPANSION_MODEL"
    )]
    pub model: Option<String>,
    /// What is to be found; default: spans, if all questions of the set have them.
    #[arg(long, value_enum, env = "INTENDEX_EVAL_EXPANSION_BY")]
    pub by: Option<By>,
    /// Use half of the documents (spans) or of the questions (documents): choose parameters on one half, and report of the
    /// other.
    #[arg(long, value_enum, env = "INTENDEX_EVAL_EXPANSION_HALF")]
    pub half: Option<Half>,
    /// Print so many chunks with their queries instead, drawn at random but always the same.
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>, env = "INTENDEX_EVAL_EXPANSION_SAMPLE")]
    pub sample: Option<usize>,
    /// Write the value of every question here (Parquet).
    #[arg(long, value_name = "FILE", env = "INTENDEX_EVAL_EXPANSION_OUT")]
    pub out: Option<PathBuf>,
}

pub fn run(args: &EvalExpansionArgs) -> anyhow::Result<ExitStatus> {
    check_out(args.out.as_deref())?;
    let by = match args.by {
        Some(by) => by,
        None => By::of(&args.set)?,
    };
    let generation = generation(&args.index)?;
    let half = args.half.filter(|_| by == By::Span);
    let mut expanded = Expanded::read(&generation, half)?;
    let mut out = std::io::stdout().lock();
    if let Some(n) = args.sample {
        write_sample(&mut out, &expanded, n)?;
        return Ok(ExitStatus::Done);
    }
    let set = Set::read(&args.set, by, args.half, &expanded)?;
    let embedder = embedder(args.model.as_deref().unwrap_or_default())?;
    let embedding = Embedding::read(&generation, &expanded, embedder.dim())?;
    complete(&mut expanded, &embedding);
    let outcome = measure(&expanded, &embedding, &set, &*embedder)?;
    let half = args.half.map_or("all", Half::name);
    writeln!(
        out,
        "{}: {} chunks, {} questions, half: {half}, {}",
        args.set.display(),
        expanded.chunks.len(),
        set.questions.len(),
        by.measure()
    )?;
    write_table(&mut out, &outcome)?;
    if let Some(path) = &args.out {
        write_parquet(path, &outcome, &set)?;
    }
    Ok(ExitStatus::Done)
}

/// Of an output folder the current one; else the folder itself, if it has chunks.
pub(super) fn generation(index: &Path) -> anyhow::Result<PathBuf> {
    if !index.join("CURRENT").exists() && index.join("chunks").is_dir() {
        return Ok(index.to_owned());
    }
    Ok(Output::fetch(index, Files::All)?.current()?.1)
}
