//! BERT-family sentence embedders: packed batches of variable length, pooled and normalised as the model's files say.

mod config;
mod cpu;
mod encoder;

use std::path::Path;

use candle_core::Device;
use intendex_kernels::matrix::FEW;
use rayon::prelude::*;
use tokenizers::{EncodeInput, Encoding, Tokenizer};

pub use self::config::normalizes;
use self::config::{Config, Options};
use self::encoder::Encoder;
use super::{Embed, Embedded, ModelError, ModelIdentity, TextKind, Vectors, batch, tokenizer};
use crate::job::spec::{self, Pooling};

/// Matrix products of fewer rows are summed in another order than larger ones. A batch has at least so many tokens, so
/// that a text's vector has the same bits in any batch, and a build that computes a few rows only has the bytes of one
/// that computes all.
const LEAST_TOKENS: usize = FEW;

/// Tokens whose activations a core's cache holds; fewer leave the products too small.
const CORE_TOKENS: usize = 512;

/// A BERT model with its tokenizer.
pub struct BertEmbedder {
    identity: ModelIdentity,
    tokenizer: Tokenizer,
    encoder: Encoder,
    options: Options,
    dim: usize,
    /// Special tokens after the text, kept when a text is cut.
    suffix: usize,
    max_text_tokens: usize,
    batch_tokens: usize,
}

/// A text's tokens as the model reads them, and how many were cut.
struct Input {
    ids: Vec<u32>,
    truncated: usize,
}

impl BertEmbedder {
    /// Reads `config.json`, `tokenizer.json`, `model.safetensors` and sentence-transformers' files from a folder.
    pub fn load(
        folder: &Path,
        identity: ModelIdentity,
        settings: &spec::Embedder,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let config = Config::read(folder)?;
        let options = Options::read(folder, &config, settings)?;
        let path = folder.join("tokenizer.json");
        let tokenizer = tokenizer::read(&path)?;
        let fail = |message: String| ModelError::File {
            path: path.clone(),
            message,
        };
        let vocabulary = tokenizer.get_vocab_size(true);
        if vocabulary > config.vocab_size {
            return Err(fail(format!(
                "has {vocabulary} tokens, but config.json says {}",
                config.vocab_size
            )));
        }
        let read = |text: &str| {
            tokenizer
                .encode(text, true)
                .map_err(|e| fail(e.to_string()))
        };
        let empty = read("")?.len();
        let suffix = read("a")?
            .get_special_tokens_mask()
            .iter()
            .rev()
            .take_while(|&&special| special == 1)
            .count();
        let prefix = read(&options.document_prefix)?.len();
        if prefix >= options.max_tokens {
            return Err(fail(format!(
                "the document prefix alone has {prefix} of {} tokens",
                options.max_tokens
            )));
        }
        let encoder = Encoder::load(folder, &config, device)?;
        Ok(Self {
            identity,
            encoder,
            dim: config.hidden_size,
            suffix: suffix.min(empty),
            max_text_tokens: options.max_tokens - prefix,
            tokenizer,
            options,
            batch_tokens: settings.batch_tokens,
        })
    }

    fn error(&self, message: impl ToString) -> ModelError {
        ModelError::Model {
            model: self.identity.name.clone(),
            message: message.to_string(),
        }
    }

    fn inputs(&self, texts: &[&str], kind: TextKind) -> Result<Vec<Input>, ModelError> {
        let prefix = match kind {
            TextKind::Query => &self.options.query_prefix,
            TextKind::Document => &self.options.document_prefix,
        };
        let texts: Vec<EncodeInput> = texts
            .iter()
            .map(|text| format!("{prefix}{text}").into())
            .collect();
        let encodings = self
            .tokenizer
            .encode_batch_fast(texts, true)
            .map_err(|e| self.error(e))?;
        Ok(encodings
            .iter()
            .map(|encoding| self.cut(encoding))
            .collect())
    }

