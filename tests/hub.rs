//! Models by hub id, against a small imitation of the hub on loopback: downloads, the pinned revision, the offline switch.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    thread,
};

use assert_cmd::Command;
use candle_core::quantized::GgmlDType;
use common::tiny;
use serde_json::json;
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";
const FILES: [&str; 5] = [
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "modules.json",
    "tiny.gguf",
];

/// Serves the model acme/tiny at one commit; acme/gated to those with the token only.
struct Hub {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    files: TempDir,
    home: TempDir,
}

impl Hub {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        tiny::embedder(files.path(), "");
        tiny::generator(&files.path().join("tiny.gguf"), GgmlDType::F32);
        fs::write(files.path().join("modules.json"), "[]").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (folder, seen, base) = (files.path().to_owned(), requests.clone(), url.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &folder, &base, &seen);
            }
        });
        Self {
            url,
            requests,
            files,
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::cargo_bin("intendex").unwrap();
        command
            .env("HF_ENDPOINT", &self.url)
            .env("HF_HOME", self.home.path())
            .args(arguments);
        command.env_remove("HF_TOKEN").current_dir(self.home.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The paths asked for since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn snapshot(&self, id: &str) -> PathBuf {
        let name = format!("models--{}", id.replace('/', "--"));
        self.home
            .path()
            .join("hub")
            .join(name)
            .join("snapshots")
            .join(COMMIT)
    }

    /// A job on acme/tiny, and what `models check` says of it.
    fn check(&self, offline: bool) -> Output {
        let job = format!(
            "version = 1\nname = \"hub\"\n[corpus]\npath = \"none.parquet\"\n[output]\npath = \"out\"\n\
             [models]\ndevice = \"cpu\"\noffline = {offline}\n\
             [models.embedder]\nmodel = \"acme/tiny\"\nrevision = \"{COMMIT}\"\n\
             [models.generator]\nmodel = \"acme/tiny\"\nfile = \"tiny.gguf\"\nrevision = \"{COMMIT}\"\n"
        );
        fs::write(self.home.path().join("job.toml"), job).unwrap();
        self.run(&["models", "check", "job.toml"])
    }
}

fn answer(mut stream: TcpStream, folder: &Path, base: &str, seen: &Mutex<Vec<String>>) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let path = head.split_whitespace().nth(1).unwrap().to_owned();
    seen.lock().unwrap().push(path.clone());
    let lower = head.to_lowercase();
    let from = lower
        .lines()
        .find_map(|l| l.strip_prefix("range: bytes=")?.split('-').next());
    let allowed = head.contains(&format!("Bearer {TOKEN}"));
    let (status, headers, body) = respond(&path, folder, base, from.unwrap_or("0"), allowed);
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .unwrap();
    // A client that wanted one byte hangs up.
    let _ = stream.write_all(&body);
}

