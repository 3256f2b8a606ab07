//! A generator behind an OpenAI-compatible server (vLLM, llama.cpp, a hosted one).
//!
//! Texts come from `/chat/completions`. Scores come from `/completions` with `echo` and `logprobs`, which not every
//! server has. It does not share its chat template, so scores are taken of a plain rendering of the conversation, the
//! same for a chunk's prompt and for the empty one.

mod transport;

#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use self::transport::{Failure, Transport};
use super::{
    Completion, Generate, LogProb, ModelError, ModelIdentity, Prompt, Role, Sampling, Score,
};
use crate::job::spec;

/// A text, and how it goes on.
const CERTAIN: [&str; 2] = [
    "one two three four five six seven eight",
    " nine ten eleven twelve",
];
/// Log-probability per token that a model surely gives the second part.
const LEAST_CERTAIN: f64 = -4.0;

const DEFAULT_CONTEXT: usize = 4096;

/// Requests handed over at once, per request in flight: enough that none waits for the slowest.
const GROUP: usize = 4;

/// Bytes of a token where the server's tokenizer is unknown.
const BYTES_PER_TOKEN: usize = 4;

pub struct HttpGenerator {
    model: String,
    transport: Transport,
    identity: ModelIdentity,
    concurrency: usize,
    context_tokens: usize,
    can_score: OnceLock<Result<bool, String>>,
}

impl HttpGenerator {
    pub fn new(settings: &spec::Generator) -> Result<Self, ModelError> {
        let base = settings
            .server
            .as_deref()
            .unwrap_or_default()
            .trim_end_matches('/');
        let refused = |why: &str| ModelError::Model {
            model: settings.model.clone(),
            message: format!("models.generator.server {why}"),
        };
        let host = base
            .strip_prefix("http://")
            .or_else(|| base.strip_prefix("https://"));
        let host = host.ok_or_else(|| refused("is not a URL such as http://127.0.0.1:8000/v1"))?;
        // The URL goes into manifests, and must hold no secret.
        if host
            .split('/')
            .next()
            .is_some_and(|authority| authority.contains('@'))
        {
            return Err(refused("holds a password; use models.generator.api_key"));
        }
        let api_key = settings.api_key.as_ref().map(|key| key.reveal().to_owned());
        let api_key = api_key.filter(|key| !key.is_empty());
        Ok(Self {
            model: settings.model.clone(),
            transport: Transport::new(base.to_owned(), api_key),
            identity: ModelIdentity {
                name: format!("{} @ {base}", settings.model),
                architecture: "server".into(),
                files: Vec::new(),
            },
            concurrency: settings.concurrency.max(1),
            context_tokens: settings.context_tokens.unwrap_or(DEFAULT_CONTEXT),
            can_score: OnceLock::new(),
        })
    }

    /// Whether the server returns the log-probabilities of a text it is given. Asked once, of a text whose end no
    /// model doubts: llama-cpp-python 0.3 returns each token's probability of following itself.
    pub fn can_score(&self) -> Result<bool, ModelError> {
        let refuse = |why: &str| {
            tracing::warn!("{}: cannot score queries ({why})", self.identity.name);
            Ok(false)
        };
        let ask = || match self.echo(CERTAIN.concat().as_str(), CERTAIN[0].len()) {
            Ok(score) if score.per_token() > LEAST_CERTAIN => Ok(true),
            Ok(_) => refuse("its log-probabilities are not those of the tokens they stand by"),
            Err(Failure::Unsupported(why)) => refuse(&why),
            Err(failure) => Err(failure.to_string()),
        };
        let unavailable = |message| ModelError::Unavailable {
            model: self.identity.name.clone(),
            message,
        };
        self.can_score.get_or_init(ask).clone().map_err(unavailable)
    }

    fn error(&self, message: String) -> ModelError {
        ModelError::Model {
            model: self.identity.name.clone(),
            message,
        }
    }

    fn failure(&self, failure: Failure) -> ModelError {
        match failure {
            Failure::Down(message) => ModelError::Unavailable {
                model: self.identity.name.clone(),
                message,
            },
            other => self.error(other.to_string()),
        }
    }

