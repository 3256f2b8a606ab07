//! A real S3 server on loopback (s3s-fs), whose buckets are folders.

use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub const SECRET: &str = "a-secret-that-is-never-shown";
const BUCKET: &str = "bucket";

/// The server, ended when this goes.
pub struct Storage {
    root: TempDir,
    program: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Storage {
    /// None, said aloud, where the server is not installed.
    pub fn start() -> Option<Self> {
        let Some(program) = std::env::var_os("INTENDEX_S3_SERVER") else {
            let line =
                b"SKIPPED: no S3 server; `make test` installs one, or set INTENDEX_S3_SERVER\n";
            let _ = std::io::stderr().write_all(line);
            return None;
        };
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut storage = Self {
            root,
            program: program.into(),
            port: listener.local_addr().unwrap().port(),
            process: None,
        };
        drop(listener);
        storage.up();
        Some(storage)
    }

    /// Starts it, or starts it again.
    pub fn up(&mut self) {
        let port = self.port.to_string();
        let child = Command::new(&self.program)
            .args(["--host", "127.0.0.1", "--port", &port])
            .args(["--access-key", "key", "--secret-key", SECRET])
            .arg(self.root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(child.unwrap());
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no server");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it with kill -9.
    pub fn down(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Where an object of the bucket lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(name)
    }

    pub fn address(&self, name: &str) -> String {
        format!("s3://{BUCKET}/{name}")
    }

    pub fn put(&self, from: &Path, name: &str) {
        let to = self.path(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }

    /// What a process needs to reach it, with a mirror of this name.
    pub fn environment(&self, mirror: &Path) -> Vec<(&'static str, String)> {
        vec![
            (
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.port),
            ),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_ACCESS_KEY_ID", "key".into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("AWS_REGION", "us-east-1".into()),
            ("INTENDEX_CACHE", mirror.display().to_string()),
        ]
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.down();
    }
}
