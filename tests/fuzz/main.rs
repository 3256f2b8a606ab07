//! Rubbish of three kinds, made from what is nearly right: job files, Parquet files, text. None may end in a panic.
//!
//! INTENDEX_FUZZ says how many inputs of each kind (default 300).

mod jobs;
mod parquet_files;
mod texts;

use std::cell::Cell;

use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};

/// Runs `test` on as many inputs as asked for, and returns how many it was true for.
fn campaign<S: Strategy>(
    inputs: &S,
    test: impl Fn(S::Value) -> Result<bool, TestCaseError>,
) -> (u32, u32) {
    let cases = std::env::var("INTENDEX_FUZZ").map_or(300, |n| n.parse().unwrap());
    let counted = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(inputs, |input| {
        counted.set(counted.get() + u32::from(test(input)?));
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    (cases, counted.get())
}
