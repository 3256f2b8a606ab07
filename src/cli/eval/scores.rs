//! `intendex eval scores`: how well scores tell a question's chunk from its neighbours.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, ensure};

use super::{embedder, expansion::generation};
use crate::{
    chunk::objective::dot,
    cli::{ExitStatus, at_least_one},
    engine::models::Models,
    eval::{
        expansion::{
            embedding::Embedding,
            expanded::Expanded,
            labelled::{draw, pairs, precisions, write},
            set::{By, Set},
        },
        half::Half,
    },
    expand::scores::{Scorer, Scores},
    job::spec::{self, Scored},
    model::TextKind,
};

/// Measures how well the scores that queries are filtered by tell the chunk that answers a person's question from the chunks
/// before and after it.
///
/// AUC is how often the own chunk scores higher than a neighbour; then the share of own chunks among the pairs that score best.
#[derive(Debug, clap::Args)]
pub struct EvalScoresArgs {
    /// The output folder of a job, or a folder with chunks/, queries/ and vectors/ of a generation.
    #[arg(value_name = "INDEX")]
    pub index: PathBuf,
    /// A folder with queries.parquet (query_id, text) and answers.parquet (query_id, doc_id, start, end: code points).
    #[arg(value_name = "SET")]
    pub set: PathBuf,
    /// Folder of the embedder, which must be the one of the index.
    #[arg(long, value_name = "FOLDER", env = "INTENDEX_EVAL_SCORES_MODEL")]
    pub model: String,
    /// The generator: a GGUF file, or a folder of safetensors.
    #[arg(long, value_name = "FILE", env = "INTENDEX_EVAL_SCORES_GENERATOR")]
    pub generator: String,
    /// Folder of a cross-encoder.
    #[arg(
        long,
        value_name = "FOLDER",
        env = "INTENDEX_EVAL_SCORES_CROSS_ENCODER"
    )]
    pub cross_encoder: Option<String>,
    /// Questions, drawn at random but always the same.
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>, default_value = "100", env = "INTENDEX_EVAL_SCORES_SAMPLE")]
    pub sample: usize,
    /// Use the documents of one half.
    #[arg(long, value_enum, env = "INTENDEX_EVAL_SCORES_HALF")]
    pub half: Option<Half>,
}

pub fn run(args: &EvalScoresArgs) -> anyhow::Result<ExitStatus> {
    let generation = generation(&args.index)?;
    let expanded = Expanded::read(&generation, args.half)?;
    let set = Set::read(&args.set, By::Span, args.half, &expanded)?;
    let cases = draw(&set, &expanded, args.sample);
    ensure!(!cases.is_empty(), "no question's chunk has a neighbour");
    let embedder = embedder(&args.model)?;
    let embedding = Embedding::read(&generation, &expanded, embedder.dim())?;
    let texts: Vec<&str> = cases
        .iter()
        .map(|case| case.question.text.as_str())
        .collect();
    let vectors = embedder
        .embed(&texts, TextKind::Query)?
        .vectors
        .of_unit_length();
    let cosines = cases.iter().enumerate().flat_map(|(i, case)| {
        let chunks = [case.own].into_iter().chain(case.others.iter().copied());
        let cosine = |chunk| dot(embedding.texts.row(chunk), vectors.row(i));
        chunks.map(cosine).collect::<Vec<_>>()
    });
    let cosines: Vec<f32> = cosines.collect();
    let scores = scores(args, &pairs(&cases, &expanded))?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} questions, {} pairs",
        args.set.display(),
        cases.len(),
        cosines.len()
    )?;
    write(&mut out, &precisions(&cases, &scores, &cosines))?;
    Ok(ExitStatus::Done)
}

fn scores(
    args: &EvalScoresArgs,
    pairs: &[crate::expand::scores::Pair],
) -> anyhow::Result<Vec<Scores>> {
    let text = |value: &str| toml::Value::from(value);
    let mut models = format!(
        "embedder.model = {}\ngenerator.model = {}\n",
        text(&args.model),
        text(&args.generator)
    );
    if let Some(folder) = &args.cross_encoder {
        models += &format!("cross_encoder.model = {}\n", text(folder));
    }
    let models = Models::find(&toml::from_str::<spec::Models>(&models)?, true)?;
    let scorer = models.scorer()?.context("--generator: it cannot score")?;
    let (generator, cross_encoder) = (models.generator()?, models.cross_encoder()?);
    let mut extra_scores = vec![Scored::Gain, Scored::Relevance];
    extra_scores.extend(cross_encoder.is_some().then_some(Scored::CrossEncoder));
    let settings = spec::Expand {
        extra_scores,
        ..spec::Expand::default()
    };
    let scorer = Scorer {
        settings: &settings,
        generator: &*generator,
        scorer: Some(&*scorer),
        cross_encoder: cross_encoder.as_deref(),
    };
    let scored = scorer.score(pairs, &|_| {}).into_iter();
    Ok(scored.collect::<Result<Vec<_>, _>>()?)
}
