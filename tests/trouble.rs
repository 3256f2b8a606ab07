//! What goes wrong outside the program: a full or read-only disk, an input that vanishes, signals, a second writer.

mod common;
#[path = "support/crash/mod.rs"]
mod harness;
#[path = "support/server.rs"]
mod server;
#[path = "support/tmpfs.rs"]
mod tmpfs;

use std::{
    fs,
    path::Path,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use common::{Place, documents, parquet_files, read, row, texts, write_corpus};
use futures::TryStreamExt;
use harness::{Kept, Round, kept, reference};
use intendex::{
    corpus,
    job::spec::{Corpus, Engine},
};
use tmpfs::Tmpfs;

/// The published generation is there, whole, and answers.
fn unharmed(place: &Place, output: &str, before: &[(std::path::PathBuf, Vec<u8>)]) {
    let root = place.path(output);
    assert_eq!(fs::read_to_string(root.join("CURRENT")).unwrap(), "1\n");
    assert!(parquet_files(&root.join("generations/1")) == before);
    let answer = place.run(&["search", output, "spring tides", "--mode", "sparse"]);
    let said = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.status.code(), Some(0), "{said}");
}

#[test]
fn a_full_disk() {
    fill(&[], 16);
}

/// Without the sparse index, whose building needs the most room, the last files written are what does not fit.
#[test]
fn a_disk_full_at_the_end() {
    fill(&["--set", "sparse.enabled=false"], 25);
}

/// Builds on a disk that grows by a part of a generation's size until the build fits.
fn fill(more: &[&str], parts: u64) {
    let place = Place::new(&documents());
    let Some(disk) = Tmpfs::mount(&place.path("disk"), "size=64m") else {
        return;
    };
    place.build_expecting(0, &["--set", "output.path=disk/out"]);
    let before = parquet_files(&place.path("disk/out/generations/1"));
    let first = disk.used_kib();
    // Another seed, so that little can be taken from the first generation.
    let another = [more, &["--set", "engine.seed=7"]].concat();
    let on_disk = [&another[..], &["--set", "output.path=disk/out"]].concat();
    let full = |free: &u64| {
        disk.remount(&format!("size={}k", first + free));
        let output = place.build(&on_disk);
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return false;
        }
        for words in ["disk/out", "No space left", "continues where it stopped"] {
            assert!(said.contains(words), "{free} KiB: no `{words}` in {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
        unharmed(&place, "disk/out", &before);
        // FAISS prints its own word for it without a line break.
        let error = said.lines().find(|line| line.contains("error: "));
        println!("{free} KiB: {}", error.unwrap());
        true
    };
    let sizes = (1..=2 * parts).map(|n| (n * first / parts).next_multiple_of(4));
    let failed = sizes.take_while(full).count() as u64;
    assert!(
        parts / 4 < failed && failed < 2 * parts,
        "{failed} of {parts}"
    );
    place.build_expecting(0, &another);
    let built = parquet_files(&place.path("disk/out/generations/2"));
    assert!(built == parquet_files(&place.generation(1)));
}

#[test]
fn a_read_only_output() {
    let place = Place::new(&documents());
    let Some(disk) = Tmpfs::mount(&place.path("disk"), "size=64m") else {
        return;
    };
    let set = ["--set", "output.path=disk/out"];
    place.build_expecting(0, &set);
    let before = parquet_files(&place.path("disk/out/generations/1"));
    disk.remount("ro");
    for output in ["disk/out", "disk/new"] {
        let said = place.build_expecting(2, &["--set", &format!("output.path={output}")]);
        for words in [output, "Read-only", "choose an output.path"] {
            assert!(said.contains(words), "no `{words}` in {said}");
        }
    }
    let gc = place.run(&["gc", "disk/out", "--keep", "1"]);
    assert_eq!(gc.status.code(), Some(2));
    unharmed(&place, "disk/out", &before);
    disk.remount("rw");
    place.build_expecting(0, &set);
}

#[test]
fn an_input_file_that_vanishes_between_runs() {
    let place = Place::new(&documents());
    fs::create_dir(place.path("corpus")).unwrap();
    write_corpus(&place.path("corpus/a.parquet"), &documents());
    let set = ["--set", "corpus.path=corpus"];
    place.build_expecting(0, &set);
    let before = parquet_files(&place.generation(1));
    for name in ["b", "c"] {
        let row = [row(name, "Late", "It came late. It goes soon.")];
        write_corpus(&place.path(&format!("corpus/{name}.parquet")), &row);
    }
    let intents = [&set[..], &["--stage", "intents"]].concat();
    place.build_expecting(0, &intents);

    // One of three: the corpus is another now, and the build says so.
    fs::remove_file(place.path("corpus/c.parquet")).unwrap();
    let said = place.build_expecting(0, &intents);
    assert!(
        said.contains("another plan") && said.contains("corpus"),
        "{said}"
    );
    unharmed(&place, "out", &before);
    fs::remove_file(place.path("corpus/b.parquet")).unwrap();

    // The last one: nothing is left to build from.
    fs::remove_file(place.path("corpus/a.parquet")).unwrap();
    let said = place.build_expecting(2, &set);
    assert!(
        said.contains("corpus") && said.contains(".parquet"),
        "{said}"
    );
    unharmed(&place, "out", &before);

    write_corpus(&place.path("corpus/a.parquet"), &documents()[..3]);
    place.build_expecting(0, &set);
    let ids = texts(&read(&place.generation(2), "documents"), "doc_id");
    assert_eq!(ids, ["tides", "bread", "unicode"]);
}

#[test]
fn an_input_file_that_vanishes_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.parquet", "b.parquet"] {
        let row = [row(name, "Title", "Some text.")];
        write_corpus(&folder.path().join(name), &row);
    }
    let toml = format!("path = {:?}", folder.path().display().to_string());
    let corpus: Corpus = toml::from_str(&toml).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let spill = tempfile::tempdir().unwrap();
    let ctx = corpus::session(&Engine::default(), spill.path()).unwrap();
    let scan = runtime.block_on(corpus::open(&ctx, &corpus)).unwrap();
    fs::remove_file(folder.path().join("b.parquet")).unwrap();
    let read: Result<Vec<_>, _> =
        runtime.block_on(async { scan.stream().await?.try_collect().await });
    let said = read.unwrap_err().to_string();
    assert!(said.contains("b.parquet"), "{said}");
}

