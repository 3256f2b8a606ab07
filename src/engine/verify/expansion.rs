//! Topics, keywords and scores, and which queries the indexes took.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float32Type, UInt32Type},
};

use super::{Findings, Subject, part, rows::Rows, step::InStep};
use crate::{
    engine::stage::Stage,
    store::{
        Dataset,
        dataset::{float, text},
    },
};

/// How far sums of rounded numbers may be off.
const TOLERANCE: f32 = 1e-3;

/// The topics are numbered, with vectors of length 1; returns how many there are, None where they cannot be read.
pub fn topics(subject: &Subject, findings: &mut Findings) -> Option<u32> {
    let name = part::name(Dataset::Topics, 0);
    if !subject.path(&name).exists() || !subject.is_sound(&name) {
        return None;
    }
    let mut count = 0;
    let mut messages = Vec::new();
    let columns = ["topic_id", "centroid", "documents"];
    let read = part::each_batch(subject, &name, &columns, |batch| {
        let ids = batch.column(0).as_primitive::<UInt32Type>();
        let sketch = batch.column(2);
        for i in 0..batch.num_rows() {
            let centroid = batch.column(1).as_fixed_size_list().value(i);
            let centroid = centroid.as_primitive::<Float32Type>().values();
            let length = centroid.iter().map(|x| x * x).sum::<f32>().sqrt();
            if ids.value(i) != count {
                messages.push(format!("row {count} is not the next topic"));
            }
            if sketch.is_valid(i) != (count == 0) {
                messages.push("the first topic alone has the sketch of its corpus".into());
            }
            if (length - 1.0).abs() > TOLERANCE {
                messages.push(format!("topic {count} has a vector of length {length}"));
            }
            count += 1;
        }
        Ok(())
    });
    if let Err(finding) = read {
        findings.push(finding);
        return None;
    }
    messages
        .into_iter()
        .for_each(|message| findings.add("topics", &name, message));
    Some(count)
}

/// Checks a shard; `topics` is how many there are.
pub fn check(
    subject: &Subject,
    rows: &Rows,
    shard: usize,
    topics: Option<u32>,
    findings: &mut Findings,
) {
    let failed = |stage: Stage, id: &str| rows.failed.has(stage, id);
    if let Some(chunks) = &rows.chunks {
        let given = chunks.iter().map(|chunk| chunk.id.as_str());
        let wanted = given.filter(|id| !failed(Stage::Keywords, id)).collect();
        let part = (Dataset::ChunkTopics, shard);
        in_step(
            subject,
            part,
            ["chunk_id", "topics"],
            wanted,
            findings,
            |batch, i| odd_shares(batch, i, topics),
        );
    }
    if let Some(queries) = &rows.queries {
        let given = queries.iter().map(|query| query.id.as_str());
        let wanted = given.filter(|id| !failed(Stage::Scores, id)).collect();
        let columns = ["query_id", "log_p_chunk", "log_p_empty", "gain"];
        in_step(
            subject,
            (Dataset::Scores, shard),
            columns,
            wanted,
            findings,
            odd_gain,
        );
        let threshold = subject.manifest.indexes.query_threshold;
        let wanted = queries.iter().map(|query| query.id.as_str()).collect();
        let columns = ["query_id", "score", "taken"];
        in_step(
            subject,
            (Dataset::Selection, shard),
            columns,
            wanted,
            findings,
            |batch, i| odd_selection(batch, i, threshold),
        );
    }
}

/// There is a row for each of these, in order, with nothing odd in it; where there is the dataset at all.
fn in_step<const N: usize>(
    subject: &Subject,
    (dataset, shard): (Dataset, usize),
    columns: [&str; N],
    wanted: Vec<&str>,
    findings: &mut Findings,
    odd: impl Fn(&RecordBatch, usize) -> Option<String>,
) {
    let name = part::name(dataset, shard);
    if !subject.manifest.datasets.contains_key(dataset.folder()) || !subject.is_sound(&name) {
        return;
    }
    let mut found = Vec::new();
    let read = part::each_batch(subject, &name, &columns, |batch| {
        for i in 0..batch.num_rows() {
            let id = text(batch, columns[0], i).unwrap_or_default();
            found.push((id.to_owned(), odd(batch, i)));
        }
        Ok(())
    });
    if let Err(finding) = read {
        return findings.push(finding);
    }
    let check = dataset.folder();
    for (id, odd) in &found {
        if let Some(odd) = odd {
            findings.add(check, &name, format!("`{id}` {odd}"));
        }
    }
    let mut ids = found.into_iter();
    let mut next = || Ok(ids.next().map(|(id, _)| id));
    let mut step = InStep::new("row", 0);
    let mut messages: Vec<String> = Vec::new();
    for id in wanted {
        messages.extend(step.expect(id, &mut next).1);
    }
    messages.extend(step.finish(&mut next));
    messages
        .into_iter()
        .for_each(|message| findings.add(check, &name, message));
}

/// The shares of a chunk are of topics that there are, and all of it.
fn odd_shares(batch: &RecordBatch, i: usize, topics: Option<u32>) -> Option<String> {
    let shares = batch.column_by_name("topics")?.as_list::<i32>().value(i);
    let (ids, shares) = (shares.as_struct().column(0), shares.as_struct().column(1));
    let ids = ids.as_primitive::<UInt32Type>().values();
    if let Some(id) = ids
        .iter()
        .find(|id| topics.is_some_and(|count| **id >= count))
    {
        return Some(format!("has a share of topic {id}, of which there is none"));
    }
    let sum: f32 = shares.as_primitive::<Float32Type>().values().iter().sum();
    let whole = ids.is_empty() || (sum - 1.0).abs() < TOLERANCE;
    (!whole).then(|| format!("has topics for {sum} of it"))
}

fn odd_gain(batch: &RecordBatch, i: usize) -> Option<String> {
    let number = |name: &str| float(batch, name, i);
    let gain = number("gain")?;
    let difference = number("log_p_chunk")? - number("log_p_empty")?;
    ((gain - difference).abs() > TOLERANCE)
        .then(|| format!("has a gain of {gain} where {difference} belongs"))
}

fn odd_selection(batch: &RecordBatch, i: usize, threshold: Option<f32>) -> Option<String> {
    let score = float(batch, "score", i)?;
    let taken = batch.column_by_name("taken")?.as_boolean().value(i);
    let below = threshold.is_none_or(|lowest| score < lowest);
    (taken && below).then(|| format!("is taken with {score}, below the threshold"))
}
