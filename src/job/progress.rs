//! How a running stage tells how far it is; who shows it, and how, is the command line's business.

/// Receives the progress of one stage after another, from any thread.
pub trait Progress: Send + Sync {
    /// A stage begins; `total` is how many `unit`s it will do, 0 when that is not known.
    fn start(&self, stage: &str, total: u64, unit: &str);
    /// `n` more units are done.
    fn advance(&self, n: u64);
    /// The stage that began last is over.
    fn finish(&self);
}

/// Shows nothing.
impl Progress for () {
    fn start(&self, _stage: &str, _total: u64, _unit: &str) {}
    fn advance(&self, _n: u64) {}
    fn finish(&self) {}
}
