//! A Ballista cluster of real processes gives what a build alone gives, whatever happens to its executors.
#![cfg(feature = "cluster")]

#[path = "support/cluster.rs"]
mod cluster;
mod common;
#[path = "support/network.rs"]
mod network;
#[path = "support/server.rs"]
mod server;
#[path = "support/storage.rs"]
mod storage;

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

/// Executors have the object storage alone: what they read comes from there, and not from the build's mirror.
#[test]
fn executors_read_from_object_storage() {
    let Some(storage) = storage::Storage::start() else {
        return;
    };
    let place = place();
    // Earlier results and topics go that way, too.
    let job = "[engine]\nshard_documents = 3\n[expand]\nqueries = 1\nlists = 1\ntopics = 3\n";
    place.write_job(job);
    let local = local(&place);
    storage.put(&place.path("corpus.parquet"), "corpus/c.parquet");
    let cluster = Cluster::start_with(&place, 2, storage.environment(&place.path("executors")));
    let corpus = format!("corpus.path={}", storage.address("corpus"));
    let out = format!("output.path={}", storage.address("out"));
    let build = |mirror: &str, more: &[&str]| {
        let output = place
            .command(&["build", "job.toml", "--set", &cluster.setting()])
            .args(["--set", &corpus, "--set", &out])
            .args(more)
            .envs(storage.environment(&place.path(mirror)))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}\n{}", logs(&place));
        String::from_utf8(output.stdout).unwrap()
    };
    // The second machine has nothing but what the first has sent.
    build("first", &["--stage", "chunks"]);
    fs::remove_dir_all(place.path("first")).unwrap();
    build("second", &[]);
    assert_eq!(datasets(&storage.path("out")), local);
    let said = build(
        "third",
        &["--set", "dense.factory=Flat", "--from", "queries"],
    );
    assert!(!said.contains("reused 0"), "{said}");
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

