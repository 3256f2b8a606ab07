//! `intendex generations`: lists the generations of an output.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use chrono::{DateTime, SecondsFormat};
use indicatif::DecimalBytes;

use super::{ExitStatus, ResultFormat};
use crate::store::{Generation, Output};

/// Lists the generations of an output: which is current, when it was built, how large it is.
#[derive(Debug, clap::Args)]
pub struct GenerationsArgs {
    /// The output folder of a job.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// How the list is written.
    #[arg(
        long,
        value_enum,
        default_value = "text",
        env = "INTENDEX_GENERATIONS_FORMAT"
    )]
    pub format: ResultFormat,
}

pub fn run(args: GenerationsArgs) -> anyhow::Result<ExitStatus> {
    let generations = Output::fetch_descriptions(&args.output)?.history()?;
    let mut out = io::stdout().lock();
    match args.format {
        ResultFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&generations)?)?,
        ResultFormat::Text => write_table(&mut out, &generations)?,
    }
    Ok(ExitStatus::Done)
}

fn write_table(out: &mut dyn Write, generations: &[Generation]) -> io::Result<()> {
    writeln!(
        out,
        "{:>10}  {:<20}{:>12}{:>12}{:>12}",
        "generation", "built", "documents", "chunks", "size"
    )?;
    for generation in generations {
        let count = |n: Option<u64>| n.map_or("?".to_owned(), |n| n.to_string());
        let state = match (generation.current, generation.published) {
            (true, _) => "  current",
            (false, true) => "",
            (false, false) => "  never published",
        };
        writeln!(
            out,
            "{:>10}  {:<20}{:>12}{:>12}{:>12}{state}",
            generation.number,
            generation.built.and_then(time).unwrap_or("?".into()),
            count(generation.documents),
            count(generation.chunks),
            DecimalBytes(generation.bytes).to_string(),
        )?;
    }
    Ok(())
}

/// RFC 3339, in UTC.
fn time(seconds: u64) -> Option<String> {
    let time = DateTime::from_timestamp(seconds.try_into().ok()?, 0)?;
    Some(time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each() {
        let generation = |number, current, built| Generation {
            number,
            current,
            published: true,
            built,
            documents: Some(7),
            chunks: None,
            bytes: 1500,
        };
        let list = [
            generation(1, false, None),
            generation(2, true, Some(1_700_000_000)),
        ];
        let mut out = Vec::new();
        write_table(&mut out, &list).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["1", "?", "7", "?", "1.50", "kB"]);
        assert_eq!(
            lines[2],
            [
                "2",
                "2023-11-14T22:13:20Z",
                "7",
                "?",
                "1.50",
                "kB",
                "current"
            ]
        );
    }
}
