//! Corpora and outputs on a real S3 server: what is published there is what a folder would have, whoever is killed.

mod common;
#[path = "support/storage.rs"]
mod storage;

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use common::{Place, documents, random_text, row, write_corpus, write_parquet};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use storage::{SECRET, Storage};

const MORE: &str = "[engine]\nshard_documents = 4\n";

/// A machine: what runs on it has a mirror of its own.
struct Machine<'a> {
    place: &'a Place,
    storage: &'a Storage,
    mirror: &'a str,
}

impl Machine<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intendex"));
        command.current_dir(self.place.path("")).args(arguments);
        command.envs(self.storage.environment(&self.place.path(self.mirror)));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it writes; panics unless it ends well.
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", told(&output));
        told(&output)
    }

    fn build_arguments(&self) -> Vec<String> {
        let corpus = format!("corpus.path={}", self.storage.address("corpus"));
        let output = format!("output.path={}", self.storage.address("out"));
        let arguments = ["build", "job.toml", "--set", &corpus, "--set", &output];
        arguments.map(str::to_owned).into()
    }

    fn start_build(&self) -> Child {
        let mut build = self.command(&[]);
        let build = build.args(self.build_arguments());
        let build = build.stdout(Stdio::piped()).stderr(Stdio::piped());
        build.spawn().unwrap()
    }

    fn build(&self) -> String {
        let arguments = self.build_arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.succeed(&arguments)
    }
}

fn told(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn machine<'a>(place: &'a Place, storage: &'a Storage, mirror: &'a str) -> Machine<'a> {
    Machine {
        place,
        storage,
        mirror,
    }
}

fn write_random_corpus(place: &Place, count: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let texts: Vec<(String, String)> = (0..count)
        .map(|n| (format!("d{n}"), random_text(&mut random)))
        .collect();
    let rows: Vec<_> = texts
        .iter()
        .map(|(id, text)| row(id, "Title", text))
        .collect();
    write_corpus(&place.path("corpus.parquet"), &rows);
}

/// The bytes of all Parquet files of a generation.
fn datasets(generation: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(generation).into_iter().flatten();
    let parts = files.filter(|f| f.path().extension().is_some_and(|e| e == "parquet"));
    let named = |f: walkdir::DirEntry| {
        let name = f.path().strip_prefix(generation).unwrap();
        (name.display().to_string(), fs::read(f.path()).unwrap())
    };
    parts.map(named).collect()
}

fn assert_same(here: &Path, there: &Path) {
    let (here, there) = (datasets(here), datasets(there));
    assert!(!here.is_empty());
    assert_eq!(
        here.keys().collect::<Vec<_>>(),
        there.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in &here {
        assert!(there[name] == *bytes, "{name} differs");
    }
}

#[test]
fn what_is_published_is_what_a_folder_would_have() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let place = Place::new(&documents());
    // Larger than a part of an upload, and nothing that compresses.
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let payload: String = (0..24 << 20)
        .map(|_| random.random_range(' '..'~'))
        .collect();
    let rows = documents();
    let column = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    let text =
        |get: fn(&common::Row<'static>) -> &'static str| column(rows.iter().map(get).collect());
    let mut payloads = vec!["small"; rows.len()];
    payloads[1] = &payload;
    let batch = RecordBatch::try_from_iter([
        ("doc_id", text(|row| row.0.unwrap())),
        ("title", text(|row| row.1.unwrap())),
        ("text", text(|row| row.2.unwrap())),
        ("payload", column(payloads)),
    ]);
    write_parquet(&place.path("corpus.parquet"), &batch.unwrap());
    place.write_job(MORE);
    let passed = "corpus.passthrough=[\"payload\"]";
    place.build_expecting(0, &["--set", passed]);
    storage.put(&place.path("corpus.parquet"), "corpus/deep/c.parquet");

    let first = machine(&place, &storage, "first");
    let arguments = [first.build_arguments(), vec!["--set".into(), passed.into()]].concat();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = first.succeed(&arguments);
    assert!(
        said.contains("published generation 1 of s3://bucket/out"),
        "{said}"
    );
    let there = storage.path("out/generations/1");
    assert_same(&place.generation(1), &there);
    assert!(
        fs::metadata(there.join("documents/part-00000.parquet"))
            .unwrap()
            .len()
            > 16 << 20
    );
    assert!(!storage.path("out/LOCK").exists());

    // Another machine has nothing of it yet.
    let second = machine(&place, &storage, "second");
    let out = storage.address("out");
    let here = place.run(&["search", "out", "spring tides at full moon"]);
    let found = second.succeed(&["search", &out, "spring tides at full moon"]);
    assert_eq!(found, String::from_utf8(here.stdout).unwrap());
    // A search fetches what it reads, and that is not the corpus.
    let fetched = walkdir::WalkDir::new(place.path("second"))
        .into_iter()
        .flatten();
    assert!(
        !fetched
            .map(|f| f.path().display().to_string())
            .any(|name| name.contains("/documents/"))
    );
    // Several at once, on a machine with nothing.
    let crowd = machine(&place, &storage, "crowd");
    let search = || {
        let mut search = crowd.command(&["search", "-v", &out, "spring tides at full moon"]);
        search.stdout(Stdio::piped()).stderr(Stdio::piped());
        search.spawn().unwrap()
    };
    let searches: Vec<Child> = (0..4).map(|_| search()).collect();
    let mut said = String::new();
    for search in searches {
        let output = search.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), found);
        said += &String::from_utf8(output.stderr).unwrap();
    }
    assert_eq!(said.matches(" fetching ").count(), 1, "{said}");
    let said = second.succeed(&arguments);
    assert!(said.contains("is up to date"), "{said}");
    assert!(
        second
            .succeed(&["verify", &out])
            .contains("nothing is wrong")
    );

    // Damage is seen where it is, not in the mirror.
    let damaged = there.join("sparse.ciff.gz");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[20] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let said = second.fail(&["verify", &out]);
    assert!(
        said.contains("sparse.ciff.gz") && said.contains("hash differs"),
        "{said}"
    );
}

