//! One shard: its datasets against each other, and the rows of the indexes that were made of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    Findings, Subject, expansion,
    indexes::Indexes,
    model::Model,
    outcomes::{self, ids},
    part,
    rows::{Chunk, Document, Intent, Query, Rows},
    tiling::{children, gap, misnumbered, unserved},
    vectors::{self, Embedded, Side},
};
use crate::{engine::stage::Stage, job::spec::ChunkMethod, store::Dataset};

/// Checks a shard; how many chunks it has.
pub fn check(
    subject: &Subject,
    model: &Model,
    indexes: &mut Indexes,
    number: usize,
    findings: &mut Findings,
) -> usize {
    indexes.enter(subject, number, findings);
    let rows = Rows::read(subject, number, findings);
    let shard = Shard {
        subject,
        model,
        number,
        rows: &rows,
    };
    shard.documents(indexes, findings);
    shard.intents(findings);
    shard.chunks(findings);
    shard.queries(findings);
    outcomes::check(subject, &rows, number, findings);
    expansion::check(subject, &rows, number, indexes.topics, findings);
    shard.vectors(indexes, findings);
    shard.sparse(indexes, findings);
    let chunks = rows.chunks.as_ref().map_or(0, Vec::len);
    indexes.chunks += chunks as u64;
    indexes.query_rows += rows
        .queries
        .as_ref()
        .map_or(0, |queries| queries.len() as u64);
    chunks
}

struct Shard<'a> {
    subject: &'a Subject<'a>,
    model: &'a Model<'a>,
    number: usize,
    rows: &'a Rows,
}

