//! The job file: as written (`spec`), read (`load`) and judged (`check`).
//!
//! Relative paths in a job file are relative to the working directory, as they are for make, not to the file.

mod check;
mod env;
pub mod error;
mod failures;
mod keys;
mod load;
mod overrides;
pub mod progress;
pub mod schema;
pub mod spec;

pub use error::{JobError, Problem};
pub use failures::MaxFailures;
pub use keys::nearest;
pub use progress::Progress;
pub use spec::Job;
