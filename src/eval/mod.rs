//! Evaluation: of runs, with measures as trec_eval computes them and a paired significance test; of chunkers; of generated
//! queries.

pub mod chunks;
pub mod expansion;
pub mod files;
pub mod half;
pub mod measures;
pub mod retrieval;
pub mod rows;
pub mod significance;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

pub use files::FileError;
use files::{read_qrels, read_run};
pub use measures::Measures;
use measures::{Qrels, evaluate};
use significance::randomisation_test;

/// A run measured: the means over all judged queries, each query, and how it compares to another run.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    pub mean: Measures,
    /// Judged queries that the run has no results for; they count as 0.
    pub missing: usize,
    pub queries: BTreeMap<String, Measures>,
    pub against: Option<Comparison>,
}

/// Another run on the same judgements.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    pub mean: Measures,
    /// Two-sided p of the paired randomisation test, per measure.
    pub p: Measures,
}

/// Measures the run file `run` by the judgements in `qrels` (Parquet), and compares it to a second run.
pub fn evaluate_run(
    run: &Path,
    qrels: &Path,
    against: Option<&Path>,
) -> Result<RunReport, FileError> {
    let qrels = read_qrels(qrels)?;
    let results = read_run(run)?;
    let queries = evaluate(&qrels, &results);
    let against = match against {
        Some(path) => Some(compare(&qrels, &queries, path)?),
        None => None,
    };
    Ok(RunReport {
        mean: Measures::mean(queries.values()),
        missing: qrels
            .keys()
            .filter(|query| !results.contains_key(*query))
            .count(),
        queries,
        against,
    })
}

fn compare(
    qrels: &Qrels,
    queries: &BTreeMap<String, Measures>,
    path: &Path,
) -> Result<Comparison, FileError> {
    let others = evaluate(qrels, &read_run(path)?);
    let p_of = |measure: fn(&Measures) -> f64| {
        let first: Vec<f64> = queries.values().map(measure).collect();
        let second: Vec<f64> = others.values().map(measure).collect();
        randomisation_test(&first, &second)
    };
    let p = Measures {
        ndcg_10: p_of(|m| m.ndcg_10),
        ap: p_of(|m| m.ap),
        recall_100: p_of(|m| m.recall_100),
        rr_10: p_of(|m| m.rr_10),
    };
    Ok(Comparison {
        mean: Measures::mean(others.values()),
        p,
    })
}
