//! The command line and its environment variables, and what is said of those that cannot be taken.

use std::{
    env,
    ffi::{OsStr, OsString},
    process::ExitCode,
};

use clap::{
    Arg, ArgAction, Command, CommandFactory, Error, FromArgMatches, ValueEnum, error::ErrorKind,
};

use super::{
    Cli, FATAL, LogFormat,
    console::{error_line, say_to_stderr},
};

/// The arguments; or, when they are wrong or ask for help, which is said here, the exit code.
pub fn parse() -> Result<Cli, ExitCode> {
    let arguments: Vec<OsString> = env::args_os().collect();
    let mut command = without_unset(Cli::command());
    let parsed = match command.try_get_matches_from_mut(&arguments) {
        Ok(matches) => Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command)),
        Err(error) => Err(error),
    };
    parsed.map_err(|error| refuse(&error, log_format(&arguments)))
}

/// Leaves out the variables that count as not set. clap would read an empty one as a value, and let one that turns a
/// flag off exclude other flags.
fn without_unset(command: Command) -> Command {
    let known = |arg: Arg| match arg.get_env().and_then(env::var_os) {
        Some(value) if is_unset(&arg, &value) => arg.env(None),
        _ => arg,
    };
    command.mut_args(known).mut_subcommands(without_unset)
}

fn is_unset(arg: &Arg, value: &OsStr) -> bool {
    const OFF: [&str; 6] = ["n", "no", "f", "false", "off", "0"];
    let value = value.to_string_lossy().to_lowercase();
    let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
    value.is_empty() || is_flag && OFF.contains(&value.as_str())
}

/// What arguments that clap has refused say of the log's format.
fn log_format(arguments: &[OsString]) -> LogFormat {
    let flags = arguments.iter().skip(1).map(|arg| arg.to_string_lossy());
    let flags: Vec<_> = flags.take_while(|arg| arg != "--").collect();
    let joined = flags
        .iter()
        .find_map(|arg| arg.strip_prefix("--log-format="));
    let apart = flags.windows(2).find(|pair| pair[0] == "--log-format");
    let given = joined.or(apart.map(|pair| pair[1].as_ref()));
    let word = match given {
        Some(word) => word.to_owned(),
        None => env::var("INTENDEX_LOG_FORMAT").unwrap_or_default(),
    };
    LogFormat::from_str(&word, false).unwrap_or(LogFormat::Text)
}

fn refuse(error: &Error, format: LogFormat) -> ExitCode {
    if error.use_stderr() && format == LogFormat::Json {
        say_to_stderr(&error_line(&summary(error), &[]));
    } else {
        // With nobody left to tell, the exit code has to do.
        let _ = error.print();
    }
    match error.use_stderr() {
        true => ExitCode::from(FATAL),
        false => ExitCode::SUCCESS,
    }
}

/// What is wrong, without the usage below it.
fn summary(error: &Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing; --help lists them".into();
    }
    let text = error.to_string();
    let ends = ["\n\nUsage:", "\n\nFor more information"].map(|end| text.find(end));
    let end = ends.into_iter().flatten().min().unwrap_or(text.len());
    let text = text[..end].trim();
    text.strip_prefix("error: ").unwrap_or(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_format_is_found_in_any_arguments() {
        let json = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            log_format(&arguments) == LogFormat::Json
        };
        assert!(json(&["intendex", "--log-format", "json", "nonsense"]));
        assert!(json(&["intendex", "search", "--log-format=json"]));
        assert!(!json(&["intendex", "search", "--log-format", "yaml"]));
        assert!(!json(&["intendex", "search", "--", "--log-format=json"]));
        assert!(!json(&["intendex", "--log-format"]));
    }
}
