//! Memory that this process holds for itself, where the system tells. Pages of mapped files are not counted: the
//! system takes them back when it needs them.

use std::{
    fs,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

static PEAK: AtomicU64 = AtomicU64::new(0);
static WATCH: Once = Once::new();

/// The system keeps no such maximum, so it is sampled; what lives shorter may be missed.
const EVERY: Duration = Duration::from_millis(20);

/// Highest memory in bytes since the last reset; None where the system does not tell.
pub fn peak_bytes() -> Option<u64> {
    sample();
    Some(PEAK.load(Ordering::Relaxed)).filter(|peak| *peak > 0)
}

/// Starts a new maximum, of what is still in use: what earlier work has freed goes back to the system.
pub fn reset_peak() {
    // SAFETY: takes nothing away that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    PEAK.store(0, Ordering::Relaxed);
    sample();
    WATCH.call_once(|| {
        let watch = || loop {
            sample();
            thread::sleep(EVERY);
        };
        // Without the thread the ends of a piece of work are sampled still.
        let _ = thread::Builder::new().name("memory".into()).spawn(watch);
    });
}

fn sample() {
    if let Some(bytes) = own_bytes() {
        PEAK.fetch_max(bytes, Ordering::Relaxed);
    }
}

/// Resident pages less those of mapped files.
fn own_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    // SAFETY: asks for a constant.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(resident.saturating_sub(shared) * u64::try_from(page).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_is_seen_after_what_made_it_is_gone() {
        reset_peak();
        let before = peak_bytes().unwrap();
        let held = vec![1u8; 64 << 20];
        thread::sleep(3 * EVERY);
        drop(std::hint::black_box(held));
        assert!(peak_bytes().unwrap() >= before.max(64 << 20));
    }
}
