use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, FixedSizeListArray, Float16Array, Float32Array},
    datatypes::DataType,
    error::ArrowError,
};
use half::f16;

use super::{MapStage, Settings, fatal, outcome::Outcome, text_at, titles_and_texts};
use crate::{
    engine::{
        fingerprint::{self, Key},
        models::{Models, title_prefix},
    },
    job::{Progress, spec::VectorType},
    model::{Embed, TextKind},
    store::schema::vector_type,
};

/// Texts embedded in one call: the embedder sorts them by length, so more make fuller batches.
pub const TEXTS_AT_ONCE: usize = 1024;

/// What both functions share.
struct Embedding {
    element: VectorType,
    dim: usize,
    fingerprint: String,
    models: Models,
    progress: Arc<dyn Progress>,
}

/// `embed(title, text)`: the vector of a document's text under its title, which may be null.
pub struct EmbedDocument(Embedding);

/// `embed_query(text)`: the vector of a question.
pub struct EmbedQuery(Embedding);

impl EmbedDocument {
    pub fn new(settings: &Settings) -> Self {
        Self(Embedding::new(settings))
    }
}

impl EmbedQuery {
    pub fn new(settings: &Settings) -> Self {
        Self(Embedding::new(settings))
    }
}

impl Embedding {
    fn new(settings: &Settings) -> Self {
        Self {
            element: settings.job.output.vectors,
            dim: settings.models.dim(),
            fingerprint: settings.fingerprints.vectors.clone(),
            models: settings.models.clone(),
            progress: settings.progress.clone(),
        }
    }

    fn run(
        &self,
        texts: &[Result<String, String>],
        kind: TextKind,
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let embedder = self.models.embedder().map_err(fatal)?;
        let mut values = Vec::with_capacity(texts.len() * self.dim);
        let mut outcomes = Vec::with_capacity(texts.len());
        for group in texts.chunks(TEXTS_AT_ONCE) {
            let first = outcomes.len();
            outcomes.resize(first + group.len(), Outcome::default());
            let group_outcomes = &mut outcomes[first..];
            embed_group(
                group,
                kind,
                &*embedder,
                self.dim,
                group_outcomes,
                &mut values,
            );
            self.progress.advance(group.len() as u64);
        }
        Ok((outcomes, self.vectors(values)?))
    }

    fn vectors(&self, values: Vec<f32>) -> Result<ArrayRef, ArrowError> {
        let DataType::FixedSizeList(item, size) = vector_type(self.element, self.dim) else {
            unreachable!()
        };
        let values: ArrayRef = match self.element {
            VectorType::F32 => Arc::new(Float32Array::from(values)),
            VectorType::F16 => Arc::new(Float16Array::from_iter_values(
                values.into_iter().map(f16::from_f32),
            )),
        };
        Ok(Arc::new(FixedSizeListArray::try_new(
            item, size, values, None,
        )?))
    }
}

/// Embeds a group in one call. Where that fails, row by row, so that the error finds its row; a failed row's vector
/// is zero and is dropped with its error.
fn embed_group(
    texts: &[Result<String, String>],
    kind: TextKind,
    embedder: &dyn Embed,
    dim: usize,
    outcomes: &mut [Outcome],
    values: &mut Vec<f32>,
) {
    let whole: Result<Vec<&str>, &String> = texts
        .iter()
        .map(|t| t.as_ref().map(String::as_str))
        .collect();
    let embedded = whole
        .map_err(Clone::clone)
        .and_then(|texts| embedder.embed(&texts, kind).map_err(|e| e.to_string()));
    match embedded {
        Ok(embedded) => {
            values.extend_from_slice(&embedded.vectors.values);
            let counts = embedded.tokens.into_iter().zip(embedded.truncated);
            for (outcome, (tokens, truncated)) in outcomes.iter_mut().zip(counts) {
                outcome.tokens = tokens;
                outcome.truncated = truncated;
            }
        }
        Err(_) if texts.len() > 1 => {
            for (text, outcome) in texts.chunks(1).zip(outcomes.chunks_mut(1)) {
                embed_group(text, kind, embedder, dim, outcome, values);
            }
        }
        Err(error) => {
            outcomes[0] = Outcome::failed(error);
            values.extend(std::iter::repeat_n(0.0, dim));
        }
    }
}

impl MapStage for EmbedDocument {
    fn name(&self) -> &'static str {
        "embed"
    }

    fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![DataType::Utf8, DataType::Utf8]
    }

    fn value(&self) -> DataType {
        vector_type(self.0.element, self.0.dim)
    }

    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key {
        let [titles, texts] = titles_and_texts(arguments);
        let parts = [Some("document"), text_at(titles, i), text_at(texts, i)];
        fingerprint::key(&self.0.fingerprint, parts)
    }

    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let [titles, texts] = titles_and_texts(arguments);
        let embedder = self.0.models.embedder().map_err(fatal)?;
        // A document's title is the same for all of its chunks.
        let mut prefixes: HashMap<&str, Result<String, String>> = HashMap::new();
        let mut whole = Vec::with_capacity(keys.len());
        for i in 0..keys.len() {
            let text = text_at(texts, i).unwrap_or_default();
            let title = text_at(titles, i).filter(|t| !t.trim().is_empty());
            whole.push(match title {
                Some(title) => prefixes
                    .entry(title)
                    .or_insert_with(|| title_prefix(title, &*embedder).map_err(|e| e.to_string()))
                    .clone()
                    .map(|prefix| prefix + text),
                None => Ok(text.to_owned()),
            });
        }
        self.0.run(&whole, TextKind::Document)
    }
}

impl MapStage for EmbedQuery {
    fn name(&self) -> &'static str {
        "embed_query"
    }

    fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![DataType::Utf8]
    }

    fn value(&self) -> DataType {
        vector_type(self.0.element, self.0.dim)
    }

    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key {
        let text = text_at(arguments[0].as_string(), i);
        fingerprint::key(&self.0.fingerprint, [Some("query"), text])
    }

    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let texts = arguments[0].as_string::<i32>();
        let texts: Vec<_> = (0..keys.len())
            .map(|i| Ok(text_at(texts, i).unwrap_or_default().to_owned()))
            .collect();
        self.0.run(&texts, TextKind::Query)
    }
}
