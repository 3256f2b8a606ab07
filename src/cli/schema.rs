//! `intendex schema`: the written schemas, as `schemas/` holds them.

use std::io::Write;

use super::ExitStatus;
use crate::job::schema::job_schema;

/// Prints a JSON Schema.
#[derive(Debug, clap::Args)]
pub struct SchemaArgs {
    /// What to describe.
    #[arg(value_enum)]
    of: SchemaOf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SchemaOf {
    /// The job file.
    Job,
}

pub fn run(args: SchemaArgs) -> anyhow::Result<ExitStatus> {
    let schema = match args.of {
        SchemaOf::Job => job_schema(),
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string_pretty(schema)?)?;
    Ok(ExitStatus::Done)
}