/// The message of a task's end goes where nobody listens, as when the network fails at that moment.
#[test]
fn an_end_that_is_not_heard_is_told_again() {
    let place = place();
    let set = "engine.shard_documents=12";
    place.build_expecting(0, &["--set", "output.path=local", "--set", set]);
    let local = datasets(&place.path("local"));
    let mut cluster = Cluster::start(&place, 0);
    cluster.host = "127.0.0.9".into();
    cluster.schedule();
    cluster.join(&place.path(""));
    let output = place.build(&["--set", &cluster.setting(), "--set", set]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", logs(&place));
    assert!(logs(&place).contains("its end is told again"));
    assert_same(&place, "out", &local);
}

/// However it ends, its executor stops within the shard that it is at, and is there for the next build.
#[test]
fn a_build_that_ends_takes_its_shards_back() {
    let place = place();
    let server = server::Server::start();
    server.refuse("no document has this");
    server.answer_after(Duration::from_millis(200));
    let cluster = Cluster::start(&place, 1);
    let generator = format!(
        "models.generator={{ model = \"m\", server = \"{}\", concurrency = 1 }}",
        server.base
    );
    let set = [
        &generator,
        "engine.shard_documents=24",
        "intents.enabled=false",
        "expand.keep=1",
        "expand.lists=0",
    ];
    let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
    let setting = cluster.setting();
    let arguments = [&["build", "job.toml", "--set", &setting], &set[..]].concat();
    for signal in [libc::SIGINT, libc::SIGKILL] {
        let before = server.asked();
        let build = start(&place, &place.path(""), &arguments, "build");
        wait_until(&place, || server.asked() > before);
        // SAFETY: a signal to a process of this test.
        assert_eq!(unsafe { libc::kill(build.0.id() as i32, signal) }, 0);
        end(build);
        // A shard is 24 questions, and its function stops after eight.
        thread::sleep(Duration::from_secs(5));
        let asked = server.asked() - before;
        assert!(asked <= 8, "{asked} questions\n{}", logs(&place));
    }
    server.answer_after(Duration::ZERO);
    let output = place.run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", logs(&place));
}

/// An executor that is to keep two jobs loads the models of each once, however their shards take turns.
#[test]
fn two_jobs_share_an_executor() {
    let place = place();
    let sets = [
        ["--set", "output.path=out-0", "--set", "expand.queries=1"],
        ["--set", "output.path=out-1", "--set", "expand.queries=2"],
    ];
    let mut cluster = Cluster::start(&place, 0);
    cluster.join_with(&place.path(""), &["--tasks", "2", "--jobs", "2"]);
    let setting = cluster.setting();
    let together = sets.map(|set| {
        let arguments = [&["build", "job.toml", "--set", &setting][..], &set].concat();
        start(&place, &place.path(""), &arguments, "build")
    });
    for build in together {
        assert_eq!(end(build), Some(0), "{}", logs(&place));
    }
    let loaded = logs(&place)
        .matches("a job that it has no models of")
        .count();
    assert_eq!(loaded, 2, "{}", logs(&place));
    for (number, set) in sets.iter().enumerate() {
        let local = format!("output.path=local-{number}");
        place.build_expecting(0, &[set, &["--set", &local][..]].concat());
        let local = datasets(&place.path(&format!("local-{number}")));
        assert_same(&place, &format!("out-{number}"), &local);
    }
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

/// Each process with a network of its own, where the system allows it: a build left in peace; builds of which one of three
/// executors is killed, and another joins, at moments that a generator of numbers chooses, ten (or INTENDEX_KILLS); and builds in
/// which an executor's cable is out for so many seconds that it is not missed, or given up, or has given up its scheduler. With
/// two thousand abstracts of SciFact.
#[test]
#[ignore = "takes half an hour; run by `make test-cluster-kills`"]
fn executors_are_killed_at_any_moment_of_a_real_corpus() {
    let data = std::env::var("INTENDEX_EVAL_DATA").expect("INTENDEX_EVAL_DATA");
    let kills = std::env::var("INTENDEX_KILLS").map_or(10, |n| n.parse().unwrap());
    let place = Place::new(&[]);
    place.write_job(
        "[intents]\nenabled = false\n[chunk]\nmethod = \"paragraph\"\ntarget_tokens = 254\n\
         [engine]\nshard_documents = 100\n[expand]\nenabled = false\n",
    );
    let job = fs::read_to_string(place.path("job.toml")).unwrap();
    let corpus = format!(
        "path = \"{data}/scifact/corpus.parquet\"\nfilter = \"CAST(doc_id AS BIGINT) % 5 < 2\""
    );
    let job = job.replace("path = \"corpus.parquet\"", &corpus);
    fs::write(place.path("job.toml"), job).unwrap();
    let clock = Instant::now();
    let local = local(&place);
    let alone = clock.elapsed();
    println!("alone: {:.0} s", alone.as_secs_f64());
    let mut cluster = Cluster::start_apart(&place, 3);
    let clock = Instant::now();
    place.build_expecting(0, &["--set", &cluster.setting()]);
    println!("on three: {:.0} s", clock.elapsed().as_secs_f64());
    assert_same(&place, "out", &local);
    for round in 0..kills {
        let out = format!("out-{round}");
        let set = format!("output.path={out}");
        let arguments = [
            "build",
            "job.toml",
            "--set",
            &cluster.setting(),
            "--set",
            &set,
        ];
        let clock = Instant::now();
        let mut build = start(&place, &place.path(""), &arguments, "build");
        let moment = alone.mul_f64(rand::random::<f64>() / 2.0);
        thread::sleep(moment);
        assert!(
            build.0.try_wait().unwrap().is_none(),
            "killed too late to matter"
        );
        let victim = rand::random_range(0..cluster.executors.len());
        drop(cluster.executors.remove(victim));
        cluster.machines.remove(victim);
        cluster.join(&place.path(""));
        assert_eq!(end(build), Some(0), "{}", logs(&place));
        assert_same(&place, &out, &local);
        fs::remove_dir_all(place.path(&out)).unwrap();
        let (moment, all) = (moment.as_secs_f64(), clock.elapsed().as_secs_f64());
        println!(
            "{round}: one of three killed after {moment:.1} s; the same bytes after {all:.1} s"
        );
    }
    if !cluster.is_apart() {
        println!("NO CABLES TO TAKE OUT");
        return;
    }
    for out_for in [5, 20, 45, 90] {
        let out = format!("out-cable-{out_for}");
        let set = format!("output.path={out}");
        let setting = cluster.setting();
        let arguments = ["build", "job.toml", "--set", &setting, "--set", &set];
        let clock = Instant::now();
        let build = start(&place, &place.path(""), &arguments, "build");
        thread::sleep(Duration::from_secs(10));
        let victim = &cluster.machines[0];
        victim.unplugged(Duration::from_secs(out_for)).unwrap();
        assert_eq!(end(build), Some(0), "{}", logs(&place));
        assert_same(&place, &out, &local);
        let all = clock.elapsed().as_secs_f64();
        println!("cable of one of three out for {out_for} s: the same bytes after {all:.1} s");
    }
}

/// Waits until a part of this dataset is written.
fn wait_for(place: &Place, dataset: &str) {
    wait_until(place, || {
        let files = walkdir::WalkDir::new(place.path("out"))
            .into_iter()
            .flatten();
        files.into_iter().any(|file| {
            let path = file.path().display().to_string();
            path.contains(&format!("{dataset}/part-")) && path.ends_with(".parquet")
        })
    });
}

fn wait_until(place: &Place, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
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
    while start.elapsed() < Duration::from_secs(1200) {
        if let Some(status) = process.0.try_wait().unwrap() {
            return status.code();
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}
