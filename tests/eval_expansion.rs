//! `intendex eval expansion` on a generation whose cosines are known.

mod common;
#[allow(dead_code)]
#[path = "support/generation.rs"]
mod generation;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int64Array, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Float64Type};
use common::Place;
use intendex::engine::models::Models;
use intendex::job::spec;
use intendex::model::TextKind;

const QUESTIONS: [&str; 2] = ["how does water work", "what is the law"];

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn integers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn lists(vectors: &[&[f32]]) -> ArrayRef {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(vectors.concat()));
    Arc::new(FixedSizeListArray::new(
        item,
        vectors[0].len() as i32,
        values,
        None,
    ))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `x · a + y · b + z · c`
fn mix(parts: [(f32, &[f32]); 3]) -> Vec<f32> {
    let sum = |i: usize| parts.iter().map(|(factor, of)| factor * of[i]).sum();
    (0..parts[0].1.len()).map(sum).collect()
}

/// The unit vector with these cosines to two unit vectors.
fn with_cosines(questions: [&[f32]; 2], [first, second]: [f32; 2]) -> Vec<f32> {
    let [q, r] = questions;
    let g = dot(q, r);
    let (x, y) = (
        (first - g * second) / (1.0 - g * g),
        (second - g * first) / (1.0 - g * g),
    );
    // The rest of the length is across both.
    let mut axis = vec![0.0; q.len()];
    axis[0] = 1.0;
    let of_axis = (
        (q[0] - g * r[0]) / (1.0 - g * g),
        (r[0] - g * q[0]) / (1.0 - g * g),
    );
    let across = mix([(1.0, &axis), (-of_axis.0, q), (-of_axis.1, r)]);
    let rest = (1.0 - (x * first + y * second)).sqrt() / dot(&across, &across).sqrt();
    mix([(x, q), (y, r), (rest, &across)])
}

/// Two chunks, each the answer to one question. The first has the other's words and vector closer to its question, but the
/// very question as a query, and a word of it as vocabulary.
fn write(place: &Place) {
    let model = toml::Value::from(place.path("bert").to_str().unwrap());
    let models: spec::Models = toml::from_str(&format!("embedder.model = {model}")).unwrap();
    let embedder = Models::find(&models, false).unwrap().embedder().unwrap();
    let asked = embedder.embed(&QUESTIONS, TextKind::Query).unwrap().vectors;
    let questions = [asked.row(0), asked.row(1)];
    let texts = [[0.30, 0.20], [0.31, 0.35]].map(|cosines| with_cosines(questions, cosines));

    let generation = place.path("out/generations/1");
    let table = |dataset: &str, columns: Vec<(&str, ArrayRef)>| {
        generation::parquet(&generation, dataset, columns)
    };
    fs::create_dir_all(&generation).unwrap();
    fs::write(place.path("out/CURRENT"), "1\n").unwrap();
    let chunks = vec![
        ("chunk_id", strings(&["tides#0", "towns#0"])),
        ("doc_id", strings(&["tides", "towns"])),
        ("start", integers(&[0, 0])),
        ("end", integers(&[9, 18])),
        ("text", strings(&["The tide.", "A law of the city."])),
    ];
    table("chunks", chunks);
    let gain: ArrayRef = Arc::new(Float32Array::from(vec![Some(0.5), None]));
    let scores: ArrayRef = Arc::new(StructArray::try_from(vec![("gain", gain)]).unwrap());
    let ids = strings(&["tides#0?0", "tides#0?1"]);
    let queries = vec![
        ("query_id", ids.clone()),
        ("chunk_id", strings(&["tides#0", "tides#0"])),
        ("text", strings(&[QUESTIONS[0], "water"])),
        ("origin", strings(&["sample", "vocabulary"])),
        ("scores", scores),
    ];
    table("queries", queries);
    let rows = lists(&[&texts[0], &texts[1]]);
    let ids_of_chunks = strings(&["tides#0", "towns#0"]);
    table(
        "vectors/text",
        vec![("chunk_id", ids_of_chunks), ("vector", rows)],
    );
    // A vector of the vocabulary must change nothing.
    let rows = lists(&[questions[0], questions[0]]);
    table("vectors/queries", vec![("query_id", ids), ("vector", rows)]);
}

fn write_set(place: &Place) {
    let file = |name: &str, columns: Vec<(&str, ArrayRef)>| {
        generation::parquet(&place.path("written"), name, columns);
        let written = place.path("written").join(name).join("part-00000.parquet");
        fs::create_dir_all(place.path("set")).unwrap();
        fs::rename(written, place.path("set").join(format!("{name}.parquet"))).unwrap();
    };
    let ids = || ("query_id", strings(&["q", "r"]));
    let documents = || ("doc_id", strings(&["tides", "towns"]));
    file("queries", vec![ids(), ("text", strings(&QUESTIONS))]);
    let spans = [("start", integers(&[4, 2])), ("end", integers(&[8, 5]))];
    file(
        "answers",
        [vec![ids(), documents()], spans.to_vec()].concat(),
    );
    file(
        "qrels",
        vec![ids(), documents(), ("relevance", integers(&[1, 1]))],
    );
}

