use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Float32Array},
    datatypes::DataType,
    error::ArrowError,
};

use super::{MapStage, outcome, outcome::Outcome};
use crate::{
    engine::{
        fingerprint::{self, Fingerprints},
        models::Models,
    },
    expand,
    job::{Job, spec},
};

/// `score(query, text)`: log P(query | text) − log P(query | empty), per token.
pub struct ScoreQuery {
    settings: spec::Expand,
    fingerprint: String,
    models: Models,
}

impl ScoreQuery {
    pub fn new(job: &Job, fingerprints: &Fingerprints, models: &Models) -> Self {
        Self {
            settings: job.expand.clone(),
            fingerprint: fingerprints.queries.clone(),
            models: models.clone(),
        }
    }
}

impl MapStage for ScoreQuery {
    fn name(&self) -> &'static str {
        "score"
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![DataType::Utf8, DataType::Utf8]
    }

    fn returns(&self) -> DataType {
        outcome::data_type(DataType::Float32)
    }

    fn run(&self, arguments: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
        let [queries, texts] = [
            arguments[0].as_string::<i32>(),
            arguments[1].as_string::<i32>(),
        ];
        let scorer = self
            .models
            .scorer()
            .map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
        let scorer = scorer.ok_or_else(|| {
            ArrowError::ComputeError("score: this generator cannot score; use a GGUF file".into())
        })?;
        let pairs: Vec<(&str, &str)> = queries
            .iter()
            .zip(texts.iter())
            .map(|(q, t)| (q.unwrap_or_default(), t.unwrap_or_default()))
            .collect();
        let mut outcomes = Vec::with_capacity(pairs.len());
        let mut values = Vec::with_capacity(pairs.len());
        for ((query, text), gain) in
            pairs
                .iter()
                .zip(expand::gain(&pairs, &self.settings, &*scorer))
        {
            let key = fingerprint::key(&self.fingerprint, &[Some(query), Some(text)]);
            let error = gain.as_ref().err().map(ToString::to_string);
            outcomes.push(Outcome {
                key,
                error,
                ..Outcome::default()
            });
            values.push(gain.ok());
        }
        outcome::column(&outcomes, Arc::new(Float32Array::from(values)))
    }
}
