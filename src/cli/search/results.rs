//! Results as they are written: for people, as JSON, or as a TREC run.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    search::{
        Found, Unit,
        passages::{self, Passage},
        run::{TestQuery, write_results},
    },
    store::Manifest,
};

/// Code points of a chunk, and its questions, that the text format shows.
const EXCERPT_CHARS: usize = 400;
const EXCERPT_QUERIES: usize = 5;

/// The texts of results, by chunk id.
pub type Passages = BTreeMap<String, Passage>;

/// Lines of a TREC run.
pub fn write_trec(
    out: &mut dyn Write,
    query: &TestQuery,
    found: &[Found],
    unit: Unit,
) -> anyhow::Result<()> {
    let name = |f: &'_ Found| match unit {
        Unit::Chunk => f.chunk_id.clone(),
        Unit::Document => f.doc_id.clone(),
    };
    let names: Vec<String> = found.iter().map(name).collect();
    let results: Vec<(&str, f32)> = names
        .iter()
        .zip(found)
        .map(|(name, f)| (name.as_str(), f.score))
        .collect();
    let id = &query.query_id;
    Ok(write_results(&mut &mut *out, id, &results, "intendex")?)
}

/// One object a line, with the chunk's text and its indexed questions.
pub fn write_json(
    out: &mut dyn Write,
    query: &TestQuery,
    found: &[Found],
    passages: &Passages,
) -> anyhow::Result<()> {
    let results: Vec<Value> = found.iter().map(|f| result(f, passages)).collect();
    let line = json!({ "query_id": query.query_id, "results": results });
    Ok(writeln!(out, "{line}")?)
}

fn result(found: &Found, passages: &Passages) -> Value {
    let passage = passages.get(&found.chunk_id).cloned().unwrap_or_default();
    let queries: Vec<String> = passage.queries.into_iter().map(|(_, text)| text).collect();
    let mut value = json!(found);
    value["text"] = json!(passage.text);
    value["queries"] = json!(queries);
    value
}

/// A line for the query, where there may be several, and below it a few for each result.
pub fn write_text(
    out: &mut dyn Write,
    query: Option<&TestQuery>,
    found: &[Found],
    passages: &Passages,
) -> anyhow::Result<()> {
    if let Some(query) = query {
        let words: Vec<&str> = query.text.split_whitespace().collect();
        writeln!(out, "query {}: {}", query.query_id, words.join(" "))?;
    }
    if found.is_empty() {
        writeln!(out, "nothing found")?;
    }
    for (i, result) in found.iter().enumerate() {
        let passage = passages.get(&result.chunk_id).cloned().unwrap_or_default();
        writeln!(out, "{}. {}  {:.4}", i + 1, result.chunk_id, result.score)?;
        writeln!(out, "   {}", excerpt(&passage.text))?;
        for (_, query) in passage.queries.iter().take(EXCERPT_QUERIES) {
            writeln!(out, "   ? {query}")?;
        }
    }
    Ok(())
}

/// The beginning of a text, on one line.
fn excerpt(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}

/// The texts of all results, in one pass over the datasets.
pub fn read_passages(
    answers: &[Vec<Found>],
    generation: &Path,
    manifest: &Manifest,
) -> anyhow::Result<Passages> {
    let ids: BTreeSet<&str> = answers
        .iter()
        .flatten()
        .map(|f| f.chunk_id.as_str())
        .collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    Ok(runtime.block_on(passages::read(generation, &ids, &manifest.indexes))?)
}
