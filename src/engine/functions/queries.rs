use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Float32Array, StructArray},
    datatypes::{DataType, Field, Fields},
    error::ArrowError,
};

use super::{MapStage, fatal, outcome, outcome::Outcome, rows_apart, strings, text_at};
use crate::{
    engine::{
        fingerprint::{self, Fingerprints},
        models::Models,
    },
    expand::{self, Query, Scores, Written},
    job::{Job, Progress, spec},
    store::schema::{score_fields, served_fields},
};

/// `queries(title, text, intents)`: the questions a chunk answers, its intents among them, with their scores.
pub struct Queries {
    settings: spec::Expand,
    fingerprint: String,
    models: Models,
    progress: Arc<dyn Progress>,
}

impl Queries {
    pub fn new(
        job: &Job,
        fingerprints: &Fingerprints,
        models: &Models,
        progress: Arc<dyn Progress>,
    ) -> Self {
        Self {
            settings: job.expand.clone(),
            fingerprint: fingerprints.queries.clone(),
            models: models.clone(),
            progress,
        }
    }

    fn row_fields() -> Fields {
        vec![
            Field::new("text", DataType::Utf8, false),
            Field::new("origin", DataType::Utf8, false),
            Field::new("scores", DataType::Struct(score_fields()), false),
        ]
        .into()
    }
}

impl MapStage for Queries {
    fn name(&self) -> &'static str {
        "queries"
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![DataType::Utf8, DataType::Utf8, served_list()]
    }

    fn returns(&self) -> DataType {
        outcome::data_type(outcome::rows_type(Self::row_fields()))
    }

    fn run(&self, arguments: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
        let [titles, texts] = [
            arguments[0].as_string::<i32>(),
            arguments[1].as_string::<i32>(),
        ];
        let generator = self.models.generator().map_err(fatal)?;
        let scorer = self.models.scorer().map_err(fatal)?;
        let intents: Vec<Vec<String>> = (0..texts.len())
            .map(|i| served_at(&arguments[2], i))
            .collect();
        let mut outcomes = Vec::with_capacity(texts.len());
        let mut chunks = Vec::with_capacity(texts.len());
        for (i, intents) in intents.iter().enumerate() {
            let (title, text) = (text_at(titles, i), text_at(texts, i).unwrap_or_default());
            let key = fingerprint::key(
                &self.fingerprint,
                &[title, Some(text), Some(&intents.join("\n"))],
            );
            let seed = fingerprint::seed(&key);
            let intents = intents.iter().map(String::as_str).collect();
            chunks.push(expand::Chunk {
                title,
                text,
                intents,
                seed,
            });
            outcomes.push(Outcome {
                key,
                ..Outcome::default()
            });
        }
        let done = || self.progress.advance(1);
        let written = expand::queries(
            &chunks,
            &self.settings,
            &*generator,
            scorer.as_deref(),
            &done,
        );
        let written = rows_apart(written)?;
        let mut rows = Vec::with_capacity(written.len());
        for (outcome, written) in outcomes.iter_mut().zip(written) {
            let written = written.unwrap_or_else(|error| {
                outcome.error = Some(error.to_string());
                Written::default()
            });
            outcome.tokens = written.tokens;
            outcome.truncated = written.truncated;
            rows.push(written.queries);
        }
        outcome::column(&outcomes, list(&rows)?)
    }
}

/// The chunks dataset's `intents`.
fn served_list() -> DataType {
    DataType::List(Arc::new(Field::new(
        "item",
        DataType::Struct(served_fields()),
        true,
    )))
}

fn served_at(column: &ArrayRef, i: usize) -> Vec<String> {
    let lists = column.as_list::<i32>();
    if lists.is_null(i) {
        return Vec::new();
    }
    let served = lists.value(i);
    let texts = served.as_struct().column(0).as_string::<i32>();
    texts.iter().flatten().map(str::to_owned).collect()
}

fn list(rows: &[Vec<Query>]) -> Result<ArrayRef, ArrowError> {
    let flat = || rows.iter().flatten();
    let score = |get: fn(Scores) -> f32| {
        Arc::new(Float32Array::from_iter(flat().map(|q| q.scores.map(get)))) as ArrayRef
    };
    let scores = StructArray::try_new(
        score_fields(),
        vec![
            score(|s| s.log_p_chunk),
            score(|s| s.log_p_empty),
            score(Scores::gain),
        ],
        None,
    )?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(strings(flat().map(|q| q.text.as_str()))),
        Arc::new(strings(flat().map(|q| q.origin.name()))),
        Arc::new(scores),
    ];
    let values = StructArray::try_new(Queries::row_fields(), columns, None)?;
    let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
    outcome::lists(&lengths, values)
}
