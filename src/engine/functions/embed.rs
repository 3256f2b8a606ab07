use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float16Array, Float32Array},
    datatypes::DataType,
    error::ArrowError,
};
use half::f16;

use super::{MapStage, outcome, outcome::Outcome, text_at};
use crate::{
    engine::{
        fingerprint::{self, Fingerprints},
        models::{Models, with_title},
    },
    job::{Job, Progress, spec::VectorType},
    model::{Embed, TextKind},
    store::schema::vector_type,
};

/// Texts embedded in one call: the embedder sorts them by length, so more make fuller batches.
const TEXTS_AT_ONCE: usize = 512;

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
    pub fn new(
        job: &Job,
        fingerprints: &Fingerprints,
        models: &Models,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self(Embedding::new(job, fingerprints, models, progress))
    }
}

impl EmbedQuery {
    pub fn new(
        job: &Job,
        fingerprints: &Fingerprints,
        models: &Models,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self(Embedding::new(job, fingerprints, models, progress))
    }
}

impl Embedding {
    fn new(
        job: &Job,
        fingerprints: &Fingerprints,
        models: &Models,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            element: job.output.vectors,
            dim: models.dim(),
            fingerprint: fingerprints.vectors.clone(),
            models: models.clone(),
            progress,
        }
    }

    fn returns(&self) -> DataType {
        outcome::data_type(vector_type(self.element, self.dim))
    }

    fn run(&self, texts: &[String], kind: TextKind) -> Result<ArrayRef, ArrowError> {
        let embedder = self
            .models
            .embedder()
            .map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
        let side = match kind {
            TextKind::Document => "document",
            TextKind::Query => "query",
        };
        let mut values = Vec::with_capacity(texts.len() * self.dim);
        let mut outcomes = Vec::with_capacity(texts.len());
        for group in texts.chunks(TEXTS_AT_ONCE) {
            let keys = group
                .iter()
                .map(|t| fingerprint::key(&self.fingerprint, &[Some(side), Some(t)]));
            outcomes.extend(keys.map(|key| Outcome {
                key,
                ..Outcome::default()
            }));
            let outcomes = &mut outcomes[values.len() / self.dim..];
            embed_group(group, kind, &*embedder, self.dim, outcomes, &mut values);
            self.progress.advance(group.len() as u64);
        }
        outcome::column(&outcomes, self.vectors(values)?)
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
    texts: &[String],
    kind: TextKind,
    embedder: &dyn Embed,
    dim: usize,
    outcomes: &mut [Outcome],
    values: &mut Vec<f32>,
) {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    match embedder.embed(&texts, kind) {
        Ok(embedded) => {
            values.extend_from_slice(&embedded.vectors.values);
            for (outcome, truncated) in outcomes.iter_mut().zip(embedded.truncated) {
                outcome.truncated = truncated;
            }
        }
        Err(_) if texts.len() > 1 => {
            for (i, text) in texts.iter().enumerate() {
                embed_group(
                    &[(*text).to_owned()],
                    kind,
                    embedder,
                    dim,
                    &mut outcomes[i..=i],
                    values,
                );
            }
        }
        Err(error) => {
            outcomes[0].error = Some(error.to_string());
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

    fn returns(&self) -> DataType {
        self.0.returns()
    }

    fn run(&self, arguments: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
        let [titles, texts] = [
            arguments[0].as_string::<i32>(),
            arguments[1].as_string::<i32>(),
        ];
        let embedder = self
            .0
            .models
            .embedder()
            .map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
        let whole = (0..texts.len())
            .map(|i| {
                with_title(
                    text_at(titles, i),
                    text_at(texts, i).unwrap_or_default(),
                    &*embedder,
                )
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
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

    fn returns(&self) -> DataType {
        self.0.returns()
    }

    fn run(&self, arguments: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
        let texts = arguments[0].as_string::<i32>();
        let texts: Vec<String> = texts
            .iter()
            .map(|t| t.unwrap_or_default().to_owned())
            .collect();
        self.0.run(&texts, TextKind::Query)
    }
}
