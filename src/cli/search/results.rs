//! Results as they are written: for people, as JSON, or as a TREC run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    corpus::import::NewFile,
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

/// Where results go. What a failure leaves of a file is what was there before.
pub struct Out {
    writer: BufWriter<Box<dyn Write>>,
    file: Option<NewFile>,
    path: Option<PathBuf>,
}

impl Out {
    pub fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let opened = match path {
            None => Ok((Box::new(io::stdout()) as Box<dyn Write>, None)),
            Some(path) => Self::open(path).with_context(|| cannot_write(path)),
        };
        let (writer, file) = opened?;
        Ok(Self {
            writer: BufWriter::new(writer),
            file,
            path: path.map(Path::to_owned),
        })
    }

    /// A pipe or a device is written as it is.
    fn open(path: &Path) -> io::Result<(Box<dyn Write>, Option<NewFile>)> {
        let is_stream = |found: std::fs::Metadata| !found.is_file() && !found.is_dir();
        if path.metadata().is_ok_and(is_stream) {
            return Ok((Box::new(File::options().write(true).open(path)?), None));
        }
        let file = NewFile::create(path)?;
        Ok((Box::new(file.handle()?), Some(file)))
    }

    /// Lets `write` write everything; then a file gets its name.
    pub fn write(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let written = write(&mut self.writer).and_then(|()| Ok(self.writer.flush()?));
        let written = written.and_then(|()| Ok(self.file.map_or(Ok(()), NewFile::publish)?));
        match &self.path {
            Some(path) => written.with_context(|| cannot_write(path)),
            None => written,
        }
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

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
    let indexes = &manifest.indexes;
    let lowest =
        (indexes.queries_indexed > 0).then(|| indexes.query_threshold.unwrap_or(f32::NEG_INFINITY));
    let ids: BTreeSet<&str> = answers
        .iter()
        .flatten()
        .map(|f| f.chunk_id.as_str())
        .collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    Ok(runtime.block_on(passages::read(generation, &ids, lowest))?)
}
