//! Learned sparse weights (SPLADE, arXiv 2107.05720): how much each term of the vocabulary says of a text.

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};

use super::config::{Activation, Config};
use super::encoder::{Encoder, Linear, Norm, Sequence, activate};
use super::reader::Reader;
use super::run::run;
use super::weights::Weights;
use crate::job::spec::Precision;
use crate::model::{ModelError, ModelIdentity};

/// Terms whose logits are computed at once, for all tokens of a text.
const TERMS: usize = 8192;

/// A BERT model with a masked-language-model head.
pub struct TermWeigher {
    identity: ModelIdentity,
    reader: Reader,
    encoder: Encoder,
    transform: Linear,
    activation: Activation,
    norm: Norm,
    /// `[vocabulary, hidden]`; published models share it with the word embeddings.
    terms: Tensor,
    /// `[vocabulary]`
    bias: Tensor,
}

/// A term's weight in a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TermWeight {
    /// Id of the term's token.
    pub token: u32,
    /// max over the text's tokens of log(1 + relu(logit)); positive.
    pub weight: f32,
}

/// The terms of a text, by token.
#[derive(Debug, Clone, PartialEq)]
pub struct WeighedTerms {
    pub terms: Vec<TermWeight>,
    /// Tokens of the text that were read, special tokens included.
    pub tokens: usize,
    /// Tokens beyond the model's limit.
    pub truncated: usize,
}

impl TermWeigher {
    /// Reads `config.json`, `tokenizer.json` and `model.safetensors` from a folder.
    pub fn load(
        folder: &Path,
        identity: ModelIdentity,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        const HEAD: &str = "cls.predictions";
        let config = Config::read(folder)?;
        let reader = Reader::open(folder, &config, config.max_position_embeddings)?;
        let mut weights = Weights::open(folder, Precision::usual(!device.is_cpu()), device)?;
        let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
        let transform = format!("{HEAD}.transform.dense");
        if !weights.has(&format!("{transform}.weight")) {
            return Err(weights.error(format!(
                "tensor {transform}.weight is missing; a model for sparse weights has a masked-language-model head"
            )));
        }
        let transform = weights.head(&transform, hidden, hidden)?;
        let norm = weights.exact_norm(&format!("{HEAD}.transform.LayerNorm"), &config)?;
        let own = format!("{HEAD}.decoder.weight");
        let own = match weights.has(&own) {
            true => Some(weights.exact(&own, &[vocabulary, hidden])?),
            false => None,
        };
        let bias = match weights.has(&format!("{HEAD}.bias")) {
            true => format!("{HEAD}.bias"),
            false => format!("{HEAD}.decoder.bias"),
        };
        let bias = weights.exact(&bias, &[vocabulary])?;
        let encoder = Encoder::load(&mut weights, &config, device)?;
        Ok(Self {
            identity,
            reader,
            transform,
            activation: config.hidden_act,
            norm,
            terms: own.unwrap_or_else(|| encoder.words.clone()),
            bias,
            encoder,
        })
    }

    pub fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// The terms of each text. They do not depend on the other texts of the call.
    pub fn weigh(&self, texts: &[&str]) -> std::result::Result<Vec<WeighedTerms>, ModelError> {
        let error = |message: String| ModelError::Model {
            model: self.identity.name.clone(),
            message,
        };
        let texts = texts.iter().map(|&text| text.into()).collect();
        let inputs = self.reader.read(texts).map_err(|e| error(e.to_string()))?;
        let terms = run(&self.encoder.device, None, &inputs, |batch| {
            self.batch(batch)
        });
        let terms = terms.map_err(|e| error(e.to_string()))?;
        let both = terms.into_iter().zip(&inputs);
        Ok(both
            .map(|(terms, input)| WeighedTerms {
                terms,
                tokens: input.ids.len(),
                truncated: input.truncated,
            })
            .collect())
    }

    fn batch(&self, sequences: &[Sequence]) -> Result<Vec<Vec<TermWeight>>> {
        let output = self
            .encoder
            .forward(sequences)?
            .to_dtype(self.terms.dtype())?;
        let mut start = 0;
        let mut all = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let n = sequence.ids.len();
            all.push(self.terms(&output.narrow(0, start, n)?)?);
            start += n;
        }
        Ok(all)
    }

    /// The terms of the tokens `[n, hidden]` of a text. The maximum is taken before the logarithm, of which there are then
    /// as many as terms.
    fn terms(&self, tokens: &Tensor) -> Result<Vec<TermWeight>> {
        let hidden = activate(&self.transform.forward(tokens)?, self.activation)?;
        let hidden = self.norm.forward(&hidden)?;
        let vocabulary = self.bias.elem_count();
        let mut terms = Vec::new();
        for from in (0..vocabulary).step_by(TERMS) {
            let count = TERMS.min(vocabulary - from);
            let logits = hidden.matmul(&self.terms.narrow(0, from, count)?.t()?)?;
            let most = (logits.max(0)? + self.bias.narrow(0, from, count)?)?;
            let most = most.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            for (i, logit) in most.into_iter().enumerate() {
                if logit.is_nan() {
                    candle_core::bail!("the logits are not finite");
                }
                if logit > 0.0 {
                    terms.push(TermWeight {
                        token: (from + i) as u32,
                        weight: logit.ln_1p(),
                    });
                }
            }
        }
        Ok(terms)
    }
}
