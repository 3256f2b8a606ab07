//! Cross-encoders: how well a passage answers a question, both read together (arXiv 1901.04085).

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use tokenizers::EncodeInput;

use super::config::Config;
use super::encoder::{Encoder, Linear, Sequence};
use super::reader::Reader;
use super::run::run;
use super::weights::Weights;
use crate::job::spec::Precision;
use crate::model::{ModelError, ModelIdentity};

/// A BERT model with a classification head of one class.
pub struct CrossEncoder {
    identity: ModelIdentity,
    reader: Reader,
    encoder: Encoder,
    pooler: Linear,
    classifier: Linear,
}

impl CrossEncoder {
    /// Reads `config.json`, `tokenizer.json` and `model.safetensors` from a folder.
    pub fn load(
        folder: &Path,
        identity: ModelIdentity,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        let config = Config::read(folder)?;
        let reader = Reader::open(folder, &config, config.max_position_embeddings)?;
        let mut weights = Weights::open(folder, Precision::usual(!device.is_cpu()), device)?;
        let hidden = config.hidden_size;
        let classifier = weights.head("classifier", 1, hidden)?;
        let pooler = Linear {
            weight: super::encoder::Weight::Full(
                weights.take("pooler.dense.weight", &[hidden, hidden])?,
            ),
            bias: Some(weights.take("pooler.dense.bias", &[hidden])?),
        };
        Ok(Self {
            identity,
            reader,
            encoder: Encoder::load(&mut weights, &config, device)?,
            pooler,
            classifier,
        })
    }

    pub fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// The logit of each (question, passage); more is better. A passage is cut where the pair is too long.
    pub fn score(&self, pairs: &[(&str, &str)]) -> std::result::Result<Vec<f32>, ModelError> {
        let error = |message: String| ModelError::Model {
            model: self.identity.name.clone(),
            message,
        };
        let pairs: Vec<EncodeInput> = pairs.iter().map(|&pair| pair.into()).collect();
        let inputs = self.reader.read(pairs).map_err(|e| error(e.to_string()))?;
        let scores = run(&self.encoder.device, None, &inputs, |batch| {
            self.batch(batch)
        });
        let scores = scores.map_err(|e| error(e.to_string()))?;
        match scores.iter().position(|score| !score.is_finite()) {
            Some(i) => Err(error(format!("the score of pair {i} is not finite"))),
            None => Ok(scores),
        }
    }

    fn batch(&self, sequences: &[Sequence]) -> Result<Vec<f32>> {
        let output = self.encoder.forward(sequences)?;
        let firsts = sequences.iter().scan(0u32, |start, sequence| {
            let first = *start;
            *start += sequence.ids.len() as u32;
            Some(first)
        });
        let firsts = Tensor::new(firsts.collect::<Vec<_>>(), output.device())?;
        let dtype = self.encoder.words.dtype();
        let first = output.index_select(&firsts, 0)?.to_dtype(dtype)?;
        // Row by row, so that a score has the same bits in any batch.
        let mut scores = Vec::with_capacity(sequences.len());
        for i in 0..sequences.len() {
            let pooled = self.pooler.forward(&first.narrow(0, i, 1)?)?.tanh()?;
            let logit = self.classifier.forward(&pooled)?.to_dtype(DType::F32)?;
            scores.push(logit.flatten_all()?.to_vec1::<f32>()?[0]);
        }
        Ok(scores)
    }
}