    /// Cuts a text from its end, but keeps the special tokens there.
    fn cut(&self, encoding: &Encoding) -> Input {
        let (ids, most) = (encoding.get_ids(), self.options.max_tokens);
        let truncated = ids.len().saturating_sub(most);
        let (text, suffix) = ids.split_at(ids.len() - self.suffix.min(ids.len()));
        Input {
            ids: [&text[..text.len() - truncated], suffix].concat(),
            truncated,
        }
    }

    /// Tokens of a batch. On the CPU each thread runs batches of its own; they are as many as there are threads, and as
    /// small as a core's cache.
    fn batch_tokens(&self, lengths: &[usize]) -> usize {
        if !self.encoder.device.is_cpu() {
            return self.batch_tokens;
        }
        let share = lengths
            .iter()
            .sum::<usize>()
            .div_ceil(rayon::current_num_threads());
        share.clamp(1, CORE_TOKENS).min(self.batch_tokens)
    }

    /// Vectors of a batch, row after row, in its order.
    fn run(&self, batch: &[&[u32]]) -> candle_core::Result<Vec<f32>> {
        let filler = [0; LEAST_TOKENS];
        let mut sequences = batch.to_vec();
        if batch.iter().map(|ids| ids.len()).sum::<usize>() < LEAST_TOKENS {
            sequences.push(&filler);
        }
        let lengths: Vec<usize> = sequences.iter().map(|ids| ids.len()).collect();
        let output = self.encoder.forward(&sequences)?;
        let pooled = match self.options.pooling {
            Pooling::Mean => encoder::mean(&output, &lengths)?,
            Pooling::Cls => encoder::first(&output, &lengths)?,
        };
        pooled.narrow(0, 0, batch.len())?.flatten_all()?.to_vec1()
    }
}

impl Embed for BertEmbedder {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn max_text_tokens(&self) -> usize {
        self.max_text_tokens
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        tokenizer::offsets(&self.tokenizer, text).map_err(|e| self.error(e))
    }

    fn embed(&self, texts: &[&str], kind: TextKind) -> Result<Embedded, ModelError> {
        let inputs = self.inputs(texts, kind)?;
        let lengths: Vec<usize> = inputs.iter().map(|input| input.ids.len()).collect();
        let batches = batch::by_tokens(&lengths, self.batch_tokens(&lengths));
        let run = |batch: &Vec<usize>| {
            let ids: Vec<&[u32]> = batch.iter().map(|&i| &inputs[i].ids[..]).collect();
            self.run(&ids).map_err(|e| self.error(e))
        };
        let vectors: Vec<Vec<f32>> = match self.encoder.device.is_cpu() {
            true => batches.par_iter().map(run).collect::<Result<_, _>>()?,
            false => batches.iter().map(run).collect::<Result<_, _>>()?,
        };
        let mut values = vec![0.0; texts.len() * self.dim];
        for (batch, vectors) in batches.iter().zip(vectors) {
            for (&i, vector) in batch.iter().zip(vectors.chunks_exact(self.dim)) {
                let row = &mut values[i * self.dim..][..self.dim];
                row.copy_from_slice(vector);
                if self.options.normalize {
                    normalize(row);
                }
                if row.iter().any(|x| !x.is_finite()) {
                    return Err(self.error(format!(
                        "the vector of text {i} of {} is not finite",
                        texts.len()
                    )));
                }
            }
        }
        let truncated = inputs.iter().map(|input| input.truncated).collect();
        Ok(Embedded {
            vectors: Vectors {
                dim: self.dim,
                values,
            },
            tokens: lengths,
            truncated,
        })
    }
}

/// Scales a vector to length 1; a zero vector stays as it is.
fn normalize(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|&x| x as f64 * x as f64)
        .sum::<f64>()
        .sqrt();
    if length > 0.0 {
        vector
            .iter_mut()
            .for_each(|x| *x = (*x as f64 / length) as f32);
    }
}

#[cfg(test)]
mod tests;
