//! `intendex man`: manual pages.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;

use super::{Cli, ExitStatus};

/// Prints the manual page, or writes the pages of all commands into a folder.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for intendex.1, intendex-build.1 and so on; made if absent.
    #[arg(long, value_name = "FOLDER", env = "INTENDEX_MAN_OUT")]
    out: Option<PathBuf>,
}

pub fn run(args: ManArgs) -> anyhow::Result<ExitStatus> {
    let command = Cli::command();
    match args.out {
        Some(folder) => {
            let failed = || format!("cannot write manual pages to {}", folder.display());
            std::fs::create_dir_all(&folder).with_context(failed)?;
            clap_mangen::generate_to(command, &folder).with_context(failed)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            std::io::stdout().write_all(&page)?;
        }
    }
    Ok(ExitStatus::Done)
}