impl Shard<'_> {
    fn name(&self, dataset: Dataset) -> String {
        part::name(dataset, self.number)
    }

    /// Positions go on without a gap from shard to shard.
    fn documents(&self, indexes: &mut Indexes, findings: &mut Findings) {
        let name = self.name(Dataset::Documents);
        let Some(documents) = &self.rows.documents else {
            indexes.documents = None;
            return;
        };
        let mut seen = BTreeSet::new();
        for document in documents {
            let id = &document.id;
            if !seen.insert(id) {
                findings.add("documents", &name, format!("`{id}` is there twice"));
            }
            if let Some(next) = &mut indexes.documents {
                if document.position != *next {
                    let position = document.position;
                    let message = format!("`{id}` has position {position} where {next} belongs");
                    findings.add("documents", &name, message);
                }
                *next = document.position + 1;
            }
        }
    }

    fn intents(&self, findings: &mut Findings) {
        let (Some(documents), Some(intents)) = (&self.rows.documents, &self.rows.intents) else {
            return;
        };
        let name = self.name(Dataset::Intents);
        let of: Vec<&str> = intents
            .iter()
            .map(|intent| intent.document.as_str())
            .collect();
        let ranges = children(&ids(documents), &of, |m| findings.add("intents", &name, m));
        for (document, range) in documents.iter().zip(ranges) {
            let mut ordinals = intents[range].iter().map(|intent| intent.ordinal).zip(0..);
            if ordinals.any(|(ordinal, n)| ordinal != n) {
                let message = format!("the intents of `{}` are not numbered in order", document.id);
                findings.add("intents", &name, message);
            }
        }
    }

    fn chunks(&self, findings: &mut Findings) {
        let (Some(documents), Some(chunks)) = (&self.rows.documents, &self.rows.chunks) else {
            return;
        };
        let name = self.name(Dataset::Chunks);
        let of: Vec<&str> = chunks.iter().map(|chunk| chunk.document.as_str()).collect();
        let ranges = children(&ids(documents), &of, |m| findings.add("chunks", &name, m));
        let intents = self.intents_by_document();
        for (document, range) in documents.iter().zip(ranges) {
            if self.rows.failed.has(Stage::Chunks, &document.id) && range.is_empty() {
                continue;
            }
            let chunks = &chunks[range];
            let intents = intents.as_ref().map(|by| by.get(document.id.as_str()));
            let intents = intents.map(|found| found.copied().unwrap_or_default());
            for message in self.odd_chunks(document, chunks, intents) {
                findings.add("chunks", &name, message);
            }
        }
    }

    /// What is wrong with the chunks of a document, one message of a kind.
    fn odd_chunks(
        &self,
        document: &Document,
        chunks: &[Chunk],
        intents: Option<&[Intent]>,
    ) -> Vec<String> {
        let settings = &self.subject.manifest.parameters.chunk;
        let overlap = settings.method == ChunkMethod::Sliding;
        let numbers = chunks.iter().map(|c| (c.id.as_str(), Some(c.ordinal)));
        let caps = [settings.max_tokens, self.model.max_text_tokens()];
        let cap = caps.into_iter().flatten().min().unwrap_or(usize::MAX);
        let long = chunks.iter().find(|chunk| chunk.tokens as usize > cap);
        let titled = chunks.iter().find(|chunk| chunk.title != document.title);
        [
            misnumbered(&document.id, '#', numbers),
            gap(document, chunks, overlap),
            long.map(|c| format!("`{}` has {} tokens of at most {cap}", c.id, c.tokens)),
            titled.map(|c| format!("`{}` does not have its document's title", c.id)),
            intents.and_then(|intents| unserved(intents, chunks)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// None where intents cannot be read.
    fn intents_by_document(&self) -> Option<HashMap<&str, &[Intent]>> {
        let intents = self.rows.intents.as_ref()?;
        let groups = intents.chunk_by(|a, b| a.document == b.document);
        Some(
            groups
                .map(|group| (group[0].document.as_str(), group))
                .collect(),
        )
    }

    fn queries(&self, findings: &mut Findings) {
        let (Some(chunks), Some(queries)) = (&self.rows.chunks, &self.rows.queries) else {
            return;
        };
        let name = self.name(Dataset::Queries);
        let of: Vec<&str> = queries.iter().map(|query| query.chunk.as_str()).collect();
        let ranges = children(&ids(chunks), &of, |m| findings.add("queries", &name, m));
        for (chunk, range) in chunks.iter().zip(ranges) {
            let numbers = queries[range].iter().map(|query| (query.id.as_str(), None));
            if let Some(message) = misnumbered(&chunk.id, '?', numbers) {
                findings.add("queries", &name, message);
            }
        }
    }

    /// The chunks that have a vector.
    fn embedded_chunks(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        let failed = |chunk: &Chunk| self.rows.failed.has(Stage::TextVectors, &chunk.id);
        let chunks = self.rows.chunks.iter().flatten().enumerate();
        chunks.filter(move |(_, chunk)| !failed(chunk))
    }

    fn vectors(&self, indexes: &mut Indexes, findings: &mut Findings) {
        let Some(_) = &self.rows.chunks else {
            indexes.text.lose(&self.name(Dataset::Chunks), findings);
            indexes.queries.lose(&self.name(Dataset::Chunks), findings);
            return;
        };
        let sampled = self.sampler(Dataset::Chunks, indexes.chunks);
        let texts = self.embedded_chunks().map(|(i, chunk)| Embedded {
            id: &chunk.id,
            title: chunk.title.as_deref(),
            text: &chunk.text,
            indexed: true,
            sampled: sampled(i),
        });
        let texts: Vec<Embedded> = texts.collect();
        let (subject, model) = (self.subject, self.model);
        let side = (Side::Text, self.number);
        vectors::check(subject, model, side, &texts, &mut indexes.text, findings);
        let Some(queries) = &self.rows.queries else {
            return indexes.queries.lose(&self.name(Dataset::Queries), findings);
        };
        let chunks: BTreeSet<&str> = texts.iter().map(|text| text.id).collect();
        let queries = self.embedded_queries(queries, &chunks, indexes);
        let side = (Side::Queries, self.number);
        vectors::check(
            subject,
            model,
            side,
            &queries,
            &mut indexes.queries,
            findings,
        );
    }

    /// The queries that have a vector. The dense index has those that are taken and no words, if their chunk has one too.
    fn embedded_queries<'b>(
        &self,
        queries: &'b [Query],
        chunks: &BTreeSet<&str>,
        indexes: &Indexes,
    ) -> Vec<Embedded<'b>> {
        let sampled = self.sampler(Dataset::Queries, indexes.query_rows);
        let failed = |query: &Query| self.rows.failed.has(Stage::QueryVectors, &query.id);
        let there = queries
            .iter()
            .enumerate()
            .filter(|(_, query)| !failed(query));
        let embedded = there.map(|(i, query)| Embedded {
            id: &query.id,
            title: None,
            text: &query.text,
            indexed: query.taken && !query.is_vocabulary && chunks.contains(query.chunk.as_str()),
            sampled: sampled(i),
        });
        embedded.collect()
    }

    /// Which rows of this shard are sampled, `passed` rows being before it.
    fn sampler(&self, dataset: Dataset, passed: u64) -> impl Fn(usize) -> bool + use<> {
        let stride = self
            .subject
            .options
            .sample
            .stride(self.subject.rows(dataset));
        move |row| stride.is_some_and(|stride| (passed + row as u64).is_multiple_of(stride))
    }

    /// The sparse index takes every chunk, with those of its queries that are taken.
    fn sparse(&self, indexes: &mut Indexes, findings: &mut Findings) {
        let mut selected: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for query in self.rows.queries.iter().flatten() {
            if query.taken {
                indexes.selected += 1;
                let queries = selected.entry(&query.chunk).or_default();
                queries.push(&query.text);
            }
        }
        let Some(chunks) = &self.rows.chunks else {
            return indexes.sparse.lose(&self.name(Dataset::Chunks), findings);
        };
        let sampled = self.sampler(Dataset::Chunks, indexes.chunks);
        // What a chunk was indexed with is not known without its queries.
        let known = self.rows.queries.is_some();
        for (i, chunk) in chunks.iter().enumerate() {
            let queries = selected
                .get(chunk.id.as_str())
                .map_or(&[][..], Vec::as_slice);
            let sampled = known && sampled(i);
            indexes.sparse.follow(chunk, queries, sampled, findings);
        }
    }
}