#[test]
fn generations_are_kept_and_removed_from_any_machine() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let place = Place::new(&documents());
    place.write_job(MORE);
    storage.put(&place.path("corpus.parquet"), "corpus/what?=1 é.parquet");
    machine(&place, &storage, "first").build();
    let (out, reader) = (storage.address("out"), machine(&place, &storage, "reader"));
    reader.succeed(&["search", &out, "clouds"]);
    let mut more = documents();
    more.push(row(
        "new",
        "New",
        "Something new has come. It is about clouds.",
    ));
    write_corpus(&place.path("corpus.parquet"), &more);
    storage.put(&place.path("corpus.parquet"), "corpus/what?=1 é.parquet");
    // Takes over from what another machine has published.
    let said = machine(&place, &storage, "second").build();
    assert!(
        said.contains("published generation 2") && !said.contains("reused 0"),
        "{said}"
    );
    place.build_expecting(0, &[]);
    assert_same(&place.generation(1), &storage.path("out/generations/2"));

    let third = machine(&place, &storage, "third");
    let listed = third.succeed(&["generations", &out]);
    assert_eq!(listed.lines().count(), 3, "{listed}");
    third.succeed(&["rollback", &out]);
    assert_eq!(current(&storage), "1");
    // One whose publication was ended is not published by going there.
    let journal = storage.path("out/generations/2/journal/00000000.ndjson");
    fs::create_dir_all(journal.parent().unwrap()).unwrap();
    fs::write(&journal, "{\"writer\":1}\n{\"plan\":\"x\",\"stages\":{}}\n").unwrap();
    let said = third.fail(&["rollback", &out, "--to", "2"]);
    assert!(
        said.contains("generations/2: was never published"),
        "{said}"
    );
    assert_eq!(current(&storage), "1");
    fs::remove_file(&journal).unwrap();
    third.succeed(&["rollback", &out, "--to", "2"]);
    assert!(
        machine(&place, &storage, "first")
            .succeed(&["search", &out, "clouds"])
            .contains("new#")
    );
    let said = third.succeed(&["gc", &out, "--keep", "1"]);
    assert!(said.contains("removed generation 1"), "{said}");
    let left = walkdir::WalkDir::new(storage.path("out/generations/1"))
        .into_iter()
        .flatten();
    assert_eq!(left.filter(|f| f.file_type().is_file()).count(), 0);
    // A machine that only reads keeps nothing of it either.
    reader.succeed(&["search", &out, "clouds"]);
    let kept = walkdir::WalkDir::new(place.path("reader")).into_iter();
    let kept = kept.flatten().filter(|entry| entry.depth() == 4);
    let mut kept: Vec<String> = kept
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    kept.sort();
    assert_eq!(kept, ["2", "2.version", "FETCHING"]);
    assert!(
        third
            .succeed(&["verify", &out])
            .contains("nothing is wrong")
    );
}

