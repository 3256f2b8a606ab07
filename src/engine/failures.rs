//! When a run has failed too often to go on.

use std::{collections::BTreeMap, path::Path};

use super::{EngineError, ingest, stage::Stage};
use crate::{
    job::{Job, MaxFailures},
    store::{Dataset, progress::Tally},
};

/// An error if the job allows fewer failures than there are in the generation.
pub fn check(
    job: &Job,
    totals: &BTreeMap<String, Tally>,
    generation: &Path,
) -> Result<(), EngineError> {
    let most = job.engine.max_failures.as_ref();
    match most.and_then(|most| above(most, totals)) {
        Some((failed, limit)) => Err(EngineError::TooManyFailures {
            failed,
            limit,
            folder: generation.join(Dataset::Quarantine.folder()),
        }),
        None => Ok(()),
    }
}

/// The failures, and how many were allowed, once there are too many: a count limits all stages together, a share
/// each stage by the rows it reads.
fn above(most: &MaxFailures, totals: &BTreeMap<String, Tally>) -> Option<(u64, u64)> {
    let failed = |stage: &str| totals.get(stage).map_or(0, |t| t.failed);
    if let MaxFailures::Count(limit) = most {
        let all = totals.values().map(|t| t.failed).sum();
        return (all > *limit).then_some((all, *limit));
    }
    let mut stages = vec![ingest::STAGE];
    stages.extend(Stage::ALL.map(Stage::name));
    stages.into_iter().find_map(|stage| {
        let limit = most.limit(rows_in(stage, totals));
        (failed(stage) > limit).then_some((failed(stage), limit))
    })
}

/// Rows a stage reads in all. Stages run one after another, so its input is complete when its first row fails.
fn rows_in(stage: &str, totals: &BTreeMap<String, Tally>) -> u64 {
    let rows = |stage: &str| totals.get(stage).map_or(0, |t| t.rows);
    let writer_of = |dataset: Dataset| Stage::ALL.into_iter().find(|s| s.output() == dataset);
    match Stage::ALL.into_iter().find(|s| s.name() == stage) {
        Some(known) => rows(writer_of(known.input()).map_or(ingest::STAGE, Stage::name)),
        None => rows(stage) + totals.get(stage).map_or(0, |t| t.failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(list: &[(&str, u64, u64)]) -> BTreeMap<String, Tally> {
        let tally = |rows, failed| Tally {
            rows,
            failed,
            ..Tally::default()
        };
        let pairs = list.iter();
        pairs
            .map(|(stage, rows, failed)| ((*stage).to_owned(), tally(*rows, *failed)))
            .collect()
    }

    #[test]
    fn a_count_is_for_all_stages_together() {
        let totals = totals(&[("documents", 10, 1), ("chunks", 30, 2)]);
        assert_eq!(above(&MaxFailures::Count(3), &totals), None);
        assert_eq!(above(&MaxFailures::Count(2), &totals), Some((3, 2)));
    }

    #[test]
    fn a_share_is_of_what_each_stage_reads() {
        let tenth = MaxFailures::Share(0.1);
        let fine = totals(&[
            ("documents", 90, 10),
            ("chunks", 300, 9),
            ("queries", 5, 30),
        ]);
        assert_eq!(above(&tenth, &fine), None);
        // The documents stage reads what it wrote and what it refused.
        assert_eq!(
            above(&tenth, &totals(&[("documents", 89, 10)])),
            Some((10, 9))
        );
        let vectors = totals(&[
            ("documents", 90, 0),
            ("queries", 50, 0),
            ("vectors-queries", 10, 6),
        ]);
        assert_eq!(above(&tenth, &vectors), Some((6, 5)));
    }
}
