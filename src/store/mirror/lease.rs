//! Who may write an output on object storage: the holder of `LOCK`, which it writes anew every few seconds.
//!
//! No clocks are compared. Who wants the lock of another watches it: one that does not change for [`PATIENCE`] is of a process that
//! has ended, and is replaced. A process of this machine is looked for instead. A holder that was only slow, and lost its lock, finds
//! out: its journal's next piece is there already, and `CURRENT` is not what it was.

use std::{
    fs, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    objects::{If, Objects, Version},
    store::{StoreError, generation::LOCK, machine::host},
};

const BEAT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_secs(1);

/// The content of `LOCK`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    /// When the process began, so that another one of its number is not taken for it.
    began: Option<String>,
    /// The machine since it started, and whom its process numbers are for.
    machine: Option<String>,
    /// Unlike any other's.
    nonce: u64,
    /// Makes each version another.
    beat: u64,
}

/// Age of the last beat from which the lock may be another's.
const STALE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Lease {
    objects: Objects,
    nonce: u64,
    is_lost: Arc<AtomicBool>,
    last_beat: Arc<Mutex<Instant>>,
    stop: Option<mpsc::Sender<()>>,
    beating: Option<JoinHandle<()>>,
}

impl Lease {
    pub fn take(objects: &Objects) -> Result<Self, StoreError> {
        let mut holder = Holder::this();
        let nonce = holder.nonce;
        let version = holder.acquire(objects)?;
        let is_lost = Arc::new(AtomicBool::new(false));
        let last_beat = Arc::new(Mutex::new(Instant::now()));
        let (stop, stopped) = mpsc::channel();
        let (lost, last, remote) = (is_lost.clone(), last_beat.clone(), objects.once());
        let beat = move || {
            let mut version = version;
            holder.beat += 1;
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                match remote.put_if(LOCK, holder.bytes(), If::Still(version.clone())) {
                    Ok(Some(next)) => {
                        version = next;
                        holder.beat += 1;
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    }
                    Ok(None) => {
                        lost.store(true, Ordering::SeqCst);
                        return;
                    }
                    // The next beat may come through; until then others see no change.
                    Err(error) => tracing::warn!("{error}"),
                }
            }
        };
        let beating = thread::Builder::new().name("lease".into()).spawn(beat);
        Ok(Self {
            objects: objects.clone(),
            nonce,
            is_lost,
            last_beat,
            stop: Some(stop),
            beating: Some(beating.map_err(StoreError::io(LOCK.as_ref()))?),
        })
    }

    /// Fails if another process has taken over. Where the last beat is long ago, the storage is asked.
    pub fn check(&self) -> Result<(), StoreError> {
        let last = *self
            .last_beat
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_ours = !self.is_lost.load(Ordering::SeqCst)
            && (last.elapsed() < STALE || self.is_ours(&self.objects)?);
        self.judge(is_ours)
    }

    /// Fails if the storage does not have this process's lock now: before what cannot be taken back.
    pub fn make_sure(&self) -> Result<(), StoreError> {
        self.judge(self.is_ours(&self.objects)?)
    }

    fn is_ours(&self, objects: &Objects) -> Result<bool, StoreError> {
        let there = objects.get(LOCK)?;
        let holder = there.and_then(|(bytes, _)| serde_json::from_slice::<Holder>(&bytes).ok());
        Ok(holder.is_some_and(|holder| holder.nonce == self.nonce))
    }

    fn judge(&self, is_ours: bool) -> Result<(), StoreError> {
        match is_ours {
            true => Ok(()),
            false => Err(StoreError::Invalid {
                path: self.objects.address(LOCK).into(),
                message: "another process has taken over, as this one was not heard of; it goes on with what was done here".into(),
            }),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(beating) = self.beating.take() {
            let _ = beating.join();
        }
        // One that stays is found to be of an ended process.
        let objects = self.objects.once();
        if self.is_ours(&objects).unwrap_or(false) {
            let _ = objects.remove(&[LOCK.to_owned()]);
        }
    }
}

impl Holder {
    fn this() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            host: host().unwrap_or_default(),
            began: began(pid),
            machine: machine().ok(),
            nonce: rand::random(),
            beat: 0,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn acquire(&self, objects: &Objects) -> Result<Version, StoreError> {
        let mut seen: Option<(Vec<u8>, Instant)> = None;
        loop {
            if let Some(version) = objects.put_if(LOCK, self.bytes(), If::Absent)? {
                return Ok(version);
            }
            let Some((bytes, version)) = objects.get(LOCK)? else {
                continue;
            };
            let other: Option<Holder> = serde_json::from_slice(&bytes).ok();
            let has_ended = other
                .as_ref()
                .is_some_and(|other| self.sees_the_end_of(other));
            let waited = match &seen {
                Some((first, since)) if *first == bytes => since.elapsed(),
                Some(_) => {
                    return Err(StoreError::Locked {
                        path: objects.address("").into(),
                        holder: name(other.as_ref()),
                    });
                }
                None => {
                    if !has_ended {
                        let (address, holder) = (objects.address(LOCK), name(other.as_ref()));
                        tracing::warn!(
                            "{address} is held by {holder}; waiting up to {} s to see whether it is alive",
                            PATIENCE.as_secs()
                        );
                    }
                    seen = Some((bytes.to_vec(), Instant::now()));
                    Duration::ZERO
                }
            };
            if has_ended || waited >= PATIENCE {
                if let Some(version) = objects.put_if(LOCK, self.bytes(), If::Still(version))? {
                    return Ok(version);
                }
                continue;
            }
            thread::sleep(LOOK);
        }
    }

    /// Whether the other was a process of this machine, and is no more.
    fn sees_the_end_of(&self, other: &Holder) -> bool {
        let is_here = self.machine.is_some() && self.machine == other.machine;
        is_here && (began(other.pid).is_none() || began(other.pid) != other.began)
    }
}

fn name(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("pid {} on {}", holder.pid, holder.host),
        None => "a process that does not say who it is".into(),
    }
}

fn machine() -> io::Result<String> {
    let started = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let processes = fs::read_link("/proc/self/ns/pid")?;
    Ok(format!("{} {}", started.trim(), processes.display()))
}

/// When a process began, in ticks since the machine started; None: there is none of this number.
fn began(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(19).map(str::to_owned)
}