fn respond(
    path: &str,
    folder: &Path,
    base: &str,
    from: &str,
    allowed: bool,
) -> (u16, String, Vec<u8>) {
    let nothing = |status| (status, String::new(), b"no".to_vec());
    if path.contains("acme/gated") && !allowed {
        return nothing(401);
    }
    let tiny = path.replace("acme/gated", "acme/tiny");
    if tiny == format!("/api/models/acme/tiny/revision/{COMMIT}") {
        let siblings: Vec<_> = FILES.iter().map(|f| json!({ "rfilename": f })).collect();
        let list = json!({ "siblings": siblings, "sha": COMMIT });
        return (200, String::new(), list.to_string().into_bytes());
    }
    let large = tiny.strip_prefix("/storage/");
    let name = large.or_else(|| tiny.strip_prefix(&format!("/acme/tiny/resolve/{COMMIT}/")));
    let Some(name) = name.filter(|name| FILES.contains(name)) else {
        return nothing(404);
    };
    let commit = format!("X-Repo-Commit: {COMMIT}\r\nETag: \"etag-of-{name}\"\r\n");
    // The hub keeps large files elsewhere.
    if large.is_none() && name.ends_with(".safetensors") {
        let location = format!("{commit}Location: {base}/storage/{name}\r\n");
        return (302, location, Vec::new());
    }
    let Ok(bytes) = fs::read(folder.join(name)) else {
        return nothing(500);
    };
    let from: usize = from.parse().unwrap();
    let range = format!(
        "{commit}Content-Range: bytes {from}-{0}/{1}\r\n",
        bytes.len() - 1,
        bytes.len()
    );
    (206, range, bytes[from..].to_vec())
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn printed(output: &Output) -> &str {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
    std::str::from_utf8(&output.stdout).unwrap().trim()
}

#[test]
fn a_model_is_fetched_once_and_then_needs_no_network() {
    let hub = Hub::new();
    let output = hub.check(false);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    for name in FILES {
        let fetched = fs::read(hub.snapshot("acme/tiny").join(name)).unwrap();
        let served = fs::read(hub.files.path().join(name)).unwrap();
        assert_eq!(fetched, served, "{name}");
        assert!(said(&output).contains(name), "{}", said(&output));
    }
    assert!(
        hub.asked()
            .iter()
            .all(|path| path.contains(COMMIT) || path.starts_with("/storage/"))
    );
    assert_eq!(hub.check(true).stdout, output.stdout);
    assert_eq!(hub.asked(), [""; 0], "offline, the hub was asked");

    let listed = hub.run(&["models", "list"]);
    let listed = printed(&listed);
    assert!(
        listed.starts_with(&format!("acme/tiny@{COMMIT}\t")),
        "{listed}"
    );
}

#[test]
fn an_optional_file_that_cannot_be_had_is_no_reason_to_pool_otherwise() {
    let hub = Hub::new();
    assert_eq!(hub.check(false).status.code(), Some(0));
    fs::remove_file(hub.snapshot("acme/tiny").join("modules.json")).unwrap();
    fs::remove_file(hub.files.path().join("modules.json")).unwrap();
    let output = hub.check(false);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("modules.json"), "{}", said(&output));
}

#[test]
fn offline_an_absent_file_is_named_with_the_way_to_fetch_it() {
    let hub = Hub::new();
    let output = hub.check(true);
    assert_eq!(output.status.code(), Some(2));
    let said = said(&output);
    let way = format!("intendex models path acme/tiny@{COMMIT}");
    assert!(
        said.contains("config.json") && said.contains(&way),
        "{said}"
    );
    assert_eq!(hub.asked(), [""; 0], "offline, the hub was asked");
}

#[test]
fn the_way_to_fetch_works_for_folders_and_single_files() {
    let hub = Hub::new();
    let snapshot = hub.snapshot("acme/tiny");
    let output = hub.run(&["models", "path", &format!("acme/tiny@{COMMIT}")]);
    assert_eq!(printed(&output), snapshot.display().to_string());
    let output = hub.run(&["models", "path", &format!("acme/tiny@{COMMIT}/tiny.gguf")]);
    assert_eq!(
        printed(&output),
        snapshot.join("tiny.gguf").display().to_string()
    );
    assert_eq!(hub.check(true).status.code(), Some(0));
}

#[test]
fn a_cache_that_python_filled_is_used() {
    let hub = Hub::new();
    assert_eq!(hub.check(false).status.code(), Some(0));
    // huggingface_hub writes a ref for a branch, and none for a commit.
    fs::remove_dir_all(hub.snapshot("acme/tiny").join("../../refs")).unwrap();
    let output = hub.check(true);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn what_the_hub_refuses_is_said_with_the_remedy() {
    let hub = Hub::new();
    let gated = format!("acme/gated@{COMMIT}");
    let output = hub.run(&["models", "path", &gated]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("HF_TOKEN"), "{}", said(&output));
    let output = hub
        .command(&["models", "path", &gated])
        .env("HF_TOKEN", TOKEN)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));

    let other = COMMIT.replace('0', "f");
    let output = hub.run(&["models", "path", &format!("acme/tiny@{other}")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("check its id, its revision"),
        "{}",
        said(&output)
    );
    let output = hub.run(&["models", "path", "acme/tiny@main"]);
    assert!(said(&output).contains("a commit hash"), "{}", said(&output));
}
