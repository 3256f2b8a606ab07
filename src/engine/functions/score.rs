use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Float32Array},
    datatypes::DataType,
    error::ArrowError,
};

use super::{MapStage, Settings, fatal, outcome::Outcome, text_at};
use crate::{
    engine::{
        fingerprint::{self, Key},
        models::Models,
    },
    expand,
    job::spec,
};

/// `score(query, text)`: log P(query | text) − log P(query | empty), per token.
pub struct ScoreQuery {
    settings: spec::Expand,
    fingerprint: String,
    models: Models,
}

impl ScoreQuery {
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.job.expand.clone(),
            fingerprint: settings.fingerprints.queries.clone(),
            models: settings.models.clone(),
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

    fn value(&self) -> DataType {
        DataType::Float32
    }

    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key {
        let parts = [0, 1].map(|a| text_at(arguments[a].as_string(), i));
        fingerprint::key(&self.fingerprint, parts)
    }

    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let scorer = self.models.scorer().map_err(fatal)?.ok_or_else(|| {
            ArrowError::ComputeError("score: this generator cannot score; use a GGUF file".into())
        })?;
        let text = |a: usize, i| text_at(arguments[a].as_string(), i).unwrap_or_default();
        let pairs: Vec<(&str, &str)> = (0..keys.len()).map(|i| (text(0, i), text(1, i))).collect();
        let (outcomes, values): (Vec<Outcome>, Vec<Option<f32>>) =
            expand::gain(&pairs, &self.settings, &*scorer)
                .into_iter()
                .map(|gain| match gain {
                    Ok(gain) => (Outcome::default(), Some(gain)),
                    Err(error) => (Outcome::failed(error.to_string()), None),
                })
                .unzip();
        Ok((outcomes, Arc::new(Float32Array::from(values))))
    }
}
