//! Decoder language models from GGUF or safetensors files, run here: what a prompt shares with earlier ones is read once, and the
//! continuations of several prompts are decoded together.
//!
//! A result depends on its own request only, not on the batch or on what was read before. On CPUs without AMX this
//! holds bit for bit for K-quantised files; with AMX, on a GPU, or for unquantised weights it holds up to the rounding
//! of matrix products of other sizes.

mod architecture;
mod attention;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "decoder/no_cuda.rs"]
mod cuda;
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

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Device;
use tokenizers::Tokenizer;

use self::files::{Files, Language};
use self::folder::Folder;
use self::generate::{Group, Vocabulary};
use self::gguf::Gguf;
use self::prefix::{Prefix, Prefixes};
use self::score::Continuation;
use self::shortlist::{Frequent, Shortlist};
use self::transformer::Transformer;
use super::chat::ChatTemplate;
use super::device::{self, is_out_of_memory};
use super::tokenizer::offsets;
use super::{Completion, Generate, LogProb, ModelError, ModelIdentity, Prompt, Sampling, Score};
use crate::job::spec;

/// Context when neither the job nor the file asks for less.
const CONTEXT: usize = 8192;
/// Rows decoded together on the CPU and on a GPU.
const ROWS: usize = 32;
const GPU_ROWS: usize = 1024;
/// Rows for each of the requests that make a full batch. Their prompts stay read, so that they can be scored.
const ROWS_A_REQUEST: usize = 4;
/// Bytes of keys and values kept of prompts that have been read, on the CPU. Prompts of one call that fit together can be
/// scored after it without being read again.
const CACHE_BYTES: usize = 1 << 30;
/// Of the memory that the weights leave free on a GPU, how much is for keys and values: the rest is for activations and logits.
const GPU_CACHE_SHARE: f64 = 0.5;
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
    rows: usize,
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
        if !device.is_cpu() && settings.shortlist.is_some() {
            let message = "models.generator.shortlist is for the CPU, where it saves time; leave it out for a GPU";
            return Err(files.error(message.into()));
        }
        let frequent = settings.shortlist.map(|n| Frequent::new(&model, n));
        let frequent = frequent
            .transpose()
            .map_err(|e| files.error(format!("{e}; leave models.generator.shortlist out")))?;
        let shape = model.shape;
        let numbers = shape.layers * 2 * shape.kv_heads * shape.head_dim;
        let (rows, cache_tokens) = match device::free_memory(device) {
            None => (ROWS, CACHE_BYTES / (numbers * size_of::<f32>())),
            Some(free) => {
                let bytes = (free as f64 * GPU_CACHE_SHARE) as usize;
                (GPU_ROWS, bytes / (numbers * size_of::<half::bf16>()))
            }
        };
        Ok(Self {
            identity,
            model,
            vocabulary: Vocabulary { bytes, ends },
            frequent,
            tokenizer,
            chat,
            context,
            rows,
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

    /// Draws the first tokens of the groups from `running` on, if there are any, and the next of all.
    fn decode(
        &self,
        shortlist: Option<&Shortlist>,
        groups: &mut Vec<Group>,
        running: usize,
    ) -> candle_core::Result<()> {
        let (model, vocabulary) = (&self.model, &self.vocabulary);
        generate::start(model, vocabulary, shortlist, &mut groups[running..])?;
        let mut going: Vec<Group> = groups.extract_if(.., |group| group.rows() > 0).collect();
        let stepped = match going.is_empty() {
            true => Ok(()),
            false => generate::step(model, vocabulary, shortlist, &mut going),
        };
        groups.append(&mut going);
        stepped
    }

    fn read(
        &self,
        prompts: &[Vec<u32>],
        prefixes: &mut Prefixes,
    ) -> Result<Vec<Arc<Prefix>>, ModelError> {
        prefixes
            .get(&self.model, prompts)
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

    /// The waiting prompts that join the groups, as tokens: at least one if none is running.
    fn join(
        &self,
        requests: &[(Prompt, Sampling)],
        waiting: &mut VecDeque<usize>,
        groups: &[Group],
        most: usize,
        results: &mut [Result<Vec<Completion>, ModelError>],
    ) -> (Vec<usize>, Vec<Vec<u32>>) {
        let mut rows: usize = groups.iter().map(Group::rows).sum();
        let mut tokens: usize = groups.iter().map(Group::tokens).sum();
        let (mut joining, mut prompts) = (Vec::new(), Vec::new());
        while let Some(&next) = waiting.front() {
            let (prompt, sampling) = &requests[next];
            let has_room = rows + sampling.n <= most && tokens < self.cache_tokens;
            if !has_room && !(groups.is_empty() && joining.is_empty()) {
                break;
            }
            waiting.pop_front();
            match self.encode(prompt, sampling.max_tokens) {
                Ok(prompt) => {
                    rows += sampling.n;
                    tokens += prompt.len() + sampling.n * sampling.max_tokens;
                    joining.push(next);
                    prompts.push(prompt);
                }
                Err(error) => results[next] = Err(error),
            }
        }
        (joining, prompts)
    }

    /// A prompt and its continuations, as tokens.
    fn continuations(
        &self,
        (prompt, texts): &(Prompt, Vec<String>),
        prefixes: &mut Prefixes,
    ) -> Result<Vec<Continuation>, ModelError> {
        let encode = |text: &String| {
            let encoding = self.tokenizer.encode(self.chat.defuse(text), false)?;
            Ok(encoding.get_ids().to_vec())
        };
        let texts: Vec<Vec<u32>> = texts
            .iter()
            .map(encode)
            .collect::<tokenizers::Result<_>>()
            .map_err(|e| self.error(e))?;
        let tokens = self.encode(prompt, texts.iter().map(Vec::len).max().unwrap_or(0))?;
        let prefix = self.read(&[tokens], prefixes)?.remove(0);
        let texts = texts.into_iter().map(|tokens| Continuation {
            prefix: prefix.clone(),
            tokens,
        });
        Ok(texts.collect())
    }

    /// The scores of some requests' continuations, a list a request.
    fn scores(
        &self,
        requests: &[Vec<Continuation>],
        prefixes: &mut Prefixes,
    ) -> Vec<Result<Vec<LogProb>, ModelError>> {
        let texts: Vec<&Continuation> = requests.iter().flatten().collect();
        let sums = match score::score(&self.model, &texts) {
            Ok(sums) => sums,
            Err(error) if is_out_of_memory(&error) && requests.len() > 1 => {
                let together = requests.len();
                tracing::warn!(
                    "the GPU's memory is too small to score {together} prompts' texts at once"
                );
                prefixes.clear();
                let (first, second) = requests.split_at(requests.len() / 2);
                let mut scores = self.scores(first, prefixes);
                scores.extend(self.scores(second, prefixes));
                return scores;
            }
            Err(error) => return requests.iter().map(|_| Err(self.error(&error))).collect(),
        };
        let mut sums = sums.into_iter();
        let mut one = |text: &Continuation| {
            let sum = sums.next().unwrap_or(f64::NAN);
            let tokens = text.tokens.len();
            match sum.is_finite() {
                true => Ok(LogProb { sum, tokens }),
                false => Err(self.error("a log-probability is not finite")),
            }
        };
        // Every text takes its sum, whether or not one before it failed.
        let scores = requests.iter();
        scores
            .map(|texts| texts.iter().map(&mut one).collect::<Vec<_>>())
            .map(|scores| scores.into_iter().collect())
            .collect()
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
        self.rows / ROWS_A_REQUEST
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
        let mut waiting: VecDeque<usize> = (0..requests.len()).collect();
        let mut groups: Vec<Group> = Vec::new();
        let mut most = self.rows;
        while !waiting.is_empty() || !groups.is_empty() {
            let running = groups.len();
            let (joining, prompts) = self.join(requests, &mut waiting, &groups, most, &mut results);
            let outcome = self.read(&prompts, &mut prefixes);
            let outcome = outcome.and_then(|read| {
                let vocabulary = &self.vocabulary;
                groups.extend(joining.iter().zip(read).map(|(&request, prefix)| {
                    Group::new(vocabulary, shortlist, request, prefix, &requests[request].1)
                }));
                let decoded = self.decode(shortlist, &mut groups, running);
                decoded.map_err(|e| self.error(e))
            });
            for group in groups.extract_if(.., |group| group.rows() == 0) {
                let request = group.request;
                results[request] = Ok(group.finish());
            }
            if let Err(error) = outcome {
                let mut running: Vec<usize> = groups.drain(..).map(|group| group.request).collect();
                running.extend(joining);
                running.sort_unstable();
                running.dedup();
                let rows = running.iter().map(|&request| requests[request].1.n);
                most = rows.sum::<usize>().min(most) / 2;
                let again = is_out_of_memory(&error) && running.len() > 1;
                if again {
                    tracing::warn!(
                        "the GPU's memory is too small; {most} rows are decoded at once"
                    );
                }
                for request in running.into_iter().rev() {
                    match again {
                        // From its first token on: its seeds are the same.
                        true => waiting.push_front(request),
                        false => results[request] = Err(self.error(&error)),
                    }
                }
                prefixes.clear();
            }
        }
        results
    }
}

impl Score for Decoder {
    fn score(&self, requests: &[(Prompt, Vec<String>)]) -> Vec<Result<Vec<LogProb>, ModelError>> {
        let mut prefixes = self.prefixes();
        let mut results: Vec<Result<Vec<LogProb>, ModelError>> = Vec::new();
        let mut pack = Pack::default();
        for (i, request) in requests.iter().enumerate() {
            match self.continuations(request, &mut prefixes) {
                Ok(texts) => {
                    results.push(Ok(Vec::new()));
                    pack.push(i, texts);
                }
                Err(error) => results.push(Err(error)),
            }
            let is_full = pack.tokens >= score::tokens_at_once(&self.model)
                || pack.prompt_tokens >= self.cache_tokens;
            if is_full || i + 1 == requests.len() {
                let Pack { places, texts, .. } = std::mem::take(&mut pack);
                for (place, scores) in places.into_iter().zip(self.scores(&texts, &mut prefixes)) {
                    results[place] = scores;
                }
            }
        }
        results
    }
}

/// Requests whose texts are scored together.
#[derive(Default)]
struct Pack {
    /// Places of the requests.
    places: Vec<usize>,
    texts: Vec<Vec<Continuation>>,
    /// Tokens of the texts, and of the prompts whose keys they need.
    tokens: usize,
    prompt_tokens: usize,
}

impl Pack {
    fn push(&mut self, place: usize, texts: Vec<Continuation>) {
        let last = self.texts.last().and_then(|texts| texts.first());
        if let Some(text) = texts.first()
            && !last.is_some_and(|last| Arc::ptr_eq(&last.prefix, &text.prefix))
        {
            self.prompt_tokens += text.prefix.tokens.len();
        }
        self.tokens += texts.iter().map(|text| text.tokens.len()).sum::<usize>();
        self.places.push(place);
        self.texts.push(texts);
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
