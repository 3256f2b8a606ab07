//! JSON requests that are repeated while the server is busy or away.

use std::{thread, time::Duration};

use serde_json::Value;
use ureq::{Agent, Body, Timeout, http::Response};

const ATTEMPTS: u32 = 7;
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(600);

/// Bytes of a server's answer that an error shows.
const EXCERPT: usize = 300;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server lacks what was asked for.
    #[error("{0}")]
    Unsupported(String),
    /// No answer after all attempts, or none for us.
    #[error("{0}")]
    Down(String),
    #[error("{0}")]
    Other(String),
}

pub struct Transport {
    base: String,
    api_key: Option<String>,
    agent: Agent,
    /// Before the second attempt; doubled each time.
    pub first_wait: Duration,
}

/// What became of one attempt.
enum Attempt {
    Answered(String),
    /// Worth another attempt, after a wait if the server named one.
    Again(Failure, Option<Duration>),
    Failed(Failure),
}

impl Transport {
    /// `base` is a URL without a slash at its end.
    pub fn new(base: String, api_key: Option<String>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(TIMEOUT));
        Self {
            base,
            api_key,
            agent: config.build().into(),
            first_wait: FIRST_WAIT,
        }
    }

    /// The answer to `body`, sent to `path` below the base URL. Refused connections, 429 and 5xx are tried again;
    /// what took longer than ten minutes is not.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.base);
        let mut wait = self.first_wait;
        let mut attempts = 1;
        let text = loop {
            match self.attempt(&url, path, body) {
                Attempt::Answered(text) => break text,
                Attempt::Failed(failure) => return Err(failure),
                Attempt::Again(failure, _) if attempts == ATTEMPTS => {
                    tracing::debug!("{url}: given up after {ATTEMPTS} attempts");
                    return Err(failure);
                }
                Attempt::Again(failure, asked) => {
                    tracing::debug!("attempt {attempts}: {failure}");
                    thread::sleep(asked.unwrap_or(wait).min(LONGEST_WAIT));
                }
            }
            wait *= 2;
            attempts += 1;
        };
        serde_json::from_str(&text).map_err(|_| {
            Failure::Other(format!("{url}: answered no JSON: {}", self.excerpt(&text)))
        })
    }

    fn attempt(&self, url: &str, path: &str, body: &Value) -> Attempt {
        let mut request = self.agent.post(url);
        if let Some(key) = &self.api_key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let response = match request.send_json(body) {
            Ok(response) => response,
            Err(error) => return unanswered(url, &error),
        };
        let (status, asked) = (response.status(), retry_after(&response));
        let text = match response.into_body().read_to_string() {
            Ok(text) if status.is_success() => return Attempt::Answered(text),
            Ok(text) => text,
            Err(error) => return unanswered(url, &error),
        };
        let message = format!("{url}: {status}: {}", self.excerpt(&text));
        match status.as_u16() {
            401 | 403 => Attempt::Failed(Failure::Down(format!(
                "{message}; check models.generator.api_key"
            ))),
            // llama-cpp-python says with 500 that it was not started to echo prompts.
            500 | 501 if path == "/completions" => {
                Attempt::Again(Failure::Unsupported(message), asked)
            }
            429 | 500.. => Attempt::Again(Failure::Down(message), asked),
            _ if path == "/completions" => Attempt::Failed(Failure::Unsupported(message)),
            _ => Attempt::Failed(Failure::Other(message)),
        }
    }

    /// The beginning of an answer. Some servers repeat the key they do not like.
    pub fn excerpt(&self, text: &str) -> String {
        let mut text = match &self.api_key {
            Some(key) => text.replace(key, "[api_key]"),
            None => text.to_owned(),
        };
        text.truncate(text.floor_char_boundary(EXCERPT));
        text
    }
}

fn unanswered(url: &str, error: &ureq::Error) -> Attempt {
    let failure = Failure::Down(format!("{url}: {error}; is the server up?"));
    match error {
        ureq::Error::Io(_)
        | ureq::Error::Protocol(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            Attempt::Again(failure, None)
        }
        _ => Attempt::Failed(failure),
    }
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response
        .headers()
        .get("retry-after")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}