#[test]
fn a_build_killed_anywhere_goes_on_on_any_machine() {
    let Some(mut storage) = Storage::start() else {
        return;
    };
    let place = Place::new(&documents());
    write_random_corpus(&place, 60);
    place.write_job(MORE);
    place.build_expecting(0, &[]);
    storage.put(&place.path("corpus.parquet"), "corpus/c.parquet");
    let begun = Instant::now();
    machine(&place, &storage, "whole").build();
    let whole = begun.elapsed();
    fs::remove_dir_all(storage.path("out")).unwrap();

    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut killed = 0;
    for n in 0.. {
        assert!(n < 40, "it gets nowhere");
        if n == 3 {
            // The server, too, comes back while a build waits for it.
            storage.down();
        }
        let mirror = format!("machine-{}", random.random_range(0..3));
        let here = machine(&place, &storage, &mirror);
        let mut build = here.command(&[]);
        let mut build = build
            .args(here.build_arguments())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if n == 3 {
            std::thread::sleep(Duration::from_secs(1));
            storage.up();
        }
        // The last kills come late, so that publication is hit as well.
        let share = if killed < 6 { 0.6 } else { 1.1 };
        let moment = whole.mul_f64(random.random_range(0.1..share));
        let begun = Instant::now();
        let ended = loop {
            if let Some(status) = build.try_wait().unwrap() {
                break Some(status);
            }
            if begun.elapsed() > moment {
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match ended {
            Some(status) => {
                assert!(status.success());
                if killed >= 8 {
                    break;
                }
            }
            None => {
                build.kill().unwrap();
                build.wait().unwrap();
                killed += 1;
            }
        }
        if storage.path("out/CURRENT").exists() && killed < 8 {
            check(&place, &storage);
            fs::remove_dir_all(storage.path("out")).unwrap();
        }
    }
    check(&place, &storage);
}

/// The number in `CURRENT`.
fn current(storage: &Storage) -> String {
    let text = fs::read_to_string(storage.path("out/CURRENT")).unwrap();
    text.lines().next().unwrap().to_owned()
}

fn check(place: &Place, storage: &Storage) {
    let there = storage.path("out/generations").join(current(storage));
    assert_same(&place.generation(1), &there);
    let checker = machine(place, storage, "checker");
    let said = checker.succeed(&["verify", &storage.address("out")]);
    assert!(said.contains("nothing is wrong"), "{said}");
}

/// A process that does not get on is not told from one that has ended. Once it goes on, it finds that it has lost its lock.
#[test]
fn of_two_writers_one_publishes() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let place = Place::new(&documents());
    write_random_corpus(&place, 120);
    place.write_job(MORE);
    storage.put(&place.path("corpus.parquet"), "corpus/c.parquet");
    let slow = machine(&place, &storage, "slow");
    let stopped = slow.start_build();
    let pid = stopped.id().to_string();
    let signal = |name: &str| {
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        )
    };
    while !storage.path("out/generations/1/journal").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let quick = machine(&place, &storage, "quick");
    signal("-STOP");
    let begun = Instant::now();
    let said = quick.build();
    assert!(said.contains("published generation"), "{said}");
    assert!(begun.elapsed() > Duration::from_secs(45));
    let current = fs::read(storage.path("out/CURRENT")).unwrap();
    signal("-CONT");
    let output = stopped.wait_with_output().unwrap();
    let said = told(&output);
    assert!(
        !output.status.success() && said.contains("another process"),
        "{said}"
    );
    assert_eq!(fs::read(storage.path("out/CURRENT")).unwrap(), current);
    assert!(
        quick
            .succeed(&["verify", &storage.address("out")])
            .contains("nothing is wrong")
    );
}

/// A server that is away for longer than a lock is believed: the build waits, and goes on.
#[test]
fn a_build_outlives_an_outage() {
    let Some(mut storage) = Storage::start() else {
        return;
    };
    let place = Place::new(&documents());
    write_random_corpus(&place, 60);
    place.write_job(MORE);
    place.build_expecting(0, &[]);
    storage.put(&place.path("corpus.parquet"), "corpus/c.parquet");
    let build = machine(&place, &storage, "here").start_build();
    while !storage.path("out/generations/1/journal").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    storage.down();
    std::thread::sleep(Duration::from_secs(35));
    storage.up();
    let output = build.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("trying again"));
    check(&place, &storage);
}

