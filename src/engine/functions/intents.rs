use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, StructArray, UInt64Array},
    datatypes::{DataType, Field, Fields},
    error::ArrowError,
};

use super::{
    MapStage, fatal, list_of_texts, outcome, outcome::Outcome, rows_apart, strings, text_at,
    texts_at,
};
use crate::{
    engine::{
        fingerprint::{self, Fingerprints},
        models::Models,
    },
    intent::{self, Document, Intent, Predicted},
    job::{Job, Progress, spec},
    model::ModelError,
    store::schema::span_fields,
};

/// `intents(title, text, given)`: the questions a document answers. Given ones are taken as they are.
pub struct Intents {
    settings: spec::Intents,
    /// The corpus brings its own; a document without any has none.
    given_only: bool,
    fingerprint: String,
    models: Models,
    progress: Arc<dyn Progress>,
}

impl Intents {
    pub fn new(
        job: &Job,
        fingerprints: &Fingerprints,
        models: &Models,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            settings: job.intents.clone(),
            given_only: job.corpus.intents.is_some(),
            fingerprint: fingerprints.intents.clone(),
            models: models.clone(),
            progress,
        }
    }

    fn row_fields() -> Fields {
        vec![
            Field::new("text", DataType::Utf8, false),
            Field::new("section", DataType::Struct(span_fields()), false),
        ]
        .into()
    }

    /// Predicts for the documents that have none given and are not too long, all in one call. A model that cannot be
    /// loaded or reached ends the stage; it is no document's fault.
    fn predict(
        &self,
        wanted: &[Document],
    ) -> Result<Vec<Result<Predicted, ModelError>>, ArrowError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let (generator, embedder) = (self.models.generator(), self.models.embedder());
        let (generator, embedder) = (generator.map_err(fatal)?, embedder.map_err(fatal)?);
        let done = || self.progress.advance(1);
        rows_apart(intent::predict(
            wanted,
            &self.settings,
            &*generator,
            &*embedder,
            &done,
        ))
    }
}

impl MapStage for Intents {
    fn name(&self) -> &'static str {
        "intents"
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![DataType::Utf8, DataType::Utf8, list_of_texts()]
    }

    fn returns(&self) -> DataType {
        outcome::data_type(outcome::rows_type(Self::row_fields()))
    }

    fn run(&self, arguments: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
        let [titles, texts] = [
            arguments[0].as_string::<i32>(),
            arguments[1].as_string::<i32>(),
        ];
        let given = &arguments[2];
        let mut outcomes = Vec::with_capacity(texts.len());
        let mut wanted = Vec::new();
        let generate = self.settings.enabled && !self.given_only;
        for i in 0..texts.len() {
            let (title, text) = (text_at(titles, i), text_at(texts, i).unwrap_or_default());
            let row_given = texts_at(given, i).join("\n");
            let key = fingerprint::key(
                &self.fingerprint,
                &[title, Some(text), given.is_valid(i).then_some(&row_given)],
            );
            let long = text.chars().nth(self.settings.max_document_chars).is_some();
            let skipped = given.is_null(i) && (!generate || long);
            if given.is_null(i) && !skipped {
                wanted.push(Document {
                    title,
                    text,
                    seed: fingerprint::seed(&key),
                });
            } else {
                self.progress.advance(1);
            }
            outcomes.push(Outcome {
                key,
                skipped,
                ..Outcome::default()
            });
        }
        let mut predicted = self.predict(&wanted)?.into_iter();
        let mut rows: Vec<Vec<Intent>> = Vec::with_capacity(texts.len());
        for (i, outcome) in outcomes.iter_mut().enumerate() {
            rows.push(if given.is_valid(i) {
                let whole = 0..texts.value(i).chars().count();
                texts_at(given, i)
                    .into_iter()
                    .map(|text| Intent {
                        text,
                        section: whole.clone(),
                    })
                    .collect()
            } else if outcome.skipped {
                Vec::new()
            } else {
                match predicted.next() {
                    Some(Ok(predicted)) => {
                        outcome.tokens = predicted.tokens;
                        outcome.truncated = predicted.truncated;
                        predicted.intents
                    }
                    Some(Err(error)) => {
                        outcome.error = Some(error.to_string());
                        Vec::new()
                    }
                    None => Vec::new(),
                }
            });
        }
        outcome::column(&outcomes, list(&rows)?)
    }
}

fn list(rows: &[Vec<Intent>]) -> Result<ArrayRef, ArrowError> {
    let flat = || rows.iter().flatten();
    let section = StructArray::try_new(
        span_fields(),
        vec![
            Arc::new(UInt64Array::from_iter_values(
                flat().map(|i| i.section.start as u64),
            )),
            Arc::new(UInt64Array::from_iter_values(
                flat().map(|i| i.section.end as u64),
            )),
        ],
        None,
    )?;
    let text = strings(flat().map(|i| i.text.as_str()));
    let values = StructArray::try_new(
        Intents::row_fields(),
        vec![Arc::new(text), Arc::new(section)],
        None,
    )?;
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    outcome::lists(&lengths, values)
}
