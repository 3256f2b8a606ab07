//! What the models need of a tokenizer: byte ranges of tokens, and the bytes a token stands for.

use std::path::Path;

use tokenizers::Tokenizer;

use super::ModelError;

/// Reads a `tokenizer.json` with its truncation and padding switched off: cutting is the caller's business.
pub fn read(path: &Path) -> Result<Tokenizer, ModelError> {
    let fail = |message: String| ModelError::File {
        path: path.into(),
        message,
    };
    if !path.is_file() {
        return Err(fail(
            "not found; the model's folder must hold the tokenizer.json it was published with"
                .into(),
        ));
    }
    let mut tokenizer = Tokenizer::from_file(path)
        .map_err(|e| fail(format!("not a tokenizer: {e}; fetch it again")))?;
    tokenizer
        .with_truncation(None)
        .map_err(|e| fail(e.to_string()))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// Byte ranges of the tokens of `text`, in order, without special tokens.
pub fn offsets(tokenizer: &Tokenizer, text: &str) -> tokenizers::Result<Vec<(usize, usize)>> {
    Ok(tokenizer.encode(text, false)?.get_offsets().to_vec())
}

/// The bytes of every token; special tokens have none.
#[derive(Debug)]
pub struct TokenBytes {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl TokenBytes {
    /// The bytes of each token, in order.
    pub fn new(tokens: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for token in tokens {
            bytes.extend(token);
            ends.push(bytes.len());
        }
        Self { bytes, ends }
    }

    /// Those of a byte-level vocabulary (GPT-2, Qwen).
    pub fn byte_level(tokenizer: &Tokenizer) -> Self {
        let byte_of = byte_of_char();
        let added = tokenizer.get_added_tokens_decoder();
        let bytes = |token: String| {
            let chars = token.chars();
            let bytes = chars.filter_map(|c| byte_of.get(c as usize).copied().flatten());
            bytes.collect()
        };
        let ids = 0..tokenizer.get_vocab_size(true) as u32;
        Self::new(ids.map(|id| match added.contains_key(&id) {
            true => Vec::new(),
            false => tokenizer.id_to_token(id).map(bytes).unwrap_or_default(),
        }))
    }

    /// Those of SentencePiece's vocabulary with byte fallback (Llama 2, Gemma).
    pub fn byte_fallback(tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let bytes = |token: String| {
            let digits = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
            match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            }
        };
        let ids = 0..tokenizer.get_vocab_size(true) as u32;
        Self::new(ids.map(|id| match added.contains_key(&id) {
            true => Vec::new(),
            false => tokenizer.id_to_token(id).map(bytes).unwrap_or_default(),
        }))
    }

    /// The bytes of token `id`; none for a special token or an id outside the vocabulary.
    pub fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        &self.bytes[if id == 0 { 0 } else { self.ends[id - 1] }..end]
    }
}

/// GPT-2's printable stand-ins for bytes, inverted: code point to byte.
fn byte_of_char() -> Vec<Option<u8>> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut table = vec![None; 512];
    let mut next = 256;
    for b in 0..=255u8 {
        if printable(b) {
            table[b as usize] = Some(b);
        } else {
            table[next] = Some(b);
            next += 1;
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_stand_in() {
        let mut bytes: Vec<u8> = byte_of_char().into_iter().flatten().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(byte_of_char()['Ġ' as usize], Some(b' '));
        assert_eq!(byte_of_char()['Ċ' as usize], Some(b'\n'));
    }

    #[test]
    fn a_missing_tokenizer_is_named() {
        let message = read(Path::new("no/tokenizer.json"))
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("no/tokenizer.json: not found"),
            "{message}"
        );
    }
}
