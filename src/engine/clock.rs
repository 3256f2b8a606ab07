//! The time in which at least one of several threads is at some work.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Counts calls that overlap once. Clones share the time.
#[derive(Clone, Default)]
pub struct Clock(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    under_way: usize,
    /// When the first of those began.
    since: Option<Instant>,
    /// Before that.
    total: Duration,
}

impl Clock {
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut state = self.state();
        state.under_way += 1;
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        // Ends even if the work panics.
        let _running = Running(self);
        work()
    }

    pub fn read(&self) -> Duration {
        let state = self.state();
        state.total + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running<'a>(&'a Clock);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way -= 1;
        if state.under_way == 0
            && let Some(since) = state.since.take()
        {
            state.total += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{panic, thread::sleep};

    use super::*;

    const WHILE: Duration = Duration::from_millis(100);

    #[test]
    fn calls_that_overlap_count_once() {
        let clock = Clock::default();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| clock.time(|| clock.time(|| sleep(WHILE))));
            }
        });
        let most = start.elapsed();
        assert!(clock.read() >= WHILE && clock.read() <= most);
        let before = clock.read();
        sleep(WHILE);
        assert_eq!(clock.read(), before, "nothing is under way");
        let broken = panic::catch_unwind(panic::AssertUnwindSafe(|| clock.time(|| panic!())));
        assert!(broken.is_err());
        let before = clock.read();
        sleep(WHILE);
        assert_eq!(clock.read(), before, "what panicked has ended");
    }
}
