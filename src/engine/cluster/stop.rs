//! Ends a function in the middle of a batch, which may be an hour's work.

use std::{
    cell::RefCell,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::job::Progress;

thread_local! {
    /// Whether the work of this thread is to end.
    static CURRENT: RefCell<Stop> = RefCell::default();
}

#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Does work that ends, by unwinding, where it tells its progress after the stop.
    pub fn during<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.set(self);
        let result = work();
        CURRENT.take();
        result
    }

    /// Stops the work when it goes.
    pub fn on_drop(&self) -> impl Drop + Send + use<> {
        Guard(self.clone())
    }
}

struct Guard(Stop);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Shows nothing. Functions tell it after each group of rows, when they hold nothing that unwinding would leave in pieces.
pub struct Stoppable;

impl Progress for Stoppable {
    fn start(&self, _: &str, _: u64, _: &str) {}

    fn advance(&self, _: u64) {
        if CURRENT.with_borrow(|stop| stop.0.load(Ordering::Relaxed)) {
            resume_unwind(Box::new("stopped"));
        }
    }

    fn finish(&self) {}
}
