//! What became of each row that a stage was given: rows of its output, or quarantine.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Findings, Subject, part,
    rows::{Chunk, Document, Failed, Query, Rows},
    step::InStep,
};
use crate::{engine::stage::Stage, store::Dataset};

const CHECK: &str = "outcomes";

/// Compares the outcomes and the quarantine of a shard with what its stages were given and what they wrote.
pub fn check(subject: &Subject, rows: &Rows, shard: usize, findings: &mut Findings) {
    for stage in Stage::ALL {
        let Some(given) = given(rows, stage) else {
            continue;
        };
        quarantine(&rows.failed, (stage, shard), &given, findings);
        let name = part::name(stage.outcomes(), shard);
        if subject.is_sound(&name) {
            let wanted = given.iter().filter(|id| !rows.failed.has(stage, id));
            let wanted: Vec<&str> = wanted.copied().collect();
            let written = written(rows, stage);
            if let Err(finding) = outcomes(subject, &name, &wanted, written.as_ref(), findings) {
                findings.push(finding);
            }
        }
    }
}

/// A row in quarantine was given to its stage.
fn quarantine(
    failed: &Failed,
    (stage, shard): (Stage, usize),
    given: &[&str],
    findings: &mut Findings,
) {
    let given: BTreeSet<&str> = given.iter().copied().collect();
    for id in failed.of(stage).filter(|id| !given.contains(id)) {
        let message = format!("`{id}` was never given to {}", stage.name());
        findings.add("quarantine", &Failed::file(stage, shard), message);
    }
}

/// There is an outcome for every row that did not fail, in order, and it tells how many rows were written.
fn outcomes(
    subject: &Subject,
    name: &str,
    wanted: &[&str],
    written: Option<&BTreeMap<&str, u32>>,
    findings: &mut Findings,
) -> part::Checked<()> {
    let mut listed = part::outcomes(subject, name)?.into_iter();
    let mut counts = BTreeMap::new();
    let mut step = InStep::new("row", 0);
    let mut next = || {
        let (id, rows) = match listed.next() {
            Some(outcome) => outcome,
            None => return Ok(None),
        };
        counts.insert(id.clone(), rows);
        Ok(Some(id))
    };
    let mut messages: Vec<String> = Vec::new();
    for id in wanted {
        messages.extend(step.expect(id, &mut next).1);
    }
    messages.extend(step.finish(&mut next));
    for message in messages {
        findings.add(CHECK, name, message);
    }
    let Some(written) = written else {
        return Ok(());
    };
    for id in wanted {
        let there = written.get(id).copied().unwrap_or(0);
        if let Some(rows) = counts.get(*id).filter(|rows| **rows != there) {
            findings.add(
                CHECK,
                name,
                format!("`{id}` gave {rows} rows; there are {there}"),
            );
        }
    }
    Ok(())
}

/// The ids of a stage's input; None where they cannot be read.
fn given(rows: &Rows, stage: Stage) -> Option<Vec<&str>> {
    Some(match stage.input() {
        Dataset::Documents => ids(rows.documents.as_ref()?),
        Dataset::Chunks => ids(rows.chunks.as_ref()?),
        _ => ids(rows.queries.as_ref()?),
    })
}

/// Rows that a stage wrote for each input row. None: they cannot be read, or are vectors, which are compared with
/// their rows elsewhere.
fn written(rows: &Rows, stage: Stage) -> Option<BTreeMap<&str, u32>> {
    let parents: Vec<&str> = match stage.output() {
        Dataset::Intents => {
            let intents = rows.intents.as_ref()?.iter();
            intents.map(|intent| intent.document.as_str()).collect()
        }
        Dataset::Chunks => {
            let chunks = rows.chunks.as_ref()?.iter();
            chunks.map(|chunk| chunk.document.as_str()).collect()
        }
        Dataset::Queries => {
            let queries = rows.queries.as_ref()?.iter();
            queries.map(|query| query.chunk.as_str()).collect()
        }
        Dataset::ChunkTopics => rows
            .described
            .as_ref()?
            .iter()
            .map(String::as_str)
            .collect(),
        Dataset::Scores => rows.scored.as_ref()?.iter().map(String::as_str).collect(),
        _ => return None,
    };
    let mut counts = BTreeMap::new();
    for parent in parents {
        *counts.entry(parent).or_default() += 1;
    }
    Some(counts)
}

/// Rows that have an id.
pub trait Identified {
    fn id(&self) -> &str;
}

impl Identified for Document {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Identified for Chunk {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Identified for Query {
    fn id(&self) -> &str {
        &self.id
    }
}

pub fn ids<T: Identified>(rows: &[T]) -> Vec<&str> {
    rows.iter().map(Identified::id).collect()
}
