//! `intendex search`: one query, or a file of them, over a published index.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;
use serde_json::json;

use super::{ExitStatus, built_with};
use crate::{
    index::SparseWeights,
    model::{Embed, ModelIdentity},
    search::{
        Found, Mode, Request, SearchSettings, Searcher, Unit,
        fusion::Fusion,
        passages::{self, Passage},
        run::{read_queries, write_results},
    },
    store::{Manifest, Output, read_json},
};

/// Code points of a chunk, and its questions, that the text format shows.
const EXCERPT_CHARS: usize = 400;
const EXCERPT_QUERIES: usize = 5;

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
    /// Folder of the embedder, when it is not where it was during the build; its files must be the same.
    #[arg(long, value_name = "FOLDER", env = "INTENDEX_SEARCH_MODEL")]
    pub model: Option<String>,
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

pub fn run(args: SearchArgs) -> anyhow::Result<ExitStatus> {
    let (_, generation) = Output::new(&args.index).current()?;
    let manifest: Manifest = read_json(&generation.join("manifest.json"))?;
    let mode = args
        .mode
        .map_or_else(|| default_mode(&manifest), SearchMode::mode);
    let embedder = match mode {
        Mode::Sparse => None,
        Mode::Hybrid | Mode::Dense => Some(embedder(&manifest, &args)?),
    };
    let searcher = Searcher::open(&generation, settings(&manifest, &args), embedder.as_deref())?;
    let (ids, texts): (Vec<String>, Vec<String>) = match (&args.queries, &args.query) {
        (Some(file), _) => read_queries(file)?
            .into_iter()
            .map(|q| (q.query_id, q.text))
            .unzip(),
        (None, query) => (vec!["1".into()], vec![query.clone().unwrap_or_default()]),
    };
    let unit = match args.by {
        SearchBy::Chunk => Unit::Chunk,
        SearchBy::Document => Unit::Document,
    };
    let queries: Vec<&str> = texts.iter().map(String::as_str).collect();
    let answers = searcher.search(
        &queries,
        Request {
            mode,
            unit,
            k: args.k,
        },
    )?;
    let default = if args.queries.is_some() {
        SearchFormat::Trec
    } else {
        SearchFormat::Text
    };
    let mut out = output(args.out.as_deref())?;
    let format = args.format.unwrap_or(default);
    let passages = match format {
        SearchFormat::Trec => BTreeMap::new(),
        SearchFormat::Json | SearchFormat::Text => read_passages(&answers, &generation, &manifest)?,
    };
    for (id, found) in ids.iter().zip(&answers) {
        match format {
            SearchFormat::Trec => write_trec(&mut out, id, found, unit)?,
            SearchFormat::Json => write_json(&mut out, id, found, &passages)?,
            SearchFormat::Text => write_text(&mut out, found, &passages)?,
        }
    }
    out.flush()?;
    Ok(ExitStatus::Done)
}

impl SearchMode {
    fn mode(self) -> Mode {
        match self {
            SearchMode::Hybrid => Mode::Hybrid,
            SearchMode::Sparse => Mode::Sparse,
            SearchMode::Dense => Mode::Dense,
        }
    }
}

fn default_mode(manifest: &Manifest) -> Mode {
    match (&manifest.indexes.sparse, &manifest.indexes.dense_text) {
        (Some(_), None) => Mode::Sparse,
        (None, Some(_)) => Mode::Dense,
        _ => Mode::Hybrid,
    }
}

/// The weights the index was built with, where the command line gives no others.
fn settings(manifest: &Manifest, args: &SearchArgs) -> SearchSettings {
    let (sparse, dense) = (&manifest.parameters.sparse, &manifest.parameters.dense);
    let weights = SparseWeights {
        title: sparse.title_weight,
        text: sparse.text_weight,
        queries: sparse.queries_weight,
    };
    SearchSettings {
        sparse: weights,
        queries_weight: args.alpha.unwrap_or(dense.queries_weight),
        hybrid_weight: args.hybrid_weight.unwrap_or(dense.hybrid_weight),
        fusion: match args.fusion {
            FusionMethod::Weighted => Fusion::Scores,
            FusionMethod::Reciprocal => Fusion::ReciprocalRanks,
        },
        depth: None,
    }
}

