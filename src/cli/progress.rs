//! Shows the progress of stages: bars for people, lines for logs, events for programs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::LogFormat;
use crate::job::Progress;

const BETWEEN_LINES: Duration = Duration::from_secs(10);

const BAR: &str =
    "{prefix:>9} {bar:30} {human_pos}/{human_len} {msg} {per_sec} {elapsed}, {eta} left";
const SPINNER: &str = "{prefix:>9} {spinner} {human_pos} {msg} {per_sec} {elapsed}";

/// A bar per stage; finished ones stay.
pub struct Bars {
    all: MultiProgress,
    current: Mutex<Option<ProgressBar>>,
}

impl Bars {
    pub fn new(all: MultiProgress) -> Self {
        Self {
            all,
            current: Mutex::new(None),
        }
    }
}

impl Progress for Bars {
    fn start(&self, stage: &str, total: u64, unit: &str) {
        let (bar, template) = match total {
            0 => (ProgressBar::new_spinner(), SPINNER),
            total => (ProgressBar::new(total), BAR),
        };
        let style = ProgressStyle::with_template(template);
        let bar = self.all.add(bar.with_prefix(stage.to_string()));
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(unit.to_string());
        bar.enable_steady_tick(Duration::from_millis(250));
        *lock(&self.current) = Some(bar);
    }

    fn advance(&self, n: u64) {
        if let Some(bar) = lock(&self.current).as_ref() {
            bar.inc(n);
        }
    }

    fn finish(&self) {
        if let Some(bar) = lock(&self.current).take() {
            bar.abandon();
        }
    }
}

/// A log line at the start and end of a stage and every ten seconds between.
pub struct Lines {
    format: LogFormat,
    current: Mutex<Option<Stage>>,
}

struct Stage {
    name: String,
    total: u64,
    unit: String,
    done: u64,
    started: Instant,
    told: Instant,
}

impl Lines {
    pub fn new(format: LogFormat) -> Self {
        Self {
            format,
            current: Mutex::new(None),
        }
    }

    fn tell(&self, state: &'static str, stage: &Stage) {
        let Stage {
            name,
            total,
            unit,
            done,
            ..
        } = stage;
        let seconds = stage.started.elapsed().as_secs_f64();
        match self.format {
            LogFormat::Text => tracing::info!("{}", stage.line(state, seconds)),
            LogFormat::Json => tracing::info!(
                event = "progress",
                state,
                stage = name,
                done,
                total,
                unit,
                seconds,
                "{name} {state}"
            ),
        }
    }
}

impl Progress for Lines {
    fn start(&self, stage: &str, total: u64, unit: &str) {
        let now = Instant::now();
        let stage = Stage {
            name: stage.to_string(),
            total,
            unit: unit.to_string(),
            done: 0,
            started: now,
            told: now,
        };
        self.tell("started", &stage);
        *lock(&self.current) = Some(stage);
    }

    fn advance(&self, n: u64) {
        let mut current = lock(&self.current);
        let Some(stage) = current.as_mut() else {
            return;
        };
        stage.done += n;
        if stage.told.elapsed() >= BETWEEN_LINES {
            stage.told = Instant::now();
            self.tell("running", stage);
        }
    }

    fn finish(&self) {
        if let Some(stage) = lock(&self.current).take() {
            self.tell("finished", &stage);
        }
    }
}

impl Stage {
    fn line(&self, state: &str, seconds: f64) -> String {
        let Stage {
            name,
            total,
            unit,
            done,
            ..
        } = self;
        let of = |total: u64| {
            if total > 0 {
                format!("/{total}")
            } else {
                String::new()
            }
        };
        let rate = *done as f64 / seconds.max(1e-3);
        match state {
            "started" if *total > 0 => format!("{name}: {total} {unit}"),
            "started" => format!("{name}: started"),
            "finished" => format!("{name}: {done} {unit} in {seconds:.1} s"),
            _ => {
                let left = total.saturating_sub(*done) as f64 / rate.max(1e-9);
                let left = if *total > 0 {
                    format!(", {left:.0} s left")
                } else {
                    String::new()
                };
                format!("{name}: {done}{} {unit}, {rate:.1}/s{left}", of(*total))
            }
        }
    }
}

/// A panic elsewhere leaves the state whole: it is only numbers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [BAR, SPINNER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn lines_tell_rate_and_remaining_time() {
        let now = Instant::now();
        let stage = |total| Stage {
            name: "chunk".into(),
            total,
            unit: "documents".into(),
            done: 50,
            started: now,
            told: now,
        };
        assert_eq!(
            stage(200).line("running", 10.0),
            "chunk: 50/200 documents, 5.0/s, 30 s left"
        );
        assert_eq!(stage(0).line("running", 10.0), "chunk: 50 documents, 5.0/s");
        assert_eq!(
            stage(50).line("finished", 10.0),
            "chunk: 50 documents in 10.0 s"
        );
    }
}
