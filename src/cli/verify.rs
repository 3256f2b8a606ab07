//! `intendex verify`: whether a published index is whole.

use std::{io::Write, path::PathBuf, sync::Arc};

use clap::builder::BoolishValueParser;
use serde_json::json;

use super::{Console, ExitStatus, ResultFormat, built_with};
use crate::{
    engine::{
        build::stages,
        stage::Stage,
        verify::{Finding, Options, Sample, check_embedder, verify},
    },
    job::Job,
    model::{Embed, ModelError},
    store::{Dataset, Manifest, Output, read_json},
};

/// Checks a published index: its files, that its datasets and indexes agree, and its model.
///
/// Writes what is wrong, one finding a line, and ends with 1 if there is any.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub index: PathBuf,
    /// The generation to check; default: the published one.
    #[arg(long, value_name = "NUMBER", env = "INTENDEX_VERIFY_GENERATION")]
    pub generation: Option<u64>,
    /// How many chunks look for themselves in the indexes and are embedded again: a number, or `all`.
    #[arg(long, value_name = "N", value_parser = sample, default_value = "100", env = "INTENDEX_VERIFY_SAMPLE")]
    pub sample: Sample,
    /// Folder or hub id of the embedder, when it is not where it was during the build.
    #[arg(long, value_name = "MODEL", env = "INTENDEX_VERIFY_MODEL")]
    pub model: Option<String>,
    /// Do without the embedder: nothing is embedded again.
    #[arg(
        long, conflicts_with = "model",
        value_parser = BoolishValueParser::new(), env = "INTENDEX_VERIFY_NO_MODEL"
    )]
    pub no_model: bool,
    /// How findings are written.
    #[arg(
        long,
        value_enum,
        default_value = "text",
        env = "INTENDEX_VERIFY_FORMAT"
    )]
    pub format: ResultFormat,
}

fn sample(text: &str) -> Result<Sample, String> {
    match text.parse() {
        Ok(n) => Ok(Sample::Count(n)),
        Err(_) if text == "all" => Ok(Sample::All),
        Err(_) => Err("must be a number or `all`".into()),
    }
}

pub fn run(args: VerifyArgs, console: &Console) -> anyhow::Result<ExitStatus> {
    let output = Output::fetch_anew(&args.index, args.generation)?;
    let (number, generation) = match args.generation {
        Some(number) => (number, output.folder(number)),
        None => output.current()?,
    };
    anyhow::ensure!(
        generation.is_dir(),
        "{}: there is no such generation",
        generation.display()
    );
    let report = match read_json::<Manifest>(&generation.join("manifest.json")) {
        Ok(manifest) => {
            let (embedder, missing) = embedder(&args, &manifest);
            let options = Options {
                sample: args.sample,
                hashes: true,
            };
            let (model, progress) = (embedder.as_deref(), console.progress());
            let mut findings = verify(&generation, &manifest, options, model, &*progress)?;
            findings.extend(missing);
            Report::new(number, &manifest, args.sample, model.is_some(), findings)
        }
        Err(error) => Report {
            generation: number,
            findings: vec![Finding::new("files", "manifest.json", error.to_string())],
            remedy: Some("--restart".into()),
            ..Report::default()
        },
    };
    report.write(&args)?;
    Ok(match report.findings.as_slice() {
        [] => ExitStatus::Done,
        _ => ExitStatus::Partial,
    })
}

/// The embedder of the build, or why it is not to be had.
fn embedder(args: &VerifyArgs, manifest: &Manifest) -> (Option<Arc<dyn Embed>>, Option<Finding>) {
    if args.no_model {
        return (None, None);
    }
    let load = || -> Result<_, ModelError> {
        built_with(manifest, args.model.as_deref(), "auto", false)?.embedder()
    };
    match load() {
        Ok(embedder) => match check_embedder(&*embedder, manifest) {
            None => (Some(embedder), None),
            other => (None, other),
        },
        Err(error) => {
            let remedy = "name its folder with --model, or do without it with --no-model";
            let name = args.model.as_ref().unwrap_or(&manifest.embedder.name);
            let finding = Finding::new("model", name, format!("{error}; {remedy}"));
            (None, Some(finding))
        }
    }
}

/// The build that mends what was found, taking over all that is sound: a build knows itself what is missing, cut or changed,
/// writes documents and indexes anew in any case, and has to be told of the first stage whose files are whole and wrong.
fn remedy(findings: &[Finding], job: &Job) -> Option<String> {
    let is_damaged = |finding: &&Finding| finding.check != "model";
    let damaged: Vec<&Finding> = findings.iter().filter(is_damaged).collect();
    if damaged.is_empty() {
        return None;
    }
    let is_of = |dataset: Dataset| {
        let folder = format!("{}/", dataset.folder());
        damaged
            .iter()
            .any(|finding| finding.what.starts_with(&folder))
    };
    let is_wrong = |stage: &Stage| {
        let topics = *stage == Stage::Keywords && is_of(Dataset::Topics);
        topics || is_of(stage.output()) || is_of(stage.outcomes())
    };
    let is_known = damaged.iter().any(|finding| finding.check == "files");
    let wrong = stages(job).into_iter().find(is_wrong).filter(|_| !is_known);
    Some(match wrong {
        Some(stage) => format!("--from {}", stage.name()),
        None => "--restart".into(),
    })
}

/// What was checked, and what is wrong.
#[derive(Debug, Default, serde::Serialize)]
struct Report {
    generation: u64,
    files: usize,
    documents: u64,
    chunks: u64,
    queries: u64,
    /// Chunks that looked for themselves.
    sample: u64,
    /// Whether the sample was embedded again.
    model: bool,
    findings: Vec<Finding>,
    /// The flag of the build that mends it.
    remedy: Option<String>,
}

impl Report {
    fn new(
        generation: u64,
        manifest: &Manifest,
        sample: Sample,
        model: bool,
        findings: Vec<Finding>,
    ) -> Self {
        let rows = |dataset: Dataset| {
            let summary = manifest.datasets.get(dataset.folder());
            summary.map_or(0, |summary| summary.rows)
        };
        let chunks = rows(Dataset::Chunks);
        let remedy = remedy(&findings, &manifest.parameters);
        Self {
            generation,
            files: manifest.files.len(),
            documents: rows(Dataset::Documents),
            chunks,
            queries: rows(Dataset::Queries),
            sample: sample.of(chunks),
            model,
            findings,
            remedy,
        }
    }

    fn write(&self, args: &VerifyArgs) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if args.format == ResultFormat::Json {
            return Ok(writeln!(
                out,
                "{}",
                serde_json::to_string_pretty(&json!(self))?
            )?);
        }
        for finding in &self.findings {
            writeln!(out, "{finding}")?;
        }
        writeln!(
            out,
            "checked generation {} of {}: {} files, {} documents, {} chunks ({} as a sample, {} the model), {} queries: {}",
            self.generation,
            args.index.display(),
            self.files,
            self.documents,
            self.chunks,
            self.sample,
            if self.model { "with" } else { "without" },
            self.queries,
            match self.findings.len() {
                0 => "nothing is wrong".to_owned(),
                1 => "1 finding".to_owned(),
                n => format!("{n} findings"),
            },
        )?;
        if let Some(flag) = &self.remedy {
            writeln!(
                out,
                "`intendex build JOB {flag}` makes a new generation of what is sound, and `intendex generations` lists \
                 earlier ones to return to"
            )?;
        }
        Ok(())
    }
}
