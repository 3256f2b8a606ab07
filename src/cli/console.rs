//! What is said on stderr: log lines, errors and progress, for people or as NDJSON.

use std::io::{self, IsTerminal, Write};

use clap::builder::BoolishValueParser;
use indicatif::MultiProgress;
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

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
            (LogFormat::Json, _) => log.json().flatten_event(true).init(),
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
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        let text = match self.format {
            LogFormat::Json => {
                json!({"level": "ERROR", "message": error.to_string(), "causes": causes})
                    .to_string()
            }
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
            LogFormat::Json => self.say(&json!({"level": "WARN", "message": message}).to_string()),
            LogFormat::Text => self.say(message),
        }
    }

    fn say(&self, line: &str) {
        // With stderr gone there is nobody left to tell.
        let _ = self.bars.suspend(|| writeln!(io::stderr(), "{line}"));
    }
}

fn filter(args: &ConsoleArgs) -> EnvFilter {
    let (own, others) = match (args.quiet, args.verbose) {
        (true, _) => (LevelFilter::ERROR, LevelFilter::OFF),
        (false, 0) => (LevelFilter::INFO, LevelFilter::ERROR),
        (false, 1) => (LevelFilter::DEBUG, LevelFilter::WARN),
        (false, _) => (LevelFilter::TRACE, LevelFilter::INFO),
    };
    EnvFilter::new(format!("{others},intendex={own}"))
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
