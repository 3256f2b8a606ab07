//! A Ballista cluster of real processes.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    common::Place,
    network::{Machine, Network},
};

/// A scheduler and executors, ended when this goes.
pub struct Cluster<'a> {
    place: &'a Place,
    /// Variables of its processes.
    environment: Vec<(&'static str, String)>,
    /// The scheduler's machine and port, and the name that executors know it by.
    machine: Machine,
    port: u16,
    pub host: String,
    pub scheduler: Option<Process>,
    pub executors: Vec<Process>,
    /// Where they run, in the same order.
    pub machines: Vec<Machine>,
    /// Where each process has a machine of its own.
    network: Option<Network>,
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
        Self::on(None, place, executors, environment)
    }

    /// With a network namespace for each process, where the system allows it.
    pub fn start_apart(place: &'a Place, executors: usize) -> Self {
        let network = Network::new();
        let network = network.inspect_err(|e| println!("NO NETWORK NAMESPACES, ON LOOPBACK: {e}"));
        Self::on(network.ok(), place, executors, Vec::new())
    }

    fn on(
        network: Option<Network>,
        place: &'a Place,
        executors: usize,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let machine = machine(network.as_ref());
        let mut cluster = Self {
            place,
            environment,
            port: ports(1),
            host: machine.address.clone(),
            machine,
            scheduler: None,
            executors: Vec::new(),
            machines: Vec::new(),
            network,
        };
        cluster.schedule();
        (0..executors).for_each(|_| _ = cluster.join(&place.path("")));
        cluster
    }

    /// Starts the scheduler, or another one in its place.
    pub fn schedule(&mut self) {
        let listen = format!("{}:{}", self.machine.address, self.port);
        let arguments = ["scheduler", "--listen", &listen, "--host", &self.host];
        self.scheduler = None;
        let folder = self.place.path("");
        let scheduler = self.process(&self.machine, &folder, &arguments, "scheduler");
        self.scheduler = Some(scheduler);
    }

    /// Starts an executor in this folder, and gives its address.
    pub fn join(&mut self, folder: &Path) -> String {
        self.join_with(folder, &["--tasks", "1"])
    }

    pub fn join_with(&mut self, folder: &Path, more: &[&str]) -> String {
        let machine = machine(self.network.as_ref());
        let listen = format!("{}:{}", machine.address, ports(2));
        let url = self.url();
        let own = ["executor", "--scheduler", &url, "--listen", &listen];
        let arguments = [&own[..], more].concat();
        let log = format!("executor-{}", listen.replace(':', "-"));
        let executor = self.process(&machine, folder, &arguments, &log);
        self.executors.push(executor);
        self.machines.push(machine);
        listen
    }

    fn process(&self, machine: &Machine, folder: &Path, arguments: &[&str], log: &str) -> Process {
        let mut command = machine.command(&assert_cmd::cargo::cargo_bin("intendex"));
        command.envs(self.environment.iter().cloned());
        run(command, self.place, folder, arguments, log)
    }

    /// Whether each process has a network of its own.
    pub fn is_apart(&self) -> bool {
        self.network.is_some()
    }

    fn url(&self) -> String {
        format!("df://{}:{}", self.machine.address, self.port)
    }

    /// The setting of a job that runs here.
    pub fn setting(&self) -> String {
        format!("engine.cluster={}", self.url())
    }
}

/// Another machine of a network, or this one.
fn machine(network: Option<&Network>) -> Machine {
    network.map_or_else(Machine::here, |network| network.machine().unwrap())
}

/// Starts the program in a folder; what it says goes to a log of this name in the place.
pub fn start(place: &Place, folder: &Path, arguments: &[&str], log: &str) -> Process {
    let program = assert_cmd::cargo::cargo_bin("intendex");
    run(
        Machine::here().command(&program),
        place,
        folder,
        arguments,
        log,
    )
}

fn run(
    mut command: Command,
    place: &Place,
    folder: &Path,
    arguments: &[&str],
    log: &str,
) -> Process {
    let log = place.path(&format!("{log}.log"));
    let log = fs::File::options().create(true).append(true).open(log);
    let child = command
        .current_dir(folder)
        .args(arguments)
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
