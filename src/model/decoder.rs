//! Decoder language models from GGUF or safetensors files, run here: what a prompt shares with earlier ones is read once, and the
//! continuations of several prompts are decoded together.
//!
//! A result depends on its own request only, not on the batch or on what was read before. On CPUs without AMX this
//! holds bit for bit for K-quantised files; with AMX, on a GPU, or for unquantised weights it holds up to the rounding
//! of matrix products of other sizes.

mod architecture;
mod attention;
mod files;
mod folder;
mod generate;
mod gguf;
mod linear;
mod prefix;
mod rope;
mod sample;
mod score;
mod shortlist;
mod text;
mod tokenizer;
mod transformer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Device;
use tokenizers::Tokenizer;

use self::files::{Files, Language};
use self::folder::Folder;
use self::generate::{Group, Vocabulary};
use self::gguf::Gguf;
use self::prefix::{Prefix, Prefixes};
use self::shortlist::{Frequent, Shortlist};
use self::transformer::Transformer;
use super::chat::ChatTemplate;
use super::tokenizer::offsets;
use super::{Completion, Generate, LogProb, ModelError, ModelIdentity, Prompt, Sampling, Score};
use crate::job::spec;

/// Context when neither the job nor the file asks for less.
const CONTEXT: usize = 8192;
/// Rows decoded together.
const ROWS: usize = 32;
/// Requests that make a full batch when each wants four rows. Their prompts stay read, so that they can be scored.
const REQUESTS: usize = ROWS / 4;
/// Bytes of keys and values kept of prompts that have been read. Prompts of one call that fit together can be scored
/// after it without being read again.
const CACHE_BYTES: usize = 1 << 30;
/// Tokens that end an answer, whatever the file declares.
const ENDS: &[&str] = &["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>"];

/// A decoder language model with its tokenizer and chat template.
pub struct Decoder {
    identity: ModelIdentity,
    model: Transformer,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    frequent: Option<Frequent>,
    chat: ChatTemplate,
    context: usize,
    cache_tokens: usize,
    prefixes: Mutex<Prefixes>,
}

impl Decoder {
    /// Reads a GGUF file, or a folder with `config.json`, `tokenizer.json` and safetensors. `settings.context_tokens` may
    /// ask for less than the model's context, not for more.
    pub fn load(
        path: &Path,
        identity: ModelIdentity,
        settings: &spec::Generator,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut files: Box<dyn Files> = match path.is_dir() {
            true => Box::new(Folder::open(path, device)?),
            false => Box::new(Gguf::open(path, device)?),
        };
        let files = &mut *files;
        let architecture = files.architecture()?;
        let context = context(files, architecture.context, settings.context_tokens)?;
        let language = files.language()?;
        let ends = ends(files, &language)?;
        let chat = chat(files, &language)?;
        let Language {
            tokenizer, bytes, ..
        } = language;
        let model = Transformer::load(files, architecture, context, device)?;
        let frequent = settings.shortlist.map(|n| Frequent::new(&model, n));
        let frequent = frequent
            .transpose()
            .map_err(|e| files.error(format!("{e}; leave models.generator.shortlist out")))?;
        let shape = model.shape;
        let token_bytes = shape.layers * 2 * shape.kv_heads * shape.head_dim * size_of::<f32>();
        let cache_tokens = CACHE_BYTES / token_bytes;
        Ok(Self {
            identity,
            model,
            vocabulary: Vocabulary { bytes, ends },
            frequent,
            tokenizer,
            chat,
            context,
            cache_tokens,
            prefixes: Mutex::new(Prefixes::new(cache_tokens)),
        })
    }

    fn error(&self, message: impl ToString) -> ModelError {
        ModelError::Model {
            model: self.identity.name.clone(),
            message: message.to_string(),
        }
    }

    /// What a panic in another thread left is whole: a prompt is put there after it has been read.
    fn prefixes(&self) -> MutexGuard<'_, Prefixes> {
        self.prefixes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The prompt's tokens, if they and `more` tokens fit the context.
    fn encode(&self, prompt: &Prompt, more: usize) -> Result<Vec<u32>, ModelError> {
        let text = self
            .chat
            .render(prompt)
            .map_err(|e| self.error(format!("its chat template fails: {e:#}")))?;
        let tokens = self
            .tokenizer
            .encode(text, false)
            .map_err(|e| self.error(e))?
            .get_ids()
            .to_vec();
        if tokens.len() + more > self.context {
            return Err(self.error(format!(
                "a prompt of {} tokens and {more} more do not fit its context of {}",
                tokens.len(),
                self.context
            )));
        }
        Ok(tokens)
    }

    fn read(&self, tokens: &[u32], prefixes: &mut Prefixes) -> Result<Arc<Prefix>, ModelError> {
        prefixes.get(&self.model, tokens).map_err(|e| self.error(e))
    }

