//! Reads a job file: TOML, then `--set`, then the environment, then the schema, then the rules between keys.

use std::path::Path;

use toml::{Table, Value};

use super::check::check;
use super::spec::Job;
use super::{JobError, Problem, env, keys, overrides};

/// The one version of the format.
const VERSION: i64 = 1;

impl Job {
    /// Reads the job file at `path` and applies `overrides` (`a.b=value`, later ones win).
    pub fn load(path: &Path, overrides: &[String]) -> Result<Job, JobError> {
        let text = std::fs::read_to_string(path).map_err(|source| JobError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(path, &text, overrides, &|name| std::env::var(name).ok())
    }

    /// Reads the text of a job file; `path` is for messages only, `lookup` gives environment variables.
    pub fn parse(
        path: &Path,
        text: &str,
        overrides: &[String],
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Job, JobError> {
        let table = toml::from_str(text).map_err(|error| syntax(path, text, &error))?;
        resolve(table, overrides, lookup).map_err(|problems| JobError::Invalid {
            path: path.to_path_buf(),
            problems,
        })
    }
}

fn resolve(
    mut table: Table,
    overrides: &[String],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Job, Vec<Problem>> {
    // Another version has other keys: nothing else could be judged.
    version(&table).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    for assignment in overrides {
        problems.extend(overrides::apply(&mut table, assignment).err());
    }
    // Nor can it be set: the keys would still be those of the file.
    version(&table).map_err(|problem| vec![problem])?;
    let mut value = Value::Table(table);
    env::substitute(&mut value, "", lookup, &mut problems);
    keys::check(&value, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut job: Job = value.try_into().map_err(|error| vec![unreadable(&error)])?;
    // A variable that is not set stands for none.
    job.engine.cluster = job.engine.cluster.filter(|url| !url.is_empty());
    let problems = check(&job);
    if problems.is_empty() {
        Ok(job)
    } else {
        Err(problems)
    }
}

fn version(table: &Table) -> Result<(), Problem> {
    match table.get("version") {
        Some(Value::Integer(VERSION)) => Ok(()),
        Some(Value::Integer(other)) => Err(Problem::new(
            "version",
            format!("is {other}, but this program reads version {VERSION}"),
        )),
        Some(_) => Err(Problem::new("version", "must be the integer 1")),
        None => Err(Problem::new(
            "version",
            "is missing; begin the file with `version = 1`",
        )),
    }
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> JobError {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    JobError::Syntax {
        path: path.to_path_buf(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: error.message().replace('\n', " "),
    }
}

/// What the schema cannot say (a number beyond its type). Such messages hold numbers only, never strings.
fn unreadable(error: &toml::de::Error) -> Problem {
    let text = error.to_string();
    let key = text.split('`').rev().nth(1).unwrap_or("job");
    Problem::new(key, error.message().replace('\n', " "))
}
