//! `eval` against what ir-measures (trec_eval's own code) says of the same run; see tests/data/eval/make_golden.py.

use std::path::Path;

use intendex::eval::{Measures, RunReport, evaluate_run};

fn report() -> (RunReport, serde_json::Value) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/eval");
    let golden = std::fs::read_to_string(data.join("golden.json")).unwrap();
    let run = data.join("run.trec");
    let report = evaluate_run(&run, &data.join("qrels.parquet"), Some(&run)).unwrap();
    (report, serde_json::from_str(&golden).unwrap())
}

fn assert_close(found: f64, golden: &serde_json::Value, what: &str) {
    let golden = golden
        .as_f64()
        .unwrap_or_else(|| panic!("no golden value for {what}"));
    assert!(
        (found - golden).abs() < 1e-9,
        "{what}: {found}, golden {golden}"
    );
}

fn named(measures: &Measures) -> [(&'static str, f64); 4] {
    let [ndcg, ap, recall, rr] = measures.values();
    [
        ("ndcg@10", ndcg),
        ("ap", ap),
        ("r@100", recall),
        ("rr@10", rr),
    ]
}

#[test]
fn means_equal_trec_eval() {
    let (report, golden) = report();
    for (name, value) in named(&report.mean) {
        assert_close(value, &golden["mean"][name], name);
    }
}

#[test]
fn every_query_equals_trec_eval() {
    let (report, golden) = report();
    assert_eq!(
        report.queries.len(),
        golden["queries"]["ap"].as_object().unwrap().len()
    );
    for (query, measures) in &report.queries {
        for (name, value) in named(measures) {
            assert_close(
                value,
                &golden["queries"][name][query],
                &format!("{name} of {query}"),
            );
        }
    }
}

#[test]
fn judged_queries_without_results_are_counted() {
    let (report, golden) = report();
    assert_eq!(Some(report.missing as u64), golden["missing"].as_u64());
}

#[test]
fn a_run_does_not_differ_from_itself() {
    let (report, _) = report();
    let against = report.against.unwrap();
    assert_eq!(against.mean, report.mean);
    assert_eq!(against.p.values(), [1.0; 4]);
}
