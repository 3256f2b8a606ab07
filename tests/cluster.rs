//! A Ballista cluster of real processes gives what a build alone gives, whatever happens to its executors.
#![cfg(feature = "cluster")]

#[path = "support/cluster.rs"]
mod cluster;
mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use cluster::{Cluster, Process, logs, start};
use common::{Place, Row};

/// Documents enough for a number of shards.
fn rows() -> Vec<(String, String)> {
    let row = |i: usize| {
        let text = format!(
            "Comet {i} was seen in {}. Its tail is {} million miles long.\n\nIt comes back after {} years. Nobody has been there.",
            1500 + i,
            i * 3 + 1,
            i + 7
        );
        (format!("comet-{i}"), text)
    };
    (0..24).map(row).collect()
}

fn place() -> Place {
    let rows = rows();
    let rows: Vec<Row> = rows
        .iter()
        .map(|(id, text)| (Some(id.as_str()), Some("Comets"), Some(text.as_str())))
        .collect();
    let place = Place::new(&rows);
    place.write_job("[engine]\nshard_documents = 3\n[expand]\nqueries = 1\nkeep = 0.8\n");
    place
}

/// Every dataset file of a generation.
fn datasets(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let generation = out.join("generations/1");
    let files = walkdir::WalkDir::new(&generation)
        .into_iter()
        .map(Result::unwrap);
    let parquet = files.filter(|file| file.path().extension().is_some_and(|e| e == "parquet"));
    parquet
        .map(|file| {
            let name = file.path().strip_prefix(&generation).unwrap();
            (name.display().to_string(), fs::read(file.path()).unwrap())
        })
        .collect()
}

fn assert_same(place: &Place, out: &str, local: &BTreeMap<String, Vec<u8>>) {
    let found = datasets(&place.path(out));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        local.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in local {
        assert!(found[name] == *bytes, "{name} differs");
    }
    let verified = place.run(&["verify", out]);
    assert_eq!(verified.status.code(), Some(0));
}

fn local(place: &Place) -> BTreeMap<String, Vec<u8>> {
    place.build_expecting(0, &["--set", "output.path=local"]);
    datasets(&place.path("local"))
}

#[test]
fn a_cluster_gives_the_bytes_of_a_build_alone() {
    let place = place();
    let local = local(&place);
    let cluster = Cluster::start(&place, 3);
    let output = place.build(&["--set", &cluster.setting()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", logs(&place));
    assert_same(&place, "out", &local);
}

#[test]
fn an_executor_that_is_killed_costs_nothing_but_time() {
    let place = place();
    let local = local(&place);
    let mut cluster = Cluster::start(&place, 2);
    let build = build(&place, &cluster);
    wait_for(&place, "outcomes/chunks");
    drop(cluster.executors.remove(0));
    cluster.join(&place.path(""));
    assert_eq!(end(build), Some(0), "{}", logs(&place));
    assert_same(&place, "out", &local);
}

#[test]
fn a_scheduler_that_comes_back_is_found() {
    let place = place();
    let local = local(&place);
    let mut cluster = Cluster::start(&place, 2);
    let build = build(&place, &cluster);
    wait_for(&place, "outcomes/chunks");
    cluster.scheduler = None;
    thread::sleep(Duration::from_secs(1));
    cluster.schedule();
    assert_eq!(end(build), Some(0), "{}", logs(&place));
    assert_same(&place, "out", &local);
}

#[test]
fn an_executor_without_the_model_is_named() {
    let place = place();
    let mut cluster = Cluster::start(&place, 0);
    let elsewhere = tempfile::tempdir().unwrap();
    let name = cluster.join(elsewhere.path());
    let output = place.build(&["--set", &cluster.setting()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let is_named = said.contains(&format!("executor {name}")) && said.contains("bert");
    assert!(is_named, "{said}");
    // It goes on where one has it.
    cluster.executors.clear();
    cluster.join(&place.path(""));
    place.build_expecting(0, &["--set", &cluster.setting()]);
}

fn build(place: &Place, cluster: &Cluster) -> Process {
    let arguments = ["build", "job.toml", "--set", &cluster.setting()];
    start(place, &place.path(""), &arguments, "build")
}

/// Waits until a part of this dataset is written.
fn wait_for(place: &Place, dataset: &str) {
    let start = Instant::now();
    let there = || {
        let files = walkdir::WalkDir::new(place.path("out"))
            .into_iter()
            .flatten();
        files.into_iter().any(|file| {
            let path = file.path().display().to_string();
            path.contains(&format!("{dataset}/part-")) && path.ends_with(".parquet")
        })
    };
    while !there() {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{}",
            logs(place)
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn end(mut process: Process) -> Option<i32> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(240) {
        if let Some(status) = process.0.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}
