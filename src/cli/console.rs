//! What is said on stderr: log lines, errors and progress, for people or as NDJSON.

use std::{
    io::{self, IsTerminal, Write},
    panic,
};

use clap::builder::BoolishValueParser;
use indicatif::MultiProgress;
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        format::Writer,
        time::{FormatTime, SystemTime},
    },
};

use super::progress::{Bars, Lines};
use crate::job::Progress;

#[derive(Debug, clap::Args)]
pub struct ConsoleArgs {
    /// How log, progress and errors are written to stderr: text, or one JSON object a line.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        env = "INTENDEX_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    /// Say more; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, env = "INTENDEX_VERBOSE")]
    pub verbose: u8,
    /// Say nothing but errors.
    #[arg(
        short, long, global = true, conflicts_with = "verbose",
        value_parser = BoolishValueParser::new(), env = "INTENDEX_QUIET"
    )]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Stderr of this run.
#[derive(Clone)]
pub struct Console {
    format: LogFormat,
    quiet: bool,
    bars: MultiProgress,
}

impl Console {
    /// Sets up logging; once per process.
    pub fn start(args: &ConsoleArgs) -> Self {
        let console = Self {
            format: args.log_format,
            quiet: args.quiet,
            bars: MultiProgress::new(),
        };
        let bars = console.bars.clone();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter(args))
            .with_target(args.verbose > 0)
            .with_writer(move || BesideBars(bars.clone()));
        match (args.log_format, io::stderr().is_terminal()) {
            (LogFormat::Json, _) => {
                log.json().flatten_event(true).init();
                // A panic's own report would tear the NDJSON.
                panic::set_hook(Box::new(|panic| {
                    say_to_stderr(&error_line(&panic.to_string(), &[]));
                }));
            }
            (LogFormat::Text, true) => log.without_time().init(),
            (LogFormat::Text, false) => log.with_ansi(false).init(),
        }
        console
    }

    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Bars on a terminal, else a line now and then; NDJSON with `--log-format json`.
    pub fn progress(&self) -> Box<dyn Progress> {
        let terminal = io::stderr().is_terminal();
        match self.format {
            _ if self.quiet => Box::new(()),
            LogFormat::Text if terminal => Box::new(Bars::new(self.bars.clone())),
            format => Box::new(Lines::new(format)),
        }
    }

    /// Writes an error and what caused it, one a line.
    pub fn error(&self, error: &anyhow::Error) {
        let causes = causes(error);
        let text = match self.format {
            LogFormat::Json => error_line(&error.to_string(), &causes),
            LogFormat::Text => {
                let causes = causes.iter().map(|cause| format!("\n  caused by: {cause}"));
                format!("error: {error}{}", causes.collect::<String>())
            }
        };
        self.say(&text);
    }

    /// Writes why the process ends though it has not failed.
    pub fn stopped(&self, message: &str) {
        match self.format {
            LogFormat::Json => self.say(&warning_line(message)),
            LogFormat::Text => self.say(message),
        }
    }

    fn say(&self, line: &str) {
        self.bars.suspend(|| say_to_stderr(line));
    }
}

/// Writes a line where there are no bars.
pub fn say_to_stderr(line: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// An error as a line of NDJSON.
pub fn error_line(message: &str, causes: &[String]) -> String {
    json!({"timestamp": now(), "level": "ERROR", "message": message, "causes": causes}).to_string()
}

fn warning_line(message: &str) -> String {
    json!({"timestamp": now(), "level": "WARN", "message": message}).to_string()
}

/// What caused an error, without what has been said before: many errors have their cause's words in their own.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut said = vec![error.to_string()];
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !said.iter().any(|before| before.contains(&cause)) {
            said.push(cause);
        }
    }
    said.split_off(1)
}

/// The time as log lines have it.
fn now() -> String {
    let mut text = String::new();
    // Fails only where the writer does, and a String never does.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

fn filter(args: &ConsoleArgs) -> EnvFilter {
    let (own, others) = match (args.quiet, args.verbose) {
        (true, _) => (LevelFilter::ERROR, LevelFilter::OFF),
        (false, 0) => (LevelFilter::INFO, LevelFilter::ERROR),
        (false, 1) => (LevelFilter::DEBUG, LevelFilter::WARN),
        (false, _) => (LevelFilter::TRACE, LevelFilter::INFO),
    };
    // Ballista's client tells of errors that it returns, too.
    EnvFilter::new(format!("{others},ballista_core=off,intendex={own}"))
}

/// Writes log lines without tearing the bars.
struct BesideBars(MultiProgress);

impl Write for BesideBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::store::StoreError;

    #[test]
    fn lines_begin_with_their_time() {
        for line in [error_line("m", &[]), warning_line("m")] {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                line.as_object().unwrap().keys().next().unwrap(),
                "timestamp"
            );
            let time = line["timestamp"].as_str().unwrap();
            chrono::DateTime::parse_from_rfc3339(time).unwrap();
            assert!(time.ends_with('Z'), "{time}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let gone = || io::Error::from_raw_os_error(libc::ENOENT);
        let own_words = StoreError::io("out".as_ref())(gone());
        assert!(causes(&own_words.into()).is_empty());
        let outer = Err::<(), _>(gone()).context("cannot write run.txt");
        let causes = causes(&outer.unwrap_err());
        assert_eq!(causes, ["No such file or directory (os error 2)"]);
    }
}
