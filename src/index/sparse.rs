//! The sparse index: a Tantivy directory that Tantivy's own packages open.
//!
//! One document per chunk, in the order added, in one segment, so that document number i is row i of the chunks.
//! `title`, `text` and `queries` are separate fields with their own lengths and statistics; only the two ids are
//! stored, as the texts are in the Parquet datasets. Segment names are random, so the files differ between builds
//! that answer alike.

mod bm25f;
mod check;
mod shards;
mod unlocked;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tantivy::collector::TopDocs;
use tantivy::directory::MmapDirectory;
use tantivy::query::{Bm25StatisticsProvider, BooleanQuery, Query};
use tantivy::schema::{
    Field, FieldType, IndexRecordOption, STORED, STRING, Schema, TextFieldIndexing, TextOptions,
    Value,
};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{DocAddress, Index, ReloadPolicy, Searcher, TantivyDocument, TantivyError};

use super::analyzer;
use crate::job::spec::SparseLanguage;
use bm25f::FieldsQuery;
pub use shards::{ShardHit, SparseShards};
use unlocked::Unlocked;
pub use writer::SparseWriter;

/// What the index takes of one chunk.
#[derive(Debug, Clone, Copy)]
pub struct SparseDocument<'a> {
    pub chunk_id: &'a str,
    pub doc_id: &'a str,
    pub title: Option<&'a str>,
    pub text: &'a str,
    /// The generated queries selected for the index.
    pub queries: &'a [&'a str],
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseSummary {
    pub documents: u64,
}

/// How much a word in each field counts (BM25F); a field with 0 is not searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparseWeights {
    pub title: f32,
    pub text: f32,
    pub queries: f32,
}

/// A document number (the row of its chunk) and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparseHit {
    pub row: u32,
    pub score: f32,
}

/// A word of a search.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct QueryTerm {
    pub term: String,
    /// How often the search has it.
    pub count: f32,
}

/// The three searched fields, in the order in which [`SparseWeights`] has them.
const SEARCHED: [&str; 3] = ["title", "text", "queries"];

fn schema(language: SparseLanguage) -> Schema {
    let mut builder = Schema::builder();
    builder.add_text_field("chunk_id", STRING | STORED);
    builder.add_text_field("doc_id", STRING | STORED);
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(analyzer::name(language))
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    for name in SEARCHED {
        builder.add_text_field(
            name,
            TextOptions::default().set_indexing_options(indexing.clone()),
        );
    }
    builder.build()
}

/// A sparse index open for search.
pub struct SparseIndex {
    dir: PathBuf,
    searcher: Searcher,
    /// Of queries, then of the index; the latter for queries that have stop words only.
    analyzers: Vec<TextAnalyzer>,
}

impl SparseIndex {
    pub fn open(dir: &Path) -> Result<Self, SparseError> {
        let files = MmapDirectory::open(dir).map_err(|e| in_dir(dir)(e.into()))?;
        let mut index = Index::open(Unlocked(files)).map_err(in_dir(dir))?;
        index.set_tokenizers(analyzer::tokenizers());
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into();
        let searcher = reader.map_err(in_dir(dir))?.searcher();
        let segments = searcher.segment_readers().len();
        if segments > 1 {
            return Err(SparseError::Segments {
                path: dir.to_owned(),
                segments,
            });
        }
        let text = index.schema().get_field("text").map_err(in_dir(dir))?;
        let of_index = index.tokenizer_for_field(text).map_err(in_dir(dir))?;
        let of_queries = tokenizer_name(&index.schema(), text)
            .and_then(|name| analyzer::without_stop_words(&name));
        let analyzers = of_queries.into_iter().chain([of_index]).collect();
        Ok(Self {
            dir: dir.to_owned(),
            searcher,
            analyzers,
        })
    }

