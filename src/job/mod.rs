//! The job file: as written (`spec`), and resolved (`plan`).

pub mod spec;

pub use spec::Job;
