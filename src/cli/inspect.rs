//! `intendex inspect`: shows how a document was cut.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;

use super::{ExitStatus, built_with, out::Out};
use crate::{
    report::{document, html, terminal},
    store::{Files, Manifest, Output, read_json},
};

/// Shows a document of a published index: its chunks, their keywords, intents and questions with their scores, and where `fixed`,
/// `paragraph`, `recursive`, `cluster` and `boundary` would cut.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub index: PathBuf,
    /// The document, or one of its chunks.
    #[arg(value_name = "DOC_ID")]
    pub doc_id: String,
    /// Write a page of HTML here instead; the file appears when it is whole.
    #[arg(long, value_name = "FILE", env = "INTENDEX_INSPECT_HTML")]
    pub html: Option<PathBuf>,
    /// Folder of the embedder, when it is not where it was during the build.
    #[arg(long, value_name = "FOLDER", env = "INTENDEX_INSPECT_MODEL")]
    pub model: Option<String>,
    /// Device of the embedder: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", env = "INTENDEX_INSPECT_DEVICE")]
    pub device: String,
    /// Never touch the network.
    #[arg(long, value_parser = BoolishValueParser::new(), env = "INTENDEX_INSPECT_OFFLINE")]
    pub offline: bool,
}

pub fn run(args: InspectArgs) -> anyhow::Result<ExitStatus> {
    let (_, generation) = Output::fetch(&args.index, Files::Datasets)?.current()?;
    let manifest: Manifest = read_json(&generation.join("manifest.json"))?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let read = |id: &str| runtime.block_on(document::read(&generation, id));
    let mut found = read(&args.doc_id)?;
    // A chunk's id, as search prints it, names its document.
    if let (None, Some((document, _))) = (&found, args.doc_id.rsplit_once('#')) {
        found = read(document)?;
    }
    let Some(mut document) = found else {
        bail!(
            "{} has no document {:?}; its documents are in {}, and rows that failed in {}",
            args.index.display(),
            args.doc_id,
            generation.join("documents").display(),
            generation.join("quarantine").display()
        );
    };
    if let Err(error) = compare(&mut document, &args, &manifest) {
        tracing::warn!("where other methods would cut is not shown: {error:#}");
    }
    let method = manifest.parameters.chunk.method.name();
    Out::create(args.html.as_deref())?.write(|out| {
        match args.html {
            Some(_) => html::write(out, &document, method)?,
            None => terminal::write(out, &document, method)?,
        }
        Ok(())
    })?;
    Ok(ExitStatus::Done)
}

fn compare(
    document: &mut document::Document,
    args: &InspectArgs,
    manifest: &Manifest,
) -> anyhow::Result<()> {
    let models = built_with(manifest, args.model.as_deref(), &args.device, args.offline)?;
    let embedder = models.embedder()?;
    Ok(document.compare(&manifest.parameters.chunk, &*embedder)?)
}
