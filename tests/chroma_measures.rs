//! `eval chunks` counts as Chroma's own code does: recall, precision and IoU of given windows, question by question.

mod common;

use std::{collections::HashMap, fs, path::PathBuf};

use intendex::{
    eval::chunks::span::{Span, coverage},
    search::columns,
};

#[test]
fn measures_equal_chromas() {
    let folder = std::env::var_os("INTENDEX_EVAL_DATA").map(PathBuf::from);
    let golden = folder
        .iter()
        .find_map(|data| fs::read_to_string(data.join("../golden/chroma_measures_1000.json")).ok());
    let (Some(folder), Some(golden)) = (folder, golden) else {
        return common::skipped("Chroma's measures: INTENDEX_EVAL_DATA has no golden beside it");
    };
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let set = folder.join("chroma_chunking");
    let corpus = columns::read(&set.join("corpus.parquet"), "doc_id", "text", None).unwrap();
    let lengths: Vec<usize> = corpus.second.iter().map(|t| t.chars().count()).collect();
    let rows = corpus.first.iter().enumerate();
    let documents: HashMap<&str, usize> = rows.map(|(i, id)| (id.as_str(), i)).collect();

    let read = |end: &str| {
        let path = set.join("answers.parquet");
        columns::read(&path, "query_id", "doc_id", Some(end)).unwrap()
    };
    let (starts, ends) = (read("start"), read("end"));
    let mut answers: HashMap<&str, Vec<Span>> = HashMap::new();
    for (i, question) in starts.first.iter().enumerate() {
        answers.entry(question).or_default().push(Span {
            document: documents[starts.second[i].as_str()],
            start: starts.integers[i] as usize,
            end: ends.integers[i] as usize,
        });
    }

    let retrieved = golden["retrieved"].as_object().unwrap();
    for (question, windows) in retrieved {
        let windows = windows.as_array().unwrap().iter().map(|window| {
            let document = documents[window[0].as_str().unwrap()];
            let start = window[1].as_u64().unwrap() as usize;
            let end = (start + 1000).min(lengths[document]);
            Span {
                document,
                start,
                end,
            }
        });
        let found = coverage(&windows.collect::<Vec<_>>(), &answers[question.as_str()]);
        let theirs = golden["per_question"][question].as_array().unwrap();
        for (ours, theirs) in [found.recall, found.precision, found.iou]
            .iter()
            .zip(theirs)
        {
            let theirs = theirs.as_f64().unwrap();
            assert!((ours - theirs).abs() < 1e-6, "{question}: {ours} {theirs}");
        }
    }
    assert_eq!(retrieved.len(), 472);
}