    fn start<'a>(
        &self,
        request: usize,
        (prompt, sampling): &'a (Prompt, Sampling),
        shortlist: Option<&Shortlist>,
        prefixes: &mut Prefixes,
    ) -> Result<Group<'a>, ModelError> {
        let tokens = self.encode(prompt, sampling.max_tokens)?;
        let prefix = self.read(&tokens, prefixes)?;
        let (model, vocabulary) = (&self.model, &self.vocabulary);
        Group::start(model, vocabulary, shortlist, request, prefix, sampling)
            .map_err(|e| self.error(e))
    }

    /// What the continuations of the prompts may draw; none: everything.
    fn shortlist(
        &self,
        requests: &[(Prompt, Sampling)],
    ) -> Result<Option<Shortlist<'_>>, ModelError> {
        let Some(frequent) = &self.frequent else {
            return Ok(None);
        };
        let prompts = requests.iter().map(|(prompt, _)| self.encode(prompt, 0));
        let prompts: Vec<Vec<u32>> = prompts.flatten().collect();
        let list = Shortlist::new(&self.model, frequent, &prompts, &self.vocabulary.ends);
        list.map(Some).map_err(|e| self.error(e))
    }

    /// Whether a prompt may join: always if none is running.
    fn has_room(&self, groups: &[Group], sampling: &Sampling) -> bool {
        let rows: usize = groups.iter().map(Group::rows).sum();
        let tokens: usize = groups.iter().map(Group::tokens).sum();
        groups.is_empty() || (rows + sampling.n <= ROWS && tokens < self.cache_tokens)
    }

    fn score_one(&self, prompt: &Prompt, texts: &[String]) -> Result<Vec<LogProb>, ModelError> {
        let encode = |text: &String| {
            Ok(self
                .tokenizer
                .encode(self.chat.defuse(text), false)?
                .get_ids()
                .to_vec())
        };
        let texts: Vec<Vec<u32>> = texts
            .iter()
            .map(encode)
            .collect::<tokenizers::Result<_>>()
            .map_err(|e| self.error(e))?;
        let tokens = self.encode(prompt, texts.iter().map(Vec::len).max().unwrap_or(0))?;
        let mut prefixes = self.prefixes();
        let prefix = self.read(&tokens, &mut prefixes)?;
        score::score(&self.model, &prefix, &texts).map_err(|e| self.error(e))
    }
}

impl Generate for Decoder {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn context_tokens(&self) -> usize {
        self.context
    }

    fn requests_at_once(&self) -> usize {
        REQUESTS
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        offsets(&self.tokenizer, text).map_err(|e| self.error(e))
    }

    /// Prompts with the same beginning are best put into one call: the beginning is read once.
    fn generate(
        &self,
        requests: &[(Prompt, Sampling)],
    ) -> Vec<Result<Vec<Completion>, ModelError>> {
        let mut results: Vec<Result<Vec<Completion>, ModelError>> =
            requests.iter().map(|_| Ok(Vec::new())).collect();
        let shortlist = match self.shortlist(requests) {
            Ok(shortlist) => shortlist,
            Err(error) => {
                let failed = |_| Err(self.error(&error));
                return requests.iter().map(failed).collect();
            }
        };
        let shortlist = shortlist.as_ref();
        let mut prefixes = self.prefixes();
        let mut groups: Vec<Group> = Vec::new();
        let mut next = 0;
        while next < requests.len() || !groups.is_empty() {
            while next < requests.len() && self.has_room(&groups, &requests[next].1) {
                match self.start(next, &requests[next], shortlist, &mut prefixes) {
                    Ok(group) => groups.push(group),
                    Err(error) => results[next] = Err(error),
                }
                next += 1;
            }
            for group in groups.extract_if(.., |group| group.rows() == 0) {
                let request = group.request;
                results[request] = Ok(group.finish());
            }
            if !groups.is_empty()
                && let Err(error) =
                    generate::step(&self.model, &self.vocabulary, shortlist, &mut groups)
            {
                groups
                    .drain(..)
                    .for_each(|group| results[group.request] = Err(self.error(&error)));
            }
        }
        results
    }
}

impl Score for Decoder {
    fn score(&self, requests: &[(Prompt, Vec<String>)]) -> Vec<Result<Vec<LogProb>, ModelError>> {
        requests
            .iter()
            .map(|(prompt, texts)| self.score_one(prompt, texts))
            .collect()
    }
}

fn context(files: &dyn Files, most: usize, asked: Option<usize>) -> Result<usize, ModelError> {
    match asked {
        Some(asked) if asked > most => Err(files.error(format!(
            "models.generator.context_tokens is {asked}, but the model has a context of {most}; ask for at most that"
        ))),
        Some(asked) => Ok(asked),
        None => Ok(most.min(CONTEXT)),
    }
}

fn ends(files: &dyn Files, language: &Language) -> Result<Vec<u32>, ModelError> {
    let known = ENDS.iter().copied();
    let known = known.filter_map(|token| language.tokenizer.token_to_id(token));
    let ends: Vec<u32> = known.chain(language.ends.iter().copied()).collect();
    match ends.is_empty() {
        true => Err(files.error("no token ends an answer; use a model with an eos token".into())),
        false => Ok(ends),
    }
}

fn chat(files: &dyn Files, language: &Language) -> Result<ChatTemplate, ModelError> {
    let added = language.tokenizer.get_added_tokens_decoder();
    let mut specials: Vec<String> = added.into_values().map(|t| t.content).collect();
    specials.sort();
    let (template, bos, eos) = (&language.chat_template, &language.bos, &language.eos);
    ChatTemplate::new(template.clone(), bos.clone(), eos.clone(), specials)
        .map_err(|e| files.error(format!("its chat template cannot be used: {e:#}")))
}

#[cfg(test)]
mod tests;
