use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, StructArray},
    datatypes::DataType,
    error::ArrowError,
};

use super::{MapStage, Settings, fatal, outcome, outcome::Outcome, rows_apart, text_at};
use crate::{
    engine::{
        fingerprint::{self, Key},
        models::Models,
    },
    expand::scores::{Pair, Scorer, Scores},
    job::{Progress, spec},
    store::schema::score_fields,
};

/// Of a server that does not tell the probability of a given text.
pub const CANNOT_SCORE: &str = "this server cannot score queries; set `expand.keep = 1` and leave the generator's scores out of \
    `expand.scores`, choose `expand.filter = \"cosine\"` or `\"round-trip\"`, or name a model file";

/// `score(title, text, query)`: how well a text answers a query, as models see it.
pub struct Score {
    settings: spec::Expand,
    fingerprint: String,
    models: Models,
    progress: Arc<dyn Progress>,
}

impl Score {
    pub fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.job.expand.clone(),
            fingerprint: settings.fingerprints.scores.clone(),
            models: settings.models.clone(),
            progress: settings.progress.clone(),
        }
    }
}

impl MapStage for Score {
    fn name(&self) -> &'static str {
        "score"
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn arguments(&self) -> Vec<DataType> {
        vec![DataType::Utf8; 3]
    }

    fn value(&self) -> DataType {
        outcome::rows_type(score_fields())
    }

    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key {
        let parts = arguments.iter().map(|a| text_at(a.as_string(), i));
        fingerprint::key(&self.fingerprint, parts)
    }

    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError> {
        let generator = self.models.generator().map_err(fatal)?;
        let scorer = self.models.scorer().map_err(fatal)?;
        let cross_encoder = self.models.cross_encoder().map_err(fatal)?;
        let by_generator = |scored: &spec::Scored| *scored != spec::Scored::CrossEncoder;
        if scorer.is_none() && self.settings.scores().iter().any(by_generator) {
            return Err(ArrowError::ComputeError(CANNOT_SCORE.into()));
        }
        let text = |a: usize, i: usize| text_at(arguments[a].as_string(), i);
        let pair = |i: usize| Pair {
            title: text(0, i),
            text: text(1, i).unwrap_or_default(),
            query: text(2, i).unwrap_or_default(),
        };
        let pairs: Vec<Pair> = (0..keys.len()).map(pair).collect();
        let scorer = Scorer {
            settings: &self.settings,
            generator: &*generator,
            scorer: scorer.as_deref(),
            cross_encoder: cross_encoder.as_deref(),
        };
        let done = |rows: usize| self.progress.advance(rows as u64);
        let scored = rows_apart(scorer.score(&pairs, &done))?;
        let (outcomes, rows): (Vec<Outcome>, Vec<Option<Scores>>) = scored
            .into_iter()
            .map(|scores| match scores {
                Ok(scores) => (Outcome::default(), Some(scores)),
                Err(error) => (Outcome::failed(error.to_string()), None),
            })
            .unzip();
        Ok((outcomes, list(&rows)?))
    }
}

/// One row for each query that did not fail.
fn list(rows: &[Option<Scores>]) -> Result<ArrayRef, ArrowError> {
    let score = |get: fn(Scores) -> Option<f32>| {
        Arc::new(Float32Array::from_iter(
            rows.iter().flatten().map(|s| get(*s)),
        )) as ArrayRef
    };
    let columns = vec![
        score(|s| s.log_p_chunk),
        score(|s| s.log_p_empty),
        score(Scores::gain),
        score(|s| s.relevance),
        score(|s| s.cross_encoder),
    ];
    let values = StructArray::try_new(score_fields(), columns, None)?;
    let lengths: Vec<usize> = rows.iter().map(|row| usize::from(row.is_some())).collect();
    outcome::lists(&lengths, values)
}
