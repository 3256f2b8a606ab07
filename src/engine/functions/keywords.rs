use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, StructArray, UInt32Array},
    datatypes::{DataType, Field, Fields},
    error::ArrowError,
};

use super::{KEYWORDS, MapStage, Settings, fatal, outcome, outcome::Outcome, strings, text_at};
use crate::{
    engine::{
        fingerprint::{self, Key},
        models::Models,
    },
    expand::{
        keywords::{self, About, Keyword},
        topics::Topics,
    },
    job::{Progress, spec::SparseLanguage},
    model::ModelError,
    store::schema::{keyword_fields, share_fields},
};

/// Chunks whose sentences and phrases are embedded in one call.
const CHUNKS_AT_ONCE: usize = 64;

/// `keywords(text)`: the topics of a chunk and their shares, and what steers its queries.
pub struct Keywords {
    topics: Topics,
    /// The stage's, and that of the topics, which the corpus decides.
    fingerprint: String,
    language: SparseLanguage,
    models: Models,
    progress: Arc<dyn Progress>,
}

impl Keywords {
    pub fn new(settings: &Settings, topics: &Topics) -> Self {
        let own = settings.fingerprints.keywords.as_str();
        Self {
            topics: topics.clone(),
            fingerprint: fingerprint::with_topics(own, topics),
            language: settings.job.sparse.language,
            models: settings.models.clone(),
            progress: settings.progress.clone(),
        }
    }

    fn row_fields() -> Fields {
        let list = |fields: Fields| outcome::required_list(DataType::Struct(fields));
        vec![
            Field::new("topics", list(share_fields()), false),
            Field::new("keywords", list(keyword_fields()), false),
        ]
        .into()
    }
}

impl MapStage for Keywords {
    fn name(&self) -> &'static str {
        KEYWORDS
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![DataType::Utf8]
    }

    fn value(&self) -> DataType {
        outcome::rows_type(Self::row_fields())
    }

    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key {
        let text = text_at(arguments[0].as_string(), i);
        fingerprint::key(&self.fingerprint, [text])
    }

    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let texts = arguments[0].as_string();
        let embedder = self.models.embedder().map_err(fatal)?;
        let about =
            |texts: &[&str]| keywords::about(texts, &self.topics, self.language, &*embedder);
        let texts: Vec<&str> = (0..keys.len())
            .map(|i| text_at(texts, i).unwrap_or_default())
            .collect();
        let mut found: Vec<Result<About, ModelError>> = Vec::with_capacity(texts.len());
        for group in texts.chunks(CHUNKS_AT_ONCE) {
            match about(group) {
                Ok(all) => found.extend(all.into_iter().map(Ok)),
                // One by one, so that the error finds its row.
                Err(_) => found.extend(group.iter().map(|text| Ok(about(&[text])?.remove(0)))),
            }
            self.progress.advance(group.len() as u64);
        }
        let (outcomes, rows): (Vec<Outcome>, Vec<Option<About>>) = found
            .into_iter()
            .map(|about| match about {
                Ok(about) => (outcome(&about), Some(about)),
                Err(error) => (Outcome::failed(error.to_string()), None),
            })
            .unzip();
        Ok((outcomes, list(&rows)?))
    }
}

fn outcome(about: &About) -> Outcome {
    Outcome {
        tokens: about.tokens,
        ..Outcome::default()
    }
}

/// One row for each chunk that did not fail.
fn list(rows: &[Option<About>]) -> Result<ArrayRef, ArrowError> {
    let there = || rows.iter().flatten();
    let shares = || there().flat_map(|about| &about.topics);
    let shares: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(shares().map(|s| s.0))),
        Arc::new(Float32Array::from_iter_values(shares().map(|s| s.1))),
    ];
    let chosen = || there().flat_map(|about| &about.keywords);
    let source = |k: &Keyword| k.source.name();
    let keywords: Vec<ArrayRef> = vec![
        Arc::new(strings(chosen().map(|k| k.text.as_str()))),
        Arc::new(strings(chosen().map(source))),
        Arc::new(UInt32Array::from_iter(chosen().map(|k| k.topic))),
        Arc::new(Float32Array::from_iter_values(chosen().map(|k| k.score))),
    ];
    let shares = StructArray::try_new(share_fields(), shares, None)?;
    let keywords = StructArray::try_new(keyword_fields(), keywords, None)?;
    let lengths = |of: fn(&About) -> usize| there().map(of);
    let columns = vec![
        outcome::list_of(lengths(|about| about.topics.len()), Arc::new(shares))?,
        outcome::list_of(lengths(|about| about.keywords.len()), Arc::new(keywords))?,
    ];
    let values = StructArray::try_new(Keywords::row_fields(), columns, None)?;
    let lengths: Vec<usize> = rows.iter().map(|row| usize::from(row.is_some())).collect();
    outcome::lists(&lengths, values)
}
