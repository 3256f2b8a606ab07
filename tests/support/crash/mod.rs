//! Kills real builds and looks at what is left of them.

#![allow(dead_code)]

pub mod kept;
pub mod reference;
pub mod watch;

use std::{
    fmt, fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub use kept::Kept;
pub use reference::Reference;

use crate::common::Place;
use watch::Appearance;

/// What a build goes through, as the journal names it; then what no journal names.
pub const STAGES: [&str; 11] = [
    "start",
    "documents",
    "intents",
    "chunks",
    "queries",
    "vectors-text",
    "vectors-queries",
    "index-sparse",
    "index-dense-text",
    "index-dense-queries",
    "publication",
];

/// When to kill.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    After(Duration),
    /// Once [`watch::EVENTS`] of this number happens, and this much later.
    Event(usize, Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Killed,
    /// Done before the moment came; such a kill does not count.
    ByItself,
}

/// One output folder, until it has published a generation.
pub struct Round<'a> {
    place: &'a Place,
    name: String,
    /// The generation to be published.
    number: u64,
}

impl<'a> Round<'a> {
    /// From nothing.
    pub fn new(place: &'a Place, name: &str) -> Self {
        Self {
            place,
            name: name.to_owned(),
            number: 1,
        }
    }

    /// Where the stages are done: a copy of a build that was told to stop there.
    pub fn after_stages(place: &'a Place, name: &str) -> Self {
        copy(place, reference::PREPARED, name);
        Self::new(place, name)
    }

    /// Where an older corpus is published, and most rows can be taken over.
    pub fn update(place: &'a Place, name: &str) -> Self {
        copy(place, reference::PREVIOUS, name);
        Self {
            number: 2,
            ..Self::new(place, name)
        }
    }

    pub fn root(&self) -> PathBuf {
        self.place.path(&self.name)
    }

    /// The generation, under whichever name it has got to.
    pub fn folder(&self) -> PathBuf {
        let generations = self.root().join("generations");
        let numbered = generations.join(self.number.to_string());
        match numbered.exists() {
            true => numbered,
            false => generations.join("building"),
        }
    }

    pub fn is_published(&self) -> bool {
        let current = fs::read_to_string(self.root().join("CURRENT"));
        current.is_ok_and(|text| text == format!("{}\n", self.number))
    }

    /// What a reader sees at any moment: no index, or a whole one.
    pub fn check_current(&self) {
        let Ok(text) = fs::read_to_string(self.root().join("CURRENT")) else {
            return;
        };
        let manifest = self
            .root()
            .join("generations")
            .join(text.trim())
            .join("manifest.json");
        let bytes = fs::read(&manifest)
            .unwrap_or_else(|e| panic!("CURRENT is {text:?}, but {}: {e}", manifest.display()));
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
    }

    /// Runs the build until it ends or the moment comes.
    pub fn run_until(&self, moment: Moment) -> Ended {
        let log = self.place.path(&format!("{}.log", self.name));
        let mut child = start(self.place, &self.name, &[], &log);
        let appearance = Appearance::new(&self.root());
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                let said = fs::read_to_string(&log).unwrap();
                assert!(status.success(), "{status}: {said}");
                return Ended::ByItself;
            }
            self.check_current();
            match moment {
                Moment::After(delay) if begin.elapsed() >= delay => break,
                Moment::After(delay) => {
                    std::thread::sleep(
                        (delay - begin.elapsed().min(delay)).min(Duration::from_millis(20)),
                    );
                }
                Moment::Event(event, delay) if appearance.happened(event) => {
                    std::thread::sleep(delay);
                    break;
                }
                Moment::Event(..) => std::thread::sleep(Duration::from_micros(100)),
            }
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        self.check_current();
        match status.signal() {
            Some(9) => Ended::Killed,
            _ => Ended::ByItself,
        }
    }

    /// Lets the build end, and compares what is published with the reference.
    pub fn finish_and_compare(&self, reference: &Reference, kept: &Kept, crashes: &mut Crashes) {
        if !self.is_published() || journal_of(&self.folder()).exists() {
            let ended = self.run_until(Moment::After(Duration::from_secs(600)));
            assert_eq!(ended, Ended::ByItself, "the build does not end");
        }
        assert!(self.is_published());
        let generations = self.root().join("generations");
        let another = generations.join((self.number + 1).to_string());
        assert!(!another.exists(), "built twice");
        assert!(!journal_of(&self.folder()).exists());
        kept.check(&self.folder());
        crashes.kept += kept.len();
        crashes.rounds += 1;
        reference.compare(self.place, &self.name, self.number);
        let verified = self.place.run(&["verify", &self.name]);
        let said = String::from_utf8_lossy(&verified.stdout);
        assert_eq!(verified.status.code(), Some(0), "{said}");
        fs::remove_dir_all(self.root()).unwrap();
    }

    /// The stage, as an index into [`STAGES`], that the build had got to.
    fn reached(&self) -> usize {
        let folder = self.folder();
        let publication = STAGES.len() - 1;
        if self.is_published() || folder.join("run.json").exists() {
            return publication;
        }
        let Some(done) = kept::journal(&folder) else {
            return 0;
        };
        let shards = kept::parts(&folder.join("documents")).len();
        let is_done = |stage: &str| {
            let lines = done.iter().filter(|(name, _)| name == stage);
            let (whole, parts): (Vec<_>, Vec<_>) = lines.partition(|(_, shard)| shard.is_none());
            !whole.is_empty() || (parts.len() == shards && shards > 0)
        };
        let missing = (1..publication).find(|i| !is_done(STAGES[*i]));
        missing.unwrap_or(publication)
    }
}

fn journal_of(folder: &Path) -> PathBuf {
    folder.join("journal.ndjson")
}

pub fn copy(place: &Place, from: &str, to: &str) {
    let status = Command::new("cp")
        .arg("-a")
        .args([place.path(from), place.path(to)])
        .status();
    assert!(status.unwrap().success());
}

/// Starts a build; what it says goes to a file, as nobody reads a pipe here.
pub fn start(place: &Place, output: &str, more: &[&str], log: &Path) -> Child {
    let log = fs::File::create(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_intendex"));
    // SAFETY: `signal` may be called between fork and exec. Tests that run in the background have SIGINT ignored, and
    // their children inherit that.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        });
    }
    command
        .current_dir(place.path(""))
        .args([
            "build",
            "job.toml",
            "--set",
            &format!("output.path={output}"),
        ])
        .args(more)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What was hit.
#[derive(Debug, Default)]
pub struct Crashes {
    by_stage: [usize; STAGES.len()],
    pub rounds: usize,
    /// Files that were finished before a kill and are the same files in the published generation.
    pub kept: usize,
}

impl Crashes {
    pub fn count(&mut self, round: &Round) {
        self.by_stage[round.reached()] += 1;
    }

    pub fn kills(&self) -> usize {
        self.by_stage.iter().sum()
    }
}

impl fmt::Display for Crashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = STAGES.iter().zip(self.by_stage);
        let stages: Vec<String> = stages.map(|(name, n)| format!("{name} {n}")).collect();
        write!(
            f,
            "{} kills in {} rounds, {} of them during publication ({}); {} finished files taken over, none computed twice",
            self.kills(),
            self.rounds,
            self.by_stage[STAGES.len() - 1],
            stages.join(", "),
            self.kept,
        )
    }
}
