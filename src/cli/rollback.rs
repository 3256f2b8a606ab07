//! `intendex rollback`: returns to an earlier generation.

use std::{io::Write, path::PathBuf};

use super::ExitStatus;
use crate::store::Output;

/// Points CURRENT at an earlier generation of an output. Nothing is removed, and `--to` leads forward again too.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// The generation to go to; default: the one before the current.
    #[arg(long, value_name = "N", env = "INTENDEX_ROLLBACK_TO")]
    pub to: Option<u64>,
}

pub fn run(args: RollbackArgs) -> anyhow::Result<ExitStatus> {
    let writer = Output::new(&args.output).lock_existing()?;
    // As the lock found it.
    let before = Output::new(&args.output).current().ok().map(|c| c.0);
    let now = writer.roll_back(args.to)?;
    let output = args.output.display();
    let line = match before {
        Some(before) if before == now => {
            format!("generation {now} of {output} is current, as it was")
        }
        Some(before) => format!("generation {now} of {output} is current; {before} was"),
        None => format!("generation {now} of {output} is current; none was"),
    };
    writeln!(std::io::stdout().lock(), "{line}; nothing was removed")?;
    Ok(ExitStatus::Done)
}
