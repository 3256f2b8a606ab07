//! A Ballista cluster of real processes.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::common::Place;

/// A scheduler and executors, ended when this goes.
pub struct Cluster<'a> {
    place: &'a Place,
    /// Variables of its processes.
    environment: Vec<(&'static str, String)>,
    port: u16,
    /// Where executors tell the scheduler of their tasks.
    pub host: &'static str,
    pub scheduler: Option<Process>,
    pub executors: Vec<Process>,
}

pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'a> Cluster<'a> {
    pub fn start(place: &'a Place, executors: usize) -> Self {
        Self::start_with(place, executors, Vec::new())
    }

    pub fn start_with(
        place: &'a Place,
        executors: usize,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let mut cluster = Self {
            place,
            environment,
            port: ports(1),
            host: "127.0.0.1",
            scheduler: None,
            executors: Vec::new(),
        };
        cluster.schedule();
        (0..executors).for_each(|_| _ = cluster.join(&place.path("")));
        cluster
    }

    /// Starts the scheduler, or another one in its place.
    pub fn schedule(&mut self) {
        let listen = format!("127.0.0.1:{}", self.port);
        let arguments = ["scheduler", "--listen", &listen, "--host", self.host];
        self.scheduler = None;
        let folder = self.place.path("");
        self.scheduler = Some(self.process(&folder, &arguments, "scheduler"));
    }

    /// Starts an executor in this folder, and gives its address.
    pub fn join(&mut self, folder: &Path) -> String {
        let listen = format!("127.0.0.1:{}", ports(2));
        let url = self.url();
        let arguments = [
            "executor",
            "--scheduler",
            &url,
            "--listen",
            &listen,
            "--tasks",
            "1",
        ];
        let log = format!("executor-{}", listen.replace(':', "-"));
        let executor = self.process(folder, &arguments, &log);
        self.executors.push(executor);
        listen
    }

    fn process(&self, folder: &Path, arguments: &[&str], log: &str) -> Process {
        start(self.place, folder, arguments, log, &self.environment)
    }

    fn url(&self) -> String {
        format!("df://127.0.0.1:{}", self.port)
    }

    /// The setting of a job that runs here.
    pub fn setting(&self) -> String {
        format!("engine.cluster={}", self.url())
    }
}

/// Starts the program in a folder; what it says goes to a log of this name in the place.
pub fn start(
    place: &Place,
    folder: &Path,
    arguments: &[&str],
    log: &str,
    environment: &[(&'static str, String)],
) -> Process {
    let log = place.path(&format!("{log}.log"));
    let log = fs::File::options().create(true).append(true).open(log);
    let child = Command::new(assert_cmd::cargo::cargo_bin("intendex"))
        .current_dir(folder)
        .args(arguments)
        .envs(environment.iter().cloned())
        .stdout(Stdio::null())
        .stderr(log.unwrap())
        .spawn();
    Process(child.unwrap())
}

/// What all processes have said.
pub fn logs(place: &Place) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(place.path("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "log") {
            let said = fs::read_to_string(&path).unwrap();
            all += &format!("{}:\n{said}\n", path.display());
        }
    }
    all
}

/// The first of so many ports in a row that are free.
fn ports(count: u16) -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let others = (1..count).all(|i| TcpListener::bind(("127.0.0.1", port + i)).is_ok());
        if others {
            return port;
        }
    }
}
