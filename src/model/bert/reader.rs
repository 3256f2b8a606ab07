//! Texts as the tokens that a BERT model reads, cut to what it takes.

use std::path::Path;

use tokenizers::{EncodeInput, Encoding, Tokenizer};

use super::config::Config;
use super::encoder::Sequence;
use crate::model::{ModelError, tokenizer};

/// A model's tokenizer with the model's limits.
pub struct Reader {
    pub tokenizer: Tokenizer,
    /// Longest input, special tokens included.
    pub max_tokens: usize,
    /// Special tokens after the text, kept when a text is cut.
    suffix: usize,
}

/// A text's tokens as the model reads them, or a pair's, and how many were cut.
pub struct Input {
    pub ids: Vec<u32>,
    /// Where the second text of a pair begins.
    second: usize,
    pub truncated: usize,
}

impl Input {
    pub fn sequence(&self) -> Sequence<'_> {
        Sequence {
            ids: &self.ids,
            second: self.second,
        }
    }
}

impl Reader {
    /// Reads `tokenizer.json`.
    pub fn open(folder: &Path, config: &Config, max_tokens: usize) -> Result<Self, ModelError> {
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
        Ok(Self {
            tokenizer,
            max_tokens,
            suffix: suffix.min(empty),
        })
    }

    /// The tokens of a text, special tokens included, uncut.
    pub fn length(&self, text: &str) -> tokenizers::Result<usize> {
        Ok(self.tokenizer.encode(text, true)?.len())
    }

    /// Texts, or pairs of texts, as the model reads them.
    pub fn read(&self, texts: Vec<EncodeInput>) -> tokenizers::Result<Vec<Input>> {
        let encodings = self.tokenizer.encode_batch_fast(texts, true)?;
        Ok(encodings
            .iter()
            .map(|encoding| self.cut(encoding))
            .collect())
    }

    /// Cuts a text from its end, but keeps the special tokens there.
    fn cut(&self, encoding: &Encoding) -> Input {
        let (ids, types) = (encoding.get_ids(), encoding.get_type_ids());
        let truncated = ids.len().saturating_sub(self.max_tokens);
        let (text, suffix) = ids.split_at(ids.len() - self.suffix.min(ids.len()));
        Input {
            ids: [&text[..text.len() - truncated], suffix].concat(),
            second: types
                .iter()
                .position(|&kind| kind == 1)
                .unwrap_or(ids.len()),
            truncated,
        }
    }
}
