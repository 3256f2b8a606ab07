//! Job files: keys deleted, repeated, of other types; bytes put in and taken out.

use std::fs;

use intendex::job::Job;
use proptest::prelude::*;

use crate::campaign;

const JOB: &str = r#"version = 1
name = "handbook"
[corpus]
path = "corpus/*.parquet"
id = "doc_id"
title = "title"
text = "text"
intents = "questions"
passthrough = ["url", "n"]
filter = "language = 'en' AND x > ${LIMIT:-3}"
max_document_bytes = 1000000
[output]
path = "${FOLDER}/index"
vectors = "f16"
[models]
offline = true
device = "cuda:0"
[models.embedder]
model = "."
pooling = "mean"
normalize = true
query_prefix = "query: "
max_tokens = 128
batch_tokens = 4096
[models.generator]
model = "qwen"
server = "http://127.0.0.1:8000/v1"
api_key = "${SECRET}"
concurrency = 4
[intents]
enabled = true
temperature = 0.7
[chunk]
method = "intent"
objective = "paper"
max_tokens = 200
target_tokens = 160
lambda = 0.01
[expand]
queries = 4
keep = 0.7
examples = [{ passage = "Tides.", question = "Why?" }]
[sparse]
language = "english"
text_weight = 1.0
[dense]
factory = "auto"
[engine]
threads = 2
max_failures = "1%"
seed = 7
"#;

/// One thing done to a file of lines.
#[derive(Debug, Clone)]
enum Damage {
    DeleteLine(usize),
    RepeatLine(usize, usize),
    Value(usize, String),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let line = 0..JOB.lines().count();
    let place = 0..JOB.len();
    let values = prop::sample::select(vec![
        "1",
        "-1",
        "0",
        "1.5",
        "nan",
        "-inf",
        "1e400",
        "9223372036854775807",
        "true",
        "\"\"",
        "\"${\"",
        "\"${X\"",
        "\"$${\"",
        "\"${A:-${B}}\"",
        "\"%\"",
        "\"١%\"",
        "[]",
        "[[[]]]",
        "{}",
        "{ a = 1 }",
        "[1, \"a\"]",
        "1979-05-27",
        "07:32:00",
        "'''",
        "\"\"\"",
        "0x10",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "",
        "=",
        "[{}]",
    ]);
    prop_oneof![
        line.clone().prop_map(Damage::DeleteLine),
        (line.clone(), line.clone()).prop_map(|(a, b)| Damage::RepeatLine(a, b)),
        (line.clone(), values).prop_map(|(l, v)| Damage::Value(l, v.to_owned())),
        (line, any::<String>()).prop_map(|(l, v)| Damage::Value(l, format!("{v:?}"))),
        (place.clone(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(p, b)| Damage::Insert(p, b)),
        (place.clone(), "[\\[\\]{}=.,\"'#\n\\\\$a-z0-9]{1,12}")
            .prop_map(|(p, s)| Damage::Insert(p, s.into())),
        (place, 1usize..40).prop_map(|(p, n)| Damage::Remove(p, n)),
    ]
}

fn damaged(list: &[Damage]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = JOB.lines().map(|l| l.as_bytes().to_vec()).collect();
    for damage in list {
        match damage {
            Damage::DeleteLine(i) => lines[*i].clear(),
            Damage::RepeatLine(from, to) => lines[*to] = lines[*from].clone(),
            Damage::Value(i, value) => {
                let key = lines[*i].iter().take_while(|b| **b != b'=').copied();
                lines[*i] = key.chain(*b"= ").chain(value.bytes()).collect();
            }
            Damage::Insert(..) | Damage::Remove(..) => {}
        }
    }
    let mut bytes = lines.join(&b'\n');
    for damage in list {
        match damage {
            Damage::Insert(at, more) => {
                let at = (*at).min(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Remove(at, count) => {
                let from = (*at).min(bytes.len());
                let to = (from + count).min(bytes.len());
                bytes.drain(from..to);
            }
            _ => {}
        }
    }
    bytes
}

fn overrides() -> impl Strategy<Value = Vec<String>> {
    let known = prop::sample::select(vec![
        "engine.max_failures",
        "engine.seed",
        "models.generator",
        "corpus.passthrough",
        "chunk",
        "expand.examples",
        "corpus.filter",
        "output.path",
        "dense.factory.x",
        "",
        ".",
        "a..b",
    ]);
    let value = prop_oneof![any::<String>(), "[0-9.%\\[\\]{}\"= -]{0,8}"];
    let one = (known, value).prop_map(|(key, value)| format!("{key}={value}"));
    prop::collection::vec(prop_oneof![one, any::<String>()], 0..3)
}

#[test]
fn are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    let inputs = (
        prop::collection::vec(damage(), 0..4),
        overrides(),
        any::<Option<String>>(),
    );
    let (cases, accepted) = campaign(&inputs, |(list, overrides, variable)| {
        let bytes = damaged(&list);
        fs::write(&path, &bytes).unwrap();
        let loaded = Job::load(&path, &overrides);
        let text = String::from_utf8_lossy(&bytes);
        let parsed = Job::parse(&path, &text, &overrides, &|_| variable.clone());
        for job in [&loaded, &parsed] {
            match job {
                Ok(job) => prop_assert!(toml::to_string(job).is_ok()),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
        Ok(parsed.is_ok())
    });
    println!("{cases} job files: {accepted} accepted, no panic");
}
