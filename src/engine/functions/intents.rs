use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, StructArray, UInt64Array},
    datatypes::{DataType, Field, Fields},
    error::ArrowError,
};

use super::{
    MapStage, Settings, fatal, list_of_texts, listed_key, outcome, outcome::Outcome, rows_apart,
    strings, text_at, texts_at, titles_and_texts,
};
use crate::{
    engine::{
        fingerprint::{self, Key},
        models::Models,
    },
    intent::{self, Document, Intent, Predicted},
    job::{Progress, spec},
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
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.job.intents.clone(),
            given_only: settings.job.corpus.intents.is_some(),
            fingerprint: settings.fingerprints.intents.clone(),
            models: settings.models.clone(),
            progress: settings.progress.clone(),
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

    fn value(&self) -> DataType {
        outcome::rows_type(Self::row_fields())
    }

    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key {
        let given = texts_at(&arguments[2], i);
        // A document whose list is empty answers no question; one without a list is asked.
        let kind = if arguments[2].is_valid(i) {
            "given"
        } else {
            "predicted"
        };
        listed_key(&format!("{}{kind}", self.fingerprint), arguments, i, &given)
    }

    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let [titles, texts] = titles_and_texts(arguments);
        let given = &arguments[2];
        let generate = self.settings.enabled && !self.given_only;
        let wanted = |i: usize| {
            let long = || {
                let most = self.settings.max_document_chars;
                texts.value(i).chars().nth(most).is_some()
            };
            generate && given.is_null(i) && !long()
        };
        let asked: Vec<usize> = (0..keys.len()).filter(|i| wanted(*i)).collect();
        self.progress.advance((keys.len() - asked.len()) as u64);
        let document = |&i: &usize| Document {
            title: text_at(titles, i),
            text: texts.value(i),
            seed: fingerprint::seed(&keys[i]),
        };
        let predicted = self.predict(&asked.iter().map(document).collect::<Vec<_>>())?;
        let mut outcomes = vec![Outcome::default(); keys.len()];
        let mut rows: Vec<Vec<Intent>> = (0..keys.len())
            .map(|i| given_intents(given, texts.value(i), i))
            .collect();
        for i in (0..keys.len()).filter(|i| given.is_null(*i)) {
            outcomes[i].skipped = true;
        }
        for (i, predicted) in asked.into_iter().zip(predicted) {
            match predicted {
                Ok(predicted) => {
                    outcomes[i] = outcome(&predicted);
                    rows[i] = predicted.intents;
                }
                Err(error) => outcomes[i] = Outcome::failed(error.to_string()),
            }
        }
        Ok((outcomes, list(&rows)?))
    }
}

fn outcome(predicted: &Predicted) -> Outcome {
    Outcome {
        tokens: predicted.tokens,
        truncated: predicted.truncated,
        ..Outcome::default()
    }
}

/// The questions the corpus brings for a document; none where it brings none.
fn given_intents(given: &ArrayRef, text: &str, i: usize) -> Vec<Intent> {
    let whole = 0..text.chars().count();
    texts_at(given, i)
        .into_iter()
        .map(|text| Intent {
            text,
            section: whole.clone(),
        })
        .collect()
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
