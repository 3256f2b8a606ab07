//! The `intendex` program: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    intendex::cli::main()
}
