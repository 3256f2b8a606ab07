//! How fast stages compute: as the last run did, or as is supposed.

use std::collections::BTreeMap;

use super::Planner;
use crate::engine::{EngineError, build::stages, ingest, stage::Stage};

/// What a plan is to suppose.
#[derive(Debug, Clone, Default)]
pub struct Suppose {
    /// Sizes of corpora and clusters that it is scaled to.
    pub documents: Vec<u64>,
    pub executors: Vec<u64>,
    /// Input rows a second by stage, instead of the last run's.
    pub rates: BTreeMap<String, f64>,
}

impl Planner<'_> {
    /// Refuses rates of what the job does not run.
    pub(super) fn check_rates(&self) -> Result<(), EngineError> {
        let mut names = vec![ingest::STAGE];
        names.extend(stages(self.job).into_iter().map(Stage::name));
        names.extend(self.steps((1, 1)).into_iter().map(|(step, _)| step));
        let mut given = self.suppose.rates.keys();
        match given.find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(other) => Err(EngineError::Refused(format!(
                "a rate is given for `{other}`, which is no stage of this job; its stages are {}",
                names.join(", ")
            ))),
        }
    }

    /// For so many of a stage's input rows; None: no rate is known.
    pub(super) fn seconds(&self, stage: &str, rows: u64) -> Option<f64> {
        match rows {
            0 => Some(0.0),
            rows => Some(rows as f64 / self.rate(stage)?),
        }
    }

    fn rate(&self, stage: &str) -> Option<f64> {
        if let Some(given) = self.suppose.rates.get(stage) {
            return Some(*given);
        }
        let run = self.earlier.as_ref()?.run.as_ref()?;
        let rate = run.rates.get(stage)?.rows;
        (rate > 0.0).then_some(rate)
    }
}
