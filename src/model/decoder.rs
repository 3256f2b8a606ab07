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
mod pack;
mod prefix;
mod rope;
mod sample;
mod schedule;
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
use self::generate::Vocabulary;
use self::gguf::Gguf;
use self::prefix::{Prefix, Prefixes};
use self::shortlist::Frequent;
use self::transformer::Transformer;
use super::chat::ChatTemplate;
use super::device;
use super::{ModelError, ModelIdentity, Prompt};
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

    fn read(
        &self,
        prompts: &[&[u32]],
        prefixes: &mut Prefixes,
    ) -> Result<Vec<Arc<Prefix>>, ModelError> {
        prefixes
            .get(&self.model, prompts)
            .map_err(|e| self.error(e))
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
