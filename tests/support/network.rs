//! Machines of their own as far as the network goes: namespaces (Linux, root) joined by a bridge.

use std::{
    cell::Cell, io::ErrorKind, net::TcpStream, path::Path, process::Command, thread, time::Duration,
};

/// Gone, with its machines, when this goes.
pub struct Network {
    bridge: String,
    /// The first three numbers of its addresses.
    subnet: String,
    machines: Cell<u8>,
}

/// One that processes run on.
pub struct Machine {
    /// None: this one.
    namespace: Option<String>,
    pub address: String,
}

impl Network {
    /// What the system says where it allows none.
    pub fn new() -> Result<Self, String> {
        let number = std::process::id();
        let network = Self {
            bridge: format!("ix{number}"),
            subnet: format!("10.213.{}", number % 250),
            machines: Cell::new(1),
        };
        let (bridge, subnet) = (&network.bridge, &network.subnet);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {subnet}.1/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        Ok(network)
    }

    /// Another machine.
    pub fn machine(&self) -> Result<Machine, String> {
        let number = self.machines.get() + 1;
        self.machines.set(number);
        let (bridge, namespace) = (&self.bridge, format!("{}-{number}", self.bridge));
        let address = format!("{}.{number}", self.subnet);
        ip(&format!("netns add {namespace}"))?;
        ip(&format!(
            "link add {namespace} type veth peer name eth0 netns {namespace}"
        ))?;
        ip(&format!("link set {namespace} master {bridge} up"))?;
        ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        Ok(Machine {
            namespace: Some(namespace),
            address,
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for number in 2..=self.machines.get() {
            let _ = ip(&format!("netns del {}-{number}", self.bridge));
        }
        let _ = ip(&format!("link del {}", self.bridge));
    }
}

impl Machine {
    pub fn here() -> Self {
        Self {
            namespace: None,
            address: "127.0.0.1".into(),
        }
    }

    /// Takes its cable out for a while; what runs there goes on.
    pub fn unplugged(&self, time: Duration) -> Result<(), String> {
        let namespace = self.namespace.as_ref().ok_or("this machine has no cable")?;
        ip(&format!("link set {namespace} down"))?;
        // Nothing listens there, which a machine that can be reached says at once.
        let address = format!("{}:9", self.address).parse().unwrap();
        let told = TcpStream::connect_timeout(&address, Duration::from_secs(2)).unwrap_err();
        assert_ne!(told.kind(), ErrorKind::ConnectionRefused);
        thread::sleep(time);
        ip(&format!("link set {namespace} up"))
    }

    /// Runs a program there.
    pub fn command(&self, program: &Path) -> Command {
        let Some(namespace) = &self.namespace else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|e| format!("ip: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}
