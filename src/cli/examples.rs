//! `intendex examples`: examples for the generator, from an index.

use std::path::PathBuf;

use anyhow::ensure;
use serde::Serialize;

use super::{ExitStatus, at_least_one, out::Out};
use crate::{
    job::spec,
    report::examples,
    store::{Files, Output},
};

/// Prints examples of a corpus for the generator, to read and to put into the job: passages of a published index with the
/// queries that they predict best.
///
/// The index must have been built with "gain" among `expand.scores`.
#[derive(Debug, clap::Args)]
pub struct ExamplesArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub index: PathBuf,
    /// How many, each of another topic; every prompt has them, so that more cost time.
    #[arg(short = 'n', long, value_parser = at_least_one::<usize>, default_value = "3", env = "INTENDEX_EXAMPLES_COUNT")]
    pub count: usize,
}

#[derive(Serialize)]
struct Job {
    expand: Expand,
}

#[derive(Serialize)]
struct Expand {
    examples: Vec<spec::Example>,
}

pub fn run(args: ExamplesArgs) -> anyhow::Result<ExitStatus> {
    let (_, generation) = Output::fetch(&args.index, Files::Datasets)?.current()?;
    let examples = examples::best(&generation, args.count)?;
    ensure!(
        !examples.is_empty(),
        "{} has no chunk of 30 to 140 tokens with a scored question and four scored queries of lists; raise `expand.queries` or \
         `expand.lists`",
        args.index.display()
    );
    let job = Job {
        expand: Expand { examples },
    };
    let text = toml::to_string_pretty(&job)?;
    Out::create(None)?.write(|out| Ok(out.write_all(text.as_bytes())?))?;
    Ok(ExitStatus::Done)
}