    /// Documents in the index.
    pub fn len(&self) -> u64 {
        self.searcher.num_docs()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The words of a search, in the order of their bytes. Words only: no character of `query` is syntax.
    pub fn terms(&self, query: &str) -> Vec<QueryTerm> {
        let words = self
            .analyzers
            .iter()
            .map(|analyzer| analyzer::terms(&mut analyzer.clone(), query));
        let words = words
            .into_iter()
            .find(|words| !words.is_empty())
            .unwrap_or_default();
        let mut counts: BTreeMap<String, f32> = BTreeMap::new();
        for word in words {
            *counts.entry(word).or_default() += 1.0;
        }
        let terms = counts.into_iter();
        terms
            .map(|(term, count)| QueryTerm { term, count })
            .collect()
    }

    /// The best `k` documents, score descending; of equal scores the earlier document first.
    ///
    /// The score is the sum of the words' BM25F over the fields (`sparse/bm25f.rs`).
    pub fn search(
        &self,
        query: &str,
        k: usize,
        weights: SparseWeights,
    ) -> Result<Vec<SparseHit>, SparseError> {
        self.best(&self.words(query, weights)?, k, &self.searcher)
    }

    /// The best `k` documents, in the order of [`SparseIndex::search`], scored by the statistics of a collection that this
    /// index may be a part of.
    fn best(
        &self,
        words: &[FieldsQuery],
        k: usize,
        statistics: &dyn Bm25StatisticsProvider,
    ) -> Result<Vec<SparseHit>, SparseError> {
        if words.is_empty() || k == 0 {
            return Ok(Vec::new());
        }
        let collector = TopDocs::with_limit(k.min(self.len() as usize).max(1)).order_by_score();
        let found = self
            .searcher
            .search_with_statistics_provider(&any_of(words), &collector, statistics)
            .map_err(in_dir(&self.dir))?;
        let mut hits: Vec<SparseHit> = found
            .into_iter()
            .map(|(score, address)| SparseHit {
                row: address.doc_id,
                score,
            })
            .collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        Ok(hits)
    }

    /// The words of a search, to be looked up in the fields that count; none where no field does.
    fn words(&self, query: &str, weights: SparseWeights) -> Result<Vec<FieldsQuery>, SparseError> {
        let mut fields = Vec::new();
        let weights = [weights.title, weights.text, weights.queries];
        for (name, weight) in SEARCHED.into_iter().zip(weights) {
            if weight > 0.0 {
                fields.push((self.field(name)?, weight));
            }
        }
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let fields: Arc<[_]> = fields.into();
        let terms = self.terms(query).into_iter();
        let word = |QueryTerm { term: word, count }| FieldsQuery {
            word,
            count,
            fields: fields.clone(),
        };
        Ok(terms.map(word).collect())
    }

    /// The chunk id and document id of a row.
    pub fn ids(&self, row: u32) -> Result<(String, String), SparseError> {
        let document: TantivyDocument = self
            .searcher
            .doc(DocAddress::new(0, row))
            .map_err(in_dir(&self.dir))?;
        let stored = |name: &'static str| {
            let value = document
                .get_first(self.field(name)?)
                .and_then(|value| value.as_str().map(str::to_owned));
            value.ok_or_else(|| SparseError::NoId {
                path: self.dir.clone(),
                row,
                field: name,
            })
        };
        Ok((stored("chunk_id")?, stored("doc_id")?))
    }

    fn field(&self, name: &str) -> Result<Field, SparseError> {
        self.searcher
            .schema()
            .get_field(name)
            .map_err(in_dir(&self.dir))
    }

    pub(super) fn searcher(&self) -> &Searcher {
        &self.searcher
    }
}

fn any_of(words: &[FieldsQuery]) -> BooleanQuery {
    let words = words.iter().cloned();
    BooleanQuery::union(words.map(|word| Box::new(word) as Box<dyn Query>).collect())
}

fn tokenizer_name(schema: &Schema, field: Field) -> Option<String> {
    match schema.get_field_entry(field).field_type() {
        FieldType::Str(options) => options
            .get_indexing_options()
            .map(|o| o.tokenizer().to_owned()),
        _ => None,
    }
}

fn in_dir(path: &Path) -> impl FnOnce(TantivyError) -> SparseError {
    let path = path.to_owned();
    move |source| SparseError::Tantivy {
        path,
        source: Box::new(source),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SparseError {
    #[error("sparse index {}: {source}", path.display())]
    Tantivy {
        path: PathBuf,
        source: Box<TantivyError>,
    },
    #[error("sparse index {}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("sparse index {}: the folder is not empty; remove it to build again", path.display())]
    NotEmpty { path: PathBuf },
    #[error("sparse index {}: it has {segments} segments where one was published; build it again", path.display())]
    Segments { path: PathBuf, segments: usize },
    #[error("sparse index {}: document {row} has no {field}; build it again", path.display())]
    NoId {
        path: PathBuf,
        row: u32,
        field: &'static str,
    },
}

#[cfg(test)]
mod tests;
