//! The machine a build ran on, as far as the system tells.

use std::fs;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    pub host: Option<String>,
    /// The processor's name for itself.
    pub cpu: Option<String>,
    pub memory_bytes: Option<u64>,
    /// Of this build.
    pub threads: usize,
    /// Where the models ran: `cpu`, or a GPU.
    pub device: String,
    /// Highest of all stages.
    pub peak_memory_bytes: Option<u64>,
}

impl Machine {
    /// This one; nothing of the build yet.
    pub fn here() -> Self {
        Self {
            host: host(),
            cpu: value("/proc/cpuinfo", "model name"),
            memory_bytes: value("/proc/meminfo", "MemTotal").and_then(|text| bytes(&text)),
            ..Self::default()
        }
    }
}

pub fn host() -> Option<String> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(host.trim().to_owned())
}

/// The first line of this name.
fn value(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn bytes(kilobytes: &str) -> Option<u64> {
    let number: u64 = kilobytes.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(number * 1024)
}