fn said(place: &Place, arguments: &[&str]) -> String {
    let output = place.run(&[&["eval", "expansion"], arguments].concat());
    let trouble = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{trouble}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of a row after its name.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let is_it = |line: &&str| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with("  "))
    };
    let line = table.lines().find(is_it);
    let line = line.unwrap_or_else(|| panic!("no row {name} in\n{table}"));
    line[name.len()..].split_whitespace().collect()
}

/// Mean, interval, change and p: of neither question, of one, of both.
const ONE: &str = "0.5000 [0.000, 1.000]";
const BOTH: &str = "1.0000 [1.000, 1.000]";
const SAME: &str = " +0.0% 1.0000 ";
const TWICE: &str = " +100.0% 1.0000 ";

#[test]
fn variants_are_as_good_as_they_should_be() {
    let place = Place::new(&[]);
    write(&place);
    write_set(&place);
    fs::create_dir(place.path("values")).unwrap();
    let table = said(
        &place,
        &[
            "out",
            "set",
            "--model",
            "bert",
            "--out",
            "values/part.parquet",
        ],
    );
    assert!(
        table.starts_with("set: 2 chunks, 2 questions, half: all, R@1\n\nsets "),
        "{table}"
    );
    let is =
        |name: &str, expected: String| assert_eq!(row(&table, name).join(" "), expected.trim());
    is("none", format!("0.00 {ONE} – – {ONE} – – {ONE} – –"));
    is(
        "sample",
        format!("0.50 {BOTH}{TWICE}{BOTH}{TWICE}{BOTH}{TWICE}"),
    );
    // The first question's own words do not outweigh, in the sum, how much closer the other chunk is.
    is(
        "vocabulary",
        format!("0.50 {BOTH}{TWICE}{ONE}{SAME}{ONE}{SAME}"),
    );
    is(
        "sample+vocabulary",
        format!("1.00 {BOTH}{TWICE}{BOTH}{TWICE}{BOTH}{TWICE}"),
    );
    // Of one score 80% are one, and 40% none; what has no score stays.
    is(
        "gain, 80% kept",
        format!("1.00 {BOTH}{TWICE}{BOTH}{TWICE}{BOTH}{TWICE}"),
    );
    is(
        "gain, 40% kept",
        format!("0.50 {BOTH}{TWICE}{ONE}{SAME}{ONE}{SAME}"),
    );
    is("appended", format!("1.00 {BOTH}{TWICE}"));
    is("(1-α)·text + α·max, α 0.1", format!("1.00 {BOTH}{TWICE}"));
    is(
        "text + α·max(0, max-text), α 0.1",
        format!("1.00 {BOTH}{TWICE}"),
    );
    // Compared to ranks without queries.
    is("reciprocal ranks, none", format!("0.00 {ONE} – –"));
    is("reciprocal ranks", format!("1.00 {BOTH}{TWICE}"));

    let values = common::read(&place.path("."), "values");
    assert_eq!(values.num_columns(), 4);
    let names = ["variant", "retrieval", "query_id"].map(|name| common::texts(&values, name));
    let numbers = values["value"].as_primitive::<Float64Type>().values();
    let of = |variant: &str, retrieval: &str| -> Vec<(&str, f64)> {
        let is_it = |i: &usize| names[0][*i] == variant && names[1][*i] == retrieval;
        let rows = (0..values.num_rows()).filter(is_it);
        rows.map(|i| (names[2][i].as_str(), numbers[i])).collect()
    };
    assert_eq!(of("none", "dense"), [("q", 0.0), ("r", 1.0)]);
    assert_eq!(of("sample", "hybrid"), [("q", 1.0), ("r", 1.0)]);
    assert!(of("appended", "dense").is_empty());
}

#[test]
fn documents_are_measured_by_ndcg() {
    let place = Place::new(&[]);
    write(&place);
    write_set(&place);
    let table = said(
        &place,
        &[
            "out/generations/1",
            "set",
            "--by",
            "document",
            "--model",
            "bert",
        ],
    );
    assert!(table.contains("half: all, nDCG@10\n"), "{table}");
    // The sparse list of the first question is empty; the second place of its dense one is worth 1/log2(3).
    let none = row(&table, "none");
    assert_eq!((none[1], none[6]), ("0.5000", "0.8155"));
    assert_eq!(row(&table, "sample")[1], "1.0000");
}

#[test]
fn chunks_are_shown_without_a_model_and_what_is_missing_is_named() {
    let place = Place::new(&[]);
    write(&place);
    write_set(&place);
    let expected = "──── tides#0 ────\nThe tide.\n  tides#0?0  sample      gain 0.500  how does water work\n  \
                    tides#0?1  vocabulary  water\n\n──── towns#0 ────\nA law of the city.\n\n";
    assert_eq!(said(&place, &["out", "set", "--sample", "2"]), expected);
    let refusal = |arguments: &[&str]| {
        let output = place.run(&[&["eval", "expansion"], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let no_model = refusal(&["out", "set"]);
    assert!(no_model.contains("--model <FOLDER>"), "{no_model}");
    let vectors = Path::new("out/generations/1/vectors/text");
    fs::remove_dir_all(place.path(vectors.to_str().unwrap())).unwrap();
    let no_vectors = refusal(&["out", "set", "--model", "bert"]);
    assert!(
        no_vectors.contains("vectors/text: there are no rows"),
        "{no_vectors}"
    );
}