/// The embedder of the build; its files must be the same.
fn embedder(manifest: &Manifest, args: &SearchArgs) -> anyhow::Result<Arc<dyn Embed>> {
    let models = built_with(manifest, args.model.as_deref(), &args.device, args.offline)?;
    let hashes = |identity: &ModelIdentity| -> Vec<String> {
        identity.files.iter().map(|f| f.blake3.clone()).collect()
    };
    if hashes(models.embedder_identity()) != hashes(&manifest.embedder) {
        bail!(
            "the embedder in {} is not the one that this index was built with: its files have changed; \
             restore them, or build the index again",
            models.embedder_identity().name
        );
    }
    Ok(models.embedder()?)
}

fn output(path: Option<&Path>) -> anyhow::Result<Box<dyn Write>> {
    Ok(match path {
        Some(path) => {
            let file =
                File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(BufWriter::new(std::io::stdout())),
    })
}

fn write_trec(out: &mut dyn Write, id: &str, found: &[Found], unit: Unit) -> anyhow::Result<()> {
    let name = |f: &'_ Found| match unit {
        Unit::Chunk => f.chunk_id.clone(),
        Unit::Document => f.doc_id.clone(),
    };
    let names: Vec<String> = found.iter().map(name).collect();
    let results: Vec<(&str, f32)> = names
        .iter()
        .zip(found)
        .map(|(name, f)| (name.as_str(), f.score))
        .collect();
    Ok(write_results(&mut &mut *out, id, &results, "intendex")?)
}

/// One object a line, with the chunk's text and its indexed questions.
fn write_json(
    out: &mut dyn Write,
    id: &str,
    found: &[Found],
    passages: &BTreeMap<String, Passage>,
) -> anyhow::Result<()> {
    let results = found.iter().map(|f| {
        let mut value = json!(f);
        let passage = passages.get(&f.chunk_id).cloned().unwrap_or_default();
        value["text"] = json!(passage.text);
        value["queries"] = json!(
            passage
                .queries
                .iter()
                .map(|(_, text)| text)
                .collect::<Vec<_>>()
        );
        value
    });
    let line = json!({ "query_id": id, "results": results.collect::<Vec<_>>() });
    Ok(writeln!(out, "{line}")?)
}

fn write_text(
    out: &mut dyn Write,
    found: &[Found],
    passages: &BTreeMap<String, Passage>,
) -> anyhow::Result<()> {
    if found.is_empty() {
        writeln!(out, "nothing found")?;
    }
    for (i, result) in found.iter().enumerate() {
        let passage = passages.get(&result.chunk_id).cloned().unwrap_or_default();
        writeln!(out, "{}. {}  {:.4}", i + 1, result.chunk_id, result.score)?;
        let words: Vec<&str> = passage.text.split_whitespace().collect();
        let text = words.join(" ");
        let end = text
            .char_indices()
            .nth(EXCERPT_CHARS)
            .map_or(text.len(), |(end, _)| end);
        writeln!(
            out,
            "   {}{}",
            &text[..end],
            if end < text.len() { " …" } else { "" }
        )?;
        for (_, query) in passage.queries.iter().take(EXCERPT_QUERIES) {
            writeln!(out, "   ? {query}")?;
        }
    }
    Ok(())
}

/// The texts of all results, in one pass over the datasets.
fn read_passages(
    answers: &[Vec<Found>],
    generation: &Path,
    manifest: &Manifest,
) -> anyhow::Result<BTreeMap<String, Passage>> {
    let indexes = &manifest.indexes;
    let lowest =
        (indexes.queries_indexed > 0).then(|| indexes.query_threshold.unwrap_or(f32::NEG_INFINITY));
    let ids: BTreeSet<&str> = answers
        .iter()
        .flatten()
        .map(|f| f.chunk_id.as_str())
        .collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    Ok(runtime.block_on(passages::read(generation, &ids, lowest))?)
}