/// What was lost is not made worse, and what can be mended is.
#[test]
fn a_lost_manifest_and_a_damaged_current_are_survived() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let place = Place::new(&documents());
    place.write_job(MORE);
    storage.put(&place.path("corpus.parquet"), "corpus/c.parquet");
    let here = machine(&place, &storage, "here");
    here.build();
    let (out, first) = (storage.address("out"), storage.path("out/generations/1"));
    let manifest = fs::read(first.join("manifest.json")).unwrap();
    fs::remove_file(first.join("manifest.json")).unwrap();
    here.fail(&["gc", &out, "--keep", "1"]);
    assert!(!datasets(&first).is_empty());
    assert!(here.build().contains("published generation 2"));
    here.succeed(&["gc", &out, "--keep", "1"]);
    assert!(!datasets(&first).is_empty());

    fs::write(first.join("manifest.json"), manifest).unwrap();
    fs::write(storage.path("out/CURRENT"), "two").unwrap();
    let said = here.fail(&["search", &out, "tides"]);
    assert!(said.contains("rollback"), "{said}");
    here.succeed(&["rollback", &out, "--to", "1"]);
    assert!(here.succeed(&["search", &out, "tides"]).contains("tides#"));
}

#[test]
fn a_writer_at_work_is_left_alone() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let place = Place::new(&documents());
    storage.put(&place.path("corpus.parquet"), "corpus/c.parquet");
    // A process of another machine that writes its lock anew.
    let lock = storage.path("out/LOCK");
    fs::create_dir_all(storage.path("out")).unwrap();
    let hold = |beat: u32| {
        let text = format!("{{\"pid\":1,\"host\":\"elsewhere\",\"nonce\":1,\"beat\":{beat}}}");
        fs::write(&lock, text).unwrap();
    };
    hold(0);
    let here = machine(&place, &storage, "here");
    let build = here.start_build();
    std::thread::sleep(Duration::from_secs(3));
    hold(1);
    let said = told(&build.wait_with_output().unwrap());
    assert!(
        said.contains("another process is writing here (pid 1 on elsewhere)"),
        "{said}"
    );
    assert!(!storage.path("out/generations").exists());
}

#[test]
fn what_is_wrong_is_said_without_secrets() {
    let Some(storage) = Storage::start() else {
        return;
    };
    let place = Place::new(&documents());
    place.write_job("");
    let here = machine(&place, &storage, "here");
    let build = |corpus: &str, output: &str| {
        let corpus = format!("corpus.path={corpus}");
        let output = format!("output.path={output}");
        let said = here.fail(&["build", "job.toml", "--set", &corpus, "--set", &output]);
        assert!(!said.contains(SECRET), "{said}");
        said
    };
    let said = build("s3://bucket/none/*.parquet", "out");
    assert!(
        said.contains("s3://bucket/none/*.parquet: no .parquet file"),
        "{said}"
    );
    let said = build("s3://nobody-has-this/corpus", "out");
    assert!(said.contains("s3://nobody-has-this"), "{said}");
    let said = build(&format!("s3://key:{SECRET}@bucket/corpus"), "out");
    assert!(said.contains("credentials"), "{said}");
    fs::write(place.path("half.parquet"), b"PAR1 and no more").unwrap();
    storage.put(&place.path("half.parquet"), "half/half.parquet");
    let said = build("s3://bucket/half", "out");
    assert!(
        said.contains("s3://bucket/half/half.parquet: not a whole Parquet file"),
        "{said}"
    );
    storage.put(&place.path("half.parquet"), "thesis/chapter.tex");
    let said = build("corpus.parquet", "s3://bucket/thesis");
    assert!(said.contains("did not write"), "{said}");
    assert!(
        here.fail(&["search", "s3://bucket/nothing", "x"])
            .contains("no published index here")
    );
    let said = here.fail(&["search", "s3://bucket/out?sig=a-signature", "x"]);
    assert!(
        said.contains("ends before a `?`") && !said.contains("a-signature"),
        "{said}"
    );
    // A server that was never there is not waited for.
    let begun = Instant::now();
    let nowhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut nobody = here.command(&["generations", "s3://bucket/out"]);
    let output = nobody.env("AWS_ENDPOINT_URL", format!("http://{nowhere}"));
    let said = told(&output.output().unwrap());
    assert!(said.contains("AWS_ENDPOINT_URL where it is set"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(120), "{said}");
    let mut wrong = here.command(&["generations", "s3://bucket/out"]);
    let output = wrong
        .env("AWS_SECRET_ACCESS_KEY", "another-secret")
        .output()
        .unwrap();
    let said = told(&output);
    assert!(
        said.contains("check AWS_ACCESS_KEY_ID") && !said.contains("another-secret"),
        "{said}"
    );
}
