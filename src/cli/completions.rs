//! `intendex completions`: a script for the shell.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, ExitStatus};

/// Prints a completion script.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell it is for.
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: CompletionsArgs) -> anyhow::Result<ExitStatus> {
    // clap_complete panics when a write fails; a Vec never does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "intendex", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitStatus::Done)
}
