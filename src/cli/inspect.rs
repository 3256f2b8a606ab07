//! `intendex inspect`: shows how a document was cut.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::{Context, bail};
use clap::builder::BoolishValueParser;
use serde_json::Value;

use super::{ExitStatus, built_with};
use crate::{
    report::{document, html, terminal},
    store::{Manifest, Output, read_json},
};

/// Shows a document of a published index: its chunks, their intents and questions with their scores, and where other
/// methods would cut.
#[derive(Debug, clap::Args)]
pub struct InspectArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub index: PathBuf,
    #[arg(value_name = "DOC_ID")]
    pub doc_id: String,
    /// Write a page of HTML here instead.
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
    let (_, generation) = Output::new(&args.index).current()?;
    let manifest: Manifest = read_json(&generation.join("manifest.json"))?;
    let indexes = &manifest.indexes;
    let lowest =
        (indexes.queries_indexed > 0).then(|| indexes.query_threshold.unwrap_or(f32::NEG_INFINITY));
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let read = document::read(&generation, &args.doc_id, lowest);
    let Some(mut document) = runtime.block_on(read)? else {
        bail!(
            "{} has no document {:?}; its documents are in {}",
            args.index.display(),
            args.doc_id,
            generation.join("documents").display()
        );
    };
    let models = built_with(&manifest, args.model.as_deref(), &args.device, args.offline);
    let embedder = models.and_then(|models| models.embedder()).with_context(|| {
        let name = &manifest.embedder.name;
        format!("other methods count tokens with the index's embedder, {name}, which cannot be used; name its folder with --model")
    })?;
    let settings = &manifest.parameters.chunk;
    document.compare(settings, &*embedder)?;
    let method = match serde_json::to_value(settings.method)? {
        Value::String(name) => name,
        other => other.to_string(),
    };
    match &args.html {
        Some(path) => {
            let cannot = || format!("cannot write {}", path.display());
            let mut out = BufWriter::new(File::create(path).with_context(cannot)?);
            html::write(&mut out, &document, &method).with_context(cannot)?;
            out.flush().with_context(cannot)?;
        }
        None => terminal::write(&mut io::stdout().lock(), &document, &method)?,
    }
    Ok(ExitStatus::Done)
}
