//! The datasets against the manifest and the job: parts, rows and columns.

use std::{collections::BTreeSet, path::PathBuf};

use arrow::datatypes::{FieldRef, SchemaRef};

use super::{Findings, Subject, part};
use crate::{
    engine::{build::stages, selection, topics},
    store::{Dataset, schema},
};

const CHECK: &str = "datasets";

/// Checks what the footers say; parts that are not as written are damaged from then on. How many shards there are.
pub fn check(subject: &mut Subject, findings: &mut Findings) -> usize {
    let written = subject.manifest.datasets.get(Dataset::Documents.folder());
    let there = parts(subject, Dataset::Documents, findings).len();
    let shards = there.max(written.map_or(0, |summary| summary.parts));
    for dataset in Dataset::ALL {
        let names = parts(subject, dataset, findings);
        count_parts(subject, dataset, &names, shards, findings);
        count_rows(subject, dataset, &names, findings);
    }
    shards
}

/// The parts on disk, below the generation.
fn parts(subject: &Subject, dataset: Dataset, findings: &mut Findings) -> Vec<String> {
    let name = |path: PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        format!("{}/{file}", dataset.folder())
    };
    match dataset.parts(subject.generation) {
        Ok(paths) => paths.into_iter().map(name).collect(),
        Err(error) => {
            findings.add(CHECK, dataset.folder(), error.to_string());
            Vec::new()
        }
    }
}

/// Whether the job writes the dataset, whatever the corpus.
fn is_wanted(subject: &Subject, dataset: Dataset) -> bool {
    let job = &subject.manifest.parameters;
    let stages = stages(job);
    dataset == Dataset::Documents
        || (dataset == Dataset::Topics && topics::wanted(job))
        || (dataset == Dataset::Selection && selection::is_partial(&job.expand))
        || stages
            .iter()
            .any(|stage| [stage.output(), stage.outcomes()].contains(&dataset))
}

/// A part for every shard, and no other; the quarantine's parts are named after stages and come as they are needed.
fn count_parts(
    subject: &Subject,
    dataset: Dataset,
    names: &[String],
    shards: usize,
    findings: &mut Findings,
) {
    let folder = dataset.folder();
    match subject.manifest.datasets.get(folder) {
        None if names.is_empty() && !is_wanted(subject, dataset) => return,
        None => findings.add(CHECK, folder, "is not in the manifest"),
        Some(summary) if summary.parts != names.len() => {
            let (parts, there) = (summary.parts, names.len());
            findings.add(CHECK, folder, format!("has {there} parts of {parts}"));
        }
        Some(_) => {}
    }
    if dataset == Dataset::Quarantine {
        return;
    }
    let names: BTreeSet<&String> = names.iter().collect();
    // The topics are the corpus's.
    let shards = if dataset == Dataset::Topics {
        1
    } else {
        shards
    };
    let wanted: BTreeSet<String> = (0..shards)
        .map(|shard| part::name(dataset, shard))
        .collect();
    for name in &wanted {
        if !names.contains(name) && !subject.damaged.contains(name) {
            findings.add(CHECK, name, "is missing");
        }
    }
    for name in names.into_iter().filter(|name| !wanted.contains(*name)) {
        findings.add(CHECK, name, "belongs to no part of the documents");
    }
}

fn count_rows(subject: &mut Subject, dataset: Dataset, names: &[String], findings: &mut Findings) {
    let mut sum = Some(0);
    for name in names {
        if !subject.is_sound(name) {
            sum = None;
            continue;
        }
        match part::footer(subject, name) {
            Ok((rows, schema)) => {
                sum = sum.map(|sum| sum + rows);
                if let Some(message) = unlike(subject, dataset, &schema) {
                    findings.add(CHECK, name, message);
                    subject.damaged.insert(name.clone());
                }
            }
            Err(finding) => {
                sum = None;
                findings.push(finding);
                subject.damaged.insert(name.clone());
            }
        }
    }
    if let (Some(sum), Some(summary)) = (sum, subject.manifest.datasets.get(dataset.folder()))
        && sum != summary.rows
    {
        let message = format!("has {sum} rows of {}", summary.rows);
        findings.add(CHECK, dataset.folder(), message);
    }
}

/// How a part's columns are not those of its dataset; documents and chunks end with the columns passed through.
fn unlike(subject: &Subject, dataset: Dataset, found: &SchemaRef) -> Option<String> {
    let manifest = subject.manifest;
    let vector = (manifest.parameters.output.vectors, manifest.dim);
    let wanted = schema::schema(dataset, &[], vector);
    for (i, field) in wanted.fields().iter().enumerate() {
        let same = |other: &FieldRef| {
            (other.name(), other.data_type()) == (field.name(), field.data_type())
        };
        if !found.fields().get(i).is_some_and(same) {
            let (name, kind) = (field.name(), field.data_type());
            let other = found.fields().get(i);
            let other = other.map_or("nothing".to_owned(), |f| {
                format!("{} ({})", f.name(), f.data_type())
            });
            return Some(format!(
                "column {i} is {other} where {name} ({kind}) belongs; not read any further"
            ));
        }
    }
    None
}
