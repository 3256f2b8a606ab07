//! `intendex import`: a corpus from files.

use std::path::PathBuf;

use super::{ExitStatus, at_least_one};
use crate::corpus::import::{ImportOptions, RowKeys, import};

/// Makes a Parquet corpus from Markdown, text, HTML, JSONL and CSV files.
///
/// A document's id is its path below the PATH given; with several PATHs it begins with the end of its PATH. A
/// row's id is its own, else its file's with `#` and its line.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Files, and folders that are read recursively.
    #[arg(required = true, value_name = "PATHS")]
    paths: Vec<PathBuf>,
    /// The Parquet file to write.
    #[arg(long, value_name = "FILE", env = "INTENDEX_IMPORT_OUT")]
    out: PathBuf,
    /// Only files whose path below a given folder matches, such as `**/README.md`.
    #[arg(long, value_name = "PATTERN", env = "INTENDEX_IMPORT_GLOB")]
    glob: Option<String>,
    /// At most so many documents.
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>, env = "INTENDEX_IMPORT_LIMIT")]
    limit: Option<u64>,
    /// JSONL key or CSV column of the id; default: id, doc_id or _id.
    #[arg(long, value_name = "KEY", env = "INTENDEX_IMPORT_ID_KEY")]
    id_key: Option<String>,
    /// JSONL key or CSV column of the title; default: title.
    #[arg(long, value_name = "KEY", env = "INTENDEX_IMPORT_TITLE_KEY")]
    title_key: Option<String>,
    /// JSONL key or CSV column of the text; default: text, body, content or contents.
    #[arg(long, value_name = "KEY", env = "INTENDEX_IMPORT_TEXT_KEY")]
    text_key: Option<String>,
}

pub fn run(args: ImportArgs) -> anyhow::Result<ExitStatus> {
    let options = ImportOptions {
        paths: args.paths,
        out: args.out,
        glob: args.glob,
        limit: args.limit,
        keys: RowKeys {
            id: args.id_key,
            title: args.title_key,
            text: args.text_key,
        },
    };
    let done = import(&options, &|skipped| tracing::warn!("{skipped}"))?;
    if let Some(first) = &done.first_spaced {
        tracing::warn!(
            "{} ids have white space in them, the first of them `{first}`: a TREC run cannot hold these, \
             so search for them with `--format json`",
            done.spaced
        );
    }
    let out = options.out.display();
    tracing::info!(
        "{out}: {} documents, {} skipped",
        done.documents,
        done.skipped
    );
    Ok(match done.skipped {
        0 => ExitStatus::Done,
        _ => ExitStatus::Partial,
    })
}
