//! `intendex gc`: removes old generations.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use indicatif::DecimalBytes;

use super::{ExitStatus, at_least_one};
use crate::store::{Output, Removed};

/// Removes old generations of an output; the newest and the current one stay.
///
/// A search that began on a generation that is removed under it fails.
#[derive(Debug, clap::Args)]
pub struct GcArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// How many of the newest generations stay; the current one does in any case.
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>, env = "INTENDEX_GC_KEEP")]
    pub keep: usize,
}

pub fn run(args: GcArgs) -> anyhow::Result<ExitStatus> {
    let writer = Output::new(&args.output).lock_existing()?;
    let removed = writer.remove_old(args.keep)?;
    writeln!(std::io::stdout().lock(), "{}", told(&args.output, &removed))?;
    if removed.unfinished > 0 {
        let size = DecimalBytes(removed.unfinished);
        tracing::info!(
            "an unfinished build stays, {size}: a build goes on with it, or takes over what fits; `build --restart` removes it"
        );
    }
    Ok(ExitStatus::Done)
}

fn told(output: &Path, removed: &Removed) -> String {
    let numbers: Vec<String> = removed.generations.iter().map(u64::to_string).collect();
    let what = match numbers.as_slice() {
        [] if removed.bytes == 0 => return format!("nothing to remove in {}", output.display()),
        [] => "what a killed gc had left".to_owned(),
        [one] => format!("generation {one}"),
        many => format!("generations {}", many.join(", ")),
    };
    let freed = DecimalBytes(removed.bytes);
    format!("removed {what} of {}: {freed} freed", output.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_was_removed() {
        let told = |generations: &[u64], bytes| {
            let generations = generations.to_vec();
            let removed = Removed {
                generations,
                bytes,
                unfinished: 0,
            };
            told(Path::new("out"), &removed)
        };
        assert_eq!(told(&[], 0), "nothing to remove in out");
        assert_eq!(
            told(&[], 5),
            "removed what a killed gc had left of out: 5 B freed"
        );
        assert_eq!(
            told(&[1, 3], 2_500_000),
            "removed generations 1, 3 of out: 2.50 MB freed"
        );
    }
}
