//! `intendex search`: one query, or a file of them, over a published index.

mod results;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;

use self::results::{Passages, read_passages, write_json, write_text, write_trec};
use super::{ExitStatus, at_least_one, built_with, out::Out};
use crate::{
    index::SparseWeights,
    model::{Embed, ModelIdentity},
    search::{
        Found, Mode, Request, SearchSettings, Searcher, Unit,
        fusion::Fusion,
        fusion::coverage_weight,
        run::{TestQuery, check_ids, read_queries},
    },
    store::{Files, Manifest, Output, index_shards, read_json},
};

/// Searches a published index.
#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub index: PathBuf,
    /// What to search for.
    #[arg(required_unless_present = "queries", conflicts_with = "queries", value_parser = words)]
    pub query: Option<String>,
    /// How many results a query gets.
    #[arg(short, long, value_parser = at_least_one::<usize>, default_value = "10", env = "INTENDEX_SEARCH_K")]
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
    /// Write results here instead of to stdout; the file appears when it is whole.
    #[arg(long, value_name = "FILE", env = "INTENDEX_SEARCH_OUT")]
    pub out: Option<PathBuf>,
    /// What a result is; a document ranks by its best chunk.
    #[arg(long, value_enum, default_value = "chunk", env = "INTENDEX_SEARCH_BY")]
    pub by: SearchBy,
    /// Share of what the best question's cosine exceeds the text's by in a chunk's dense score; default: as the index was built.
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
    /// A weighted sum of scores standardised per query.
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

fn words(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("there is nothing in it to search for".into()),
        false => Ok(text.into()),
    }
}

pub fn run(args: SearchArgs) -> anyhow::Result<ExitStatus> {
    let (_, generation) = Output::fetch(&args.index, Files::Search)?.current()?;
    let manifest: Manifest = read_json(&generation.join("manifest.json"))?;
    let queries = args.queries()?;
    let format = args.format();
    // What would make the run useless is found before there is work to lose.
    if format == SearchFormat::Trec {
        check_ids(&queries)?;
    }
    let out = Out::create(args.out.as_deref())?;
    let mode = args.mode(&manifest);
    let (answers, passages) = guarded((&generation, &manifest, mode), || {
        let answers = answers(&args, (&generation, &manifest, mode), &queries)?;
        let passages = match format {
            SearchFormat::Trec => Passages::new(),
            SearchFormat::Json | SearchFormat::Text => {
                read_passages(&answers, &generation, &manifest)?
            }
        };
        Ok((answers, passages))
    })?;
    out.write(|out| {
        for (query, found) in queries.iter().zip(&answers) {
            match format {
                SearchFormat::Trec => write_trec(out, query, found, args.by.unit())?,
                SearchFormat::Json => write_json(out, query, found, &passages)?,
                SearchFormat::Text => {
                    let query = args.queries.is_some().then_some(query);
                    write_text(out, query, found, &passages)?;
                }
            }
        }
        Ok(())
    })?;
    Ok(ExitStatus::Done)
}

/// The libraries that read an index assert on some damage, which is told like the other kinds.
fn guarded<T>(
    (generation, manifest, mode): (&Path, &Manifest, Mode),
    read: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        check_files(generation, manifest, mode, true)?;
        resume_unwind(panic)
    })
}

/// The results of each query.
fn answers(
    args: &SearchArgs,
    (generation, manifest, mode): (&Path, &Manifest, Mode),
    queries: &[TestQuery],
) -> anyhow::Result<Vec<Vec<Found>>> {
    let embedder = match mode {
        Mode::Sparse => None,
        Mode::Hybrid | Mode::Dense => Some(embedder(manifest, args)?),
    };
    check_files(generation, manifest, mode, false)?;
    let searcher = Searcher::open(generation, settings(manifest, args), embedder.as_deref())?;
    let texts: Vec<&str> = queries.iter().map(|query| query.text.as_str()).collect();
    let request = Request {
        mode,
        unit: args.by.unit(),
        k: args.k,
    };
    Ok(searcher.search(&texts, request)?)
}

/// A search would do without an index whose file is gone, and its results would be worse without a word. `hashes`: what
/// is in the files too.
fn check_files(
    generation: &Path,
    manifest: &Manifest,
    mode: Mode,
    hashes: bool,
) -> anyhow::Result<()> {
    let indexes: &[&str] = match mode {
        Mode::Sparse => &["sparse/"],
        Mode::Dense => &["dense/"],
        Mode::Hybrid => &["sparse/", "dense/"],
    };
    let datasets = ["chunks/", "queries/", "selection/"];
    let folders = indexes.iter().chain(&datasets);
    let read = |path: &str| {
        let name = index_shards::without_prefix(path);
        folders.clone().any(|folder| name.starts_with(folder))
    };
    for file in manifest.files.iter().filter(|file| read(&file.path)) {
        if let Err(difference) = file.compare(generation, hashes) {
            let path = generation.join(&file.path);
            anyhow::bail!(
                "{} {difference}; `intendex verify` checks the rest, `intendex build --restart` replaces this generation, and \
                 `intendex rollback` returns to one before it",
                path.display()
            );
        }
    }
    Ok(())
}

impl SearchArgs {
    fn queries(&self) -> anyhow::Result<Vec<TestQuery>> {
        if let Some(file) = &self.queries {
            return Ok(read_queries(file)?);
        }
        Ok(vec![TestQuery {
            query_id: "1".into(),
            text: self.query.clone().unwrap_or_default(),
        }])
    }

    fn mode(&self, manifest: &Manifest) -> Mode {
        self.mode
            .map_or_else(|| default_mode(manifest), SearchMode::mode)
    }

    fn format(&self) -> SearchFormat {
        let default = match self.queries {
            Some(_) => SearchFormat::Trec,
            None => SearchFormat::Text,
        };
        self.format.unwrap_or(default)
    }
}

impl SearchBy {
    fn unit(self) -> Unit {
        match self {
            SearchBy::Chunk => Unit::Chunk,
            SearchBy::Document => Unit::Document,
        }
    }
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
    let alpha = args.alpha.or(dense.queries_weight);
    SearchSettings {
        sparse: weights,
        queries_weight: alpha.unwrap_or_else(|| coverage_weight(manifest.queries_per_chunk())),
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
    let unusable = || {
        let without = match manifest.indexes.sparse {
            Some(_) => ", or search without it with `--mode sparse`",
            None => "",
        };
        let name = &manifest.embedder.name;
        format!(
            "the embedder of this index, {name}, cannot be used; name its folder with --model{without}"
        )
    };
    let models = built_with(manifest, args.model.as_deref(), &args.device, args.offline);
    let models = models.with_context(unusable)?;
    let hashes = |identity: &ModelIdentity| -> Vec<String> {
        identity.files.iter().map(|f| f.blake3.clone()).collect()
    };
    if hashes(models.embedder_identity()) != hashes(&manifest.embedder) {
        bail!(
            "the embedder in {} is not the one that this index was built with: its files are others; \
             restore them, name the folder of the right ones with --model, or build the index again",
            models.embedder_identity().name
        );
    }
    models.embedder().with_context(unusable)
}
