//! BERT-family models: sentence embedders, weights of sparse terms and cross-encoders, over packed batches of variable
//! length.

mod config;
mod cpu;
mod cross;
mod encoder;
mod reader;
mod run;
mod terms;
mod weights;

use std::path::Path;
use std::sync::mpsc::sync_channel;

use candle_core::Device;

pub use self::config::normalizes;
use self::config::{Config, Options};
pub use self::cross::CrossEncoder;
use self::encoder::Encoder;
use self::reader::{Input, Reader};
use self::run::run;
pub use self::terms::{TermWeigher, TermWeight, WeighedTerms};
use self::weights::Weights;
pub use self::weights::number_type;
use super::{Embed, Embedded, ModelError, ModelIdentity, TextKind, Vectors, tokenizer};
use crate::job::spec;

/// Texts that are tokenised while a GPU works on as many others.
const AHEAD: usize = 512;

/// A BERT model with its tokenizer: one vector a text, pooled and normalised as the model's files say.
pub struct BertEmbedder {
    identity: ModelIdentity,
    reader: Reader,
    encoder: Encoder,
    options: Options,
    dim: usize,
    max_text_tokens: usize,
    batch_tokens: Option<usize>,
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
        let reader = Reader::open(folder, &config, options.max_tokens)?;
        let fail = |message: String| ModelError::File {
            path: folder.join("tokenizer.json"),
            message,
        };
        let prefix = reader
            .length(&options.document_prefix)
            .map_err(|e| fail(e.to_string()))?;
        if prefix >= options.max_tokens {
            return Err(fail(format!(
                "the document prefix alone has {prefix} of {} tokens",
                options.max_tokens
            )));
        }
        let mut weights = Weights::open(folder, settings.numbers(!device.is_cpu()), device)?;
        Ok(Self {
            identity,
            encoder: Encoder::load(&mut weights, &config, device)?,
            dim: config.hidden_size,
            max_text_tokens: options.max_tokens - prefix,
            reader,
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
        let texts = texts.iter().map(|text| format!("{prefix}{text}").into());
        self.reader.read(texts.collect()).map_err(|e| self.error(e))
    }

    /// Vectors of the inputs, in order.
    fn vectors(&self, inputs: &[Input]) -> Result<Vec<Vec<f32>>, ModelError> {
        let vectors = run(&self.encoder.device, self.batch_tokens, inputs, |batch| {
            let output = self.encoder.forward(batch)?;
            let pooled = self.encoder.pool(&output, batch, self.options.pooling)?;
            Ok(pooled.chunks_exact(self.dim).map(<[f32]>::to_vec).collect())
        });
        let mut vectors = vectors.map_err(|e| self.error(e))?;
        if self.options.normalize {
            vectors.iter_mut().for_each(|vector| normalize(vector));
        }
        Ok(vectors)
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
        tokenizer::offsets(&self.reader.tokenizer, text).map_err(|e| self.error(e))
    }

    /// While a GPU works, the next texts are tokenised; on the CPU both take all its threads.
    fn embed(&self, texts: &[&str], kind: TextKind) -> Result<Embedded, ModelError> {
        let ahead = match self.encoder.device.is_cpu() {
            true => texts.len().max(1),
            false => AHEAD,
        };
        let mut embedded = Embedded {
            vectors: Vectors {
                dim: self.dim,
                values: Vec::with_capacity(texts.len() * self.dim),
            },
            tokens: Vec::with_capacity(texts.len()),
            truncated: Vec::with_capacity(texts.len()),
        };
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            let mut parts = texts.chunks(ahead);
            let first = parts.next().map(|part| self.inputs(part, kind));
            if parts.len() > 0 {
                scope.spawn(move || {
                    // Nobody receives once a part has failed.
                    parts.all(|part| sender.send(self.inputs(part, kind)).is_ok())
                });
            } else {
                drop(sender);
            }
            for inputs in first.into_iter().chain(receiver) {
                let inputs = inputs?;
                for (input, vector) in inputs.iter().zip(self.vectors(&inputs)?) {
                    if vector.iter().any(|x| !x.is_finite()) {
                        return Err(self.error(format!(
                            "the vector of text {} of {} is not finite",
                            embedded.tokens.len(),
                            texts.len()
                        )));
                    }
                    embedded.vectors.values.extend(vector);
                    embedded.tokens.push(input.ids.len());
                    embedded.truncated.push(input.truncated);
                }
            }
            Ok(embedded)
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