    /// Samples until there are `n` texts: some servers return one choice whatever `n` says.
    fn sample(&self, prompt: &Prompt, sampling: &Sampling) -> Result<Vec<Completion>, ModelError> {
        let mut completions = Vec::with_capacity(sampling.n);
        while completions.len() < sampling.n {
            let body = json!({
                "model": self.model,
                "messages": prompt.messages,
                // Some servers refuse several greedy choices, which would be equal.
                "n": if sampling.temperature > 0.0 { sampling.n - completions.len() } else { 1 },
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_tokens,
                "stop": if sampling.stop.is_empty() { Value::Null } else { json!(sampling.stop) },
                // Servers take 32 bits at least; each call draws differently.
                "seed": (sampling.seed.wrapping_add(completions.len() as u64) & 0x7fff_ffff),
            });
            let answer = self
                .transport
                .post("/chat/completions", &body)
                .map_err(|f| self.failure(f))?;
            let choices = answer["choices"].as_array().filter(|c| !c.is_empty());
            let choices = choices.ok_or_else(|| {
                let excerpt = self.transport.excerpt(&answer.to_string());
                self.error(format!("answered without choices: {excerpt}"))
            })?;
            let tokens =
                answer["usage"]["completion_tokens"].as_u64().unwrap_or(0) as usize / choices.len();
            completions.extend(choices.iter().map(|choice| {
                Completion {
                    text: choice["message"]["content"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    tokens,
                    finished: choice["finish_reason"].as_str() != Some("length"),
                }
            }));
        }
        completions.truncate(sampling.n);
        Ok(completions)
    }

    /// log P of the part of `text` from byte `from`.
    fn echo(&self, text: &str, from: usize) -> Result<LogProb, Failure> {
        let body = json!({
            "model": self.model, "prompt": text, "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 1,
        });
        let answer = self.transport.post("/completions", &body)?;
        let logprobs = &answer["choices"][0]["logprobs"];
        let (Some(values), Some(offsets)) = (
            logprobs["token_logprobs"].as_array(),
            logprobs["text_offset"].as_array(),
        ) else {
            return Err(Failure::Unsupported(
                "it returns no log-probabilities for `echo`".into(),
            ));
        };
        let inside = continuation(offsets, text, from);
        let values: Vec<f64> = values
            .iter()
            .zip(inside)
            .filter(|(_, i)| *i)
            .filter_map(|(v, _)| v.as_f64())
            .collect();
        if values.is_empty() {
            return Err(Failure::Unsupported("it does not echo the prompt".into()));
        }
        Ok(LogProb {
            sum: values.iter().sum(),
            tokens: values.len(),
        })
    }

    /// Runs `work` on every request, `concurrency` at a time; results in order.
    fn in_flight<R: Sync, T: Send>(&self, requests: &[R], work: impl Fn(&R) -> T + Sync) -> Vec<T> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(requests.len()));
        thread::scope(|scope| {
            for _ in 0..self.concurrency.min(requests.len()) {
                scope.spawn(|| {
                    while let Some((i, request)) = take(&next, requests) {
                        let result = work(request);
                        results
                            .lock()
                            .unwrap_or_else(|e| e.into_inner())
                            .push((i, result));
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
        results.sort_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

fn take<'a, R>(next: &AtomicUsize, requests: &'a [R]) -> Option<(usize, &'a R)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    requests.get(i).map(|request| (i, request))
}

impl Generate for HttpGenerator {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn requests_at_once(&self) -> usize {
        GROUP * self.concurrency
    }

    /// Estimated: the server's tokenizer is not known here. Words, cut every four bytes.
    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        let mut offsets = Vec::with_capacity(text.len() / BYTES_PER_TOKEN);
        for word in words(text) {
            let mut start = word.start;
            while start < word.end {
                let end = text.floor_char_boundary((start + BYTES_PER_TOKEN).min(word.end));
                let end = if end > start {
                    end
                } else {
                    text.ceil_char_boundary(start + 1)
                };
                offsets.push((start, end));
                start = end;
            }
        }
        Ok(offsets)
    }

    fn generate(
        &self,
        requests: &[(Prompt, Sampling)],
    ) -> Vec<Result<Vec<Completion>, ModelError>> {
        self.in_flight(requests, |(prompt, sampling)| self.sample(prompt, sampling))
    }
}

impl Score for HttpGenerator {
    fn score(&self, requests: &[(Prompt, Vec<String>)]) -> Vec<Result<Vec<LogProb>, ModelError>> {
        let pairs: Vec<(String, &str)> = requests
            .iter()
            .flat_map(|(p, texts)| texts.iter().map(|t| (plain(p), t.as_str())))
            .collect();
        let scored = self.in_flight(&pairs, |(prompt, text)| {
            self.echo(&format!("{prompt} {text}"), prompt.len())
                .map_err(|f| self.failure(f))
        });
        let mut scored = scored.into_iter();
        requests
            .iter()
            .map(|(_, texts)| scored.by_ref().take(texts.len()).collect())
            .collect()
    }
}

/// Which of the tokens at `offsets` (code points into `text`) belong to its part from byte `from`. The token that the
/// server was made to add lies behind the text.
fn continuation(offsets: &[Value], text: &str, from: usize) -> Vec<bool> {
    let start = text[..from].chars().count() as u64;
    let end = text.chars().count() as u64;
    let first = offsets.first().and_then(Value::as_u64).unwrap_or(0);
    let offsets: Vec<u64> = offsets
        .iter()
        .map(|o| o.as_u64().map_or(end, |o| o.saturating_sub(first)))
        .collect();
    let token_end = |i: usize| offsets.get(i + 1).copied().unwrap_or(end);
    let inside =
        |(i, &offset): (usize, &u64)| offset < end && (offset >= start || token_end(i) > start);
    offsets.iter().enumerate().map(inside).collect()
}

/// The conversation as `role: content` lines, up to the assistant's turn. No space at its end: tokens begin with theirs.
fn plain(prompt: &Prompt) -> String {
    let name = |role: Role| match role {
        Role::System => "System",
        Role::User => "User",
        Role::Assistant => "Assistant",
    };
    let turns: String = prompt
        .messages
        .iter()
        .map(|m| format!("{}: {}\n", name(m.role), m.content))
        .collect();
    turns + "Assistant:"
}

fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.split_whitespace().map(|word| {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        start..start + word.len()
    })
}
