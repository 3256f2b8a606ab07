//! `generations`, `rollback` and `gc` over real generations.

mod common;

use std::fs;

use common::{Place, documents};
use serde_json::Value;

/// Runs a command that must succeed, and returns what it prints.
fn said(place: &Place, arguments: &[&str]) -> String {
    let output = place.run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(place: &Place, arguments: &[&str], words: &str) {
    let output = place.run(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(error.contains(words), "{arguments:?}: {error}");
}

fn list(place: &Place) -> Vec<(u64, bool)> {
    let text = said(place, &["generations", "out", "--format", "json"]);
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let pair = |g: &Value| {
        assert!(g["bytes"].as_u64() > Some(1000) && g["documents"] == 4 && g["published"] == true);
        assert!(g["built"].as_u64() > Some(1_700_000_000) && g["chunks"].as_u64() >= Some(4));
        (g["number"].as_u64().unwrap(), g["current"] == true)
    };
    list.iter().map(pair).collect()
}

#[test]
fn rollback_and_gc() {
    let place = Place::new(&documents());
    refused(&place, &["generations", "out"], "no output");
    refused(&place, &["gc", "out", "--keep", "1"], "no output");
    refused(&place, &["rollback", "out"], "no output");
    place.write_job(
        "[intents]\nenabled = false\n[expand]\nenabled = false\n[chunk]\nmethod = \"fixed\"\n",
    );
    for seed in ["1", "2", "3"] {
        place.build_expecting(0, &["--set", &format!("engine.seed={seed}")]);
    }
    assert_eq!(list(&place), [(1, false), (2, false), (3, true)]);
    let table = said(&place, &["generations", "out"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.lines().last().unwrap().ends_with("current"));

    let line = said(&place, &["rollback", "out"]);
    assert_eq!(
        line,
        "generation 2 of out is current; 3 was; nothing was removed\n"
    );
    assert_eq!(place.current().as_deref(), Some("2"));
    said(&place, &["search", "out", "tides", "--mode", "sparse"]);
    refused(&place, &["rollback", "out", "--to", "9"], "no generation 9");
    said(&place, &["rollback", "out", "--to", "1"]);
    refused(&place, &["rollback", "out"], "no generation before 1");

    // The build of generation 3 once more: it is not the published one, and is not made so by the back door.
    place.build_expecting(0, &["--set", "engine.seed=3"]);
    assert_eq!(place.current().as_deref(), Some("4"));
    said(&place, &["rollback", "out", "--to", "1"]);

    fs::write(place.path("out/CURRENT"), "").unwrap();
    assert!(list(&place).iter().all(|(_, current)| !current));
    refused(&place, &["plan", "job.toml"], "intendex rollback --to N");
    let said_by_build = place.build_expecting(2, &[]);
    assert!(
        said_by_build.contains("intendex rollback --to N"),
        "{said_by_build}"
    );
    assert!(place.path("out/CURRENT").metadata().unwrap().len() == 0);
    said(&place, &["rollback", "out", "--to", "1"]);

    // A generation that is not here must not be taken for the one to keep.
    fs::write(place.path("out/CURRENT"), "9\n").unwrap();
    refused(&place, &["gc", "out", "--keep", "1"], "names generation 9");
    let output = place.run(&["generations", "out"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("names generation 9"), "{error}");
    assert_eq!(list(&place).len(), 4);
    said(&place, &["rollback", "out", "--to", "1"]);

    refused(&place, &["gc", "out", "--keep", "0"], "--keep");
    let line = said(&place, &["gc", "out", "--keep", "2"]);
    assert!(
        line.starts_with("removed generation 2 of out: ") && line.ends_with(" freed\n"),
        "{line}"
    );
    assert_eq!(list(&place), [(1, true), (3, false), (4, false)]);
    let line = said(&place, &["gc", "out", "--keep", "2"]);
    assert_eq!(line, "nothing to remove in out\n");

    // A gc killed in the middle of a removal.
    fs::rename(place.generation(3), place.path("out/generations/removed-3")).unwrap();
    assert_eq!(list(&place), [(1, true), (4, false)]);
    said(&place, &["gc", "out", "--keep", "2"]);
    assert!(!place.path("out/generations/removed-3").exists());
    place.build_expecting(0, &[]);
    assert_eq!(place.current().as_deref(), Some("5"));
}
