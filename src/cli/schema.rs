//! `intendex schema`: the written schemas, as `schemas/` holds them.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::ExitStatus;
use crate::{
    job::schema::job_schema,
    store::{Dataset, Manifest, schema::describe},
};

/// Prints a schema: of the job file, of manifest.json, or of a dataset; or writes them all to a folder.
#[derive(Debug, clap::Args)]
pub struct SchemaArgs {
    /// job, manifest, a dataset (chunks, queries, vectors/text, …), or all.
    #[arg(value_name = "NAME")]
    name: String,
    /// Folder to write to; needed for all.
    #[arg(long, value_name = "FOLDER", env = "INTENDEX_SCHEMA_OUT")]
    out: Option<PathBuf>,
}

pub fn run(args: SchemaArgs) -> anyhow::Result<ExitStatus> {
    let schemas = schemas();
    let wanted = |name: &str| args.name == "all" || args.name == name;
    let known: Vec<&str> = schemas.iter().map(|(name, ..)| *name).collect();
    ensure!(
        known.iter().any(|name| wanted(name)),
        "no schema `{}`; there are: {}, all",
        args.name,
        known.join(", ")
    );
    ensure!(
        args.name != "all" || args.out.is_some(),
        "all schemas go to a folder; name it with --out"
    );
    for (_, file, schema) in schemas.iter().filter(|(name, ..)| wanted(name)) {
        match &args.out {
            Some(folder) => write(&folder.join(file), schema)?,
            None => {
                let text = serde_json::to_string_pretty(schema)?;
                writeln!(std::io::stdout().lock(), "{text}")?;
            }
        }
    }
    Ok(ExitStatus::Done)
}

/// Name, file below `schemas/`, content.
fn schemas() -> Vec<(&'static str, String, Value)> {
    let manifest = schemars::schema_for!(Manifest).to_value();
    let mut schemas = vec![
        ("job", "job.schema.json".to_owned(), job_schema().clone()),
        ("manifest", "manifest.schema.json".to_owned(), manifest),
    ];
    schemas.extend(Dataset::ALL.map(|d| (d.folder(), format!("{}.json", d.folder()), describe(d))));
    schemas
}

fn write(path: &Path, schema: &Value) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let text = serde_json::to_string_pretty(schema)? + "\n";
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