/// A build of many shards that has finished some more.
fn under_way(place: &Place, more: &[&str]) -> Child {
    let building = place.path("out/generations/building");
    let lines = |folder: &Path| kept::journal(folder).map_or(0, |lines| lines.len());
    let before = lines(&building);
    let child = harness::start(place, "out", more, &place.path("log"));
    let begin = Instant::now();
    while lines(&building) < before + 4 {
        assert!(begin.elapsed() < Duration::from_secs(120), "no progress");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn signal(child: &mut Child, signal: i32) -> ExitStatus {
    // SAFETY: sends a signal to a child that has not been waited for, so its number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    let begin = Instant::now();
    let status = child.wait().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "took too long");
    status
}

#[test]
fn signals_end_a_build_with_a_word_and_it_goes_on_later() {
    let place = reference::place(40);
    let round = Round::new(&place, "out");
    let mut kept = Kept::default();
    for (number, name, more) in [
        (libc::SIGTERM, "SIGTERM", &[][..]),
        (libc::SIGINT, "SIGINT", &["--log-format", "json"][..]),
    ] {
        let mut child = under_way(&place, more);
        assert_eq!(signal(&mut child, number).code(), Some(128 + number));
        let said = fs::read_to_string(place.path("log")).unwrap();
        let last = said.lines().last().unwrap();
        let line = format!(
            "stopped by {name}; nothing was published; run the same command again: it continues where it stopped"
        );
        if more.is_empty() {
            assert_eq!(last, line);
        } else {
            let last: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!(last["message"], line);
        }
        assert_eq!(place.current(), None);
        kept.check_and_extend(&round);
    }
    assert!(kept.len() > 8, "{}", kept.len());
    place.build_expecting(0, &[]);
    kept.check(&place.generation(1));
}

#[test]
fn a_second_writer_waits_for_the_first_to_die() {
    let place = reference::place(40);
    let mut child = under_way(&place, &[]);
    let pid = format!("pid {} ", child.id());
    let gc = ["gc", "out", "--keep", "1"];
    let rollback = ["rollback", "out"];
    for command in [&["build", "job.toml"][..], &gc, &rollback] {
        let output = place.run(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains(&pid), "{command:?}: {said}");
    }
    assert!(child.try_wait().unwrap().is_none(), "the first has ended");
    child.kill().unwrap();
    child.wait().unwrap();
    place.build_expecting(0, &[]);
    assert!(Path::exists(&place.generation(1)));
}

/// A server that answers but gives no log-probabilities is refused before it has written anything; one that is not needed for
/// scores may be anything.
#[test]
fn a_server_that_cannot_score_is_refused_at_once() {
    let place = Place::new(&documents());
    let server = server::Server::start();
    server.refuse("no document has this");
    let job = fs::read_to_string(place.path("job.toml")).unwrap();
    let model = format!("model = \"m\"\nserver = \"{}\"", server.base);
    let job = job.replace("model = \"qwen2.gguf\"", &model);
    fs::write(place.path("job.toml"), &job).unwrap();
    let said = place.build_expecting(2, &["--set", "expand.keep=0.5"]);
    assert!(
        said.contains("cannot score") && said.contains("expand.filter"),
        "{said}"
    );
    assert!(!place.path("out/generations/building/documents").exists());
    let by_vectors = ["--set", "expand.keep=0.5", "--set", "expand.filter=cosine"];
    place.build_expecting(0, &by_vectors);
    // It is not asked for what is known.
    fs::write(
        place.path("job.toml"),
        job.replace(&server.base, "http://127.0.0.1:9/v1"),
    )
    .unwrap();
    let plan = place.run(&["plan", "job.toml", "--set", "expand.keep=0.5"]);
    assert_eq!(plan.status.code(), Some(0));
}

/// Failures of a model are no reason to fail for ever: the shard that broke the limit is run again.
#[test]
fn a_server_that_recovers_after_too_many_failures() {
    let place = Place::new(&documents());
    let server = server::Server::start();
    let job = fs::read_to_string(place.path("job.toml")).unwrap();
    let job = job.replace(
        "model = \"qwen2.gguf\"",
        &format!("model = \"m\"\nserver = \"{}\"", server.base),
    );
    let job = job.replace("[intents]\nenabled = true\n", "");
    let more = "[intents]\nenabled = false\n[chunk]\nmethod = \"fixed\"\n[dense]\nenabled = false\n\
                [engine]\nshard_documents = 1\nmax_failures = 0\n";
    fs::write(place.path("job.toml"), job + more).unwrap();
    server.refuse("crust turns");
    for _ in 0..2 {
        let said = place.build_expecting(2, &[]);
        assert!(said.contains("engine.max_failures allows 0"), "{said}");
        let done = kept::journal(&place.path("out/generations/building")).unwrap();
        let queries: Vec<_> = done.iter().filter(|line| line.0 == "queries").collect();
        assert_eq!(queries, [&("queries".into(), Some(0))]);
    }
    server.refuse("nothing that is asked");
    place.build_expecting(0, &[]);
    assert!(
        !place
            .generation(1)
            .join("quarantine/queries-00001.parquet")
            .exists()
    );
}
