//! An embedder for tests: vectors from the words of a text, and tokenisers with the habits of real ones.

use std::path::PathBuf;

use crate::model::{Embed, Embedded, ModelError, ModelIdentity, TextKind, Vectors};

pub const DIM: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// As WordPiece: white space is no token, words come in pieces of five letters, any other character alone.
    Words,
    /// As byte-level BPE: a run of white space is a token too.
    Spaces,
    /// No tokeniser is this bad: white space between words is three tokens, white space by itself none, and so a text
    /// has more tokens than its sentences.
    Sticky,
}

#[derive(Debug, Clone)]
pub struct Fake {
    pub tokens: Tokens,
    pub max_tokens: usize,
    identity: ModelIdentity,
}

impl Fake {
    pub fn new(tokens: Tokens, max_tokens: usize) -> Self {
        let identity = ModelIdentity {
            name: "fake".into(),
            architecture: "fake".into(),
            files: Vec::new(),
        };
        Self {
            tokens,
            max_tokens,
            identity,
        }
    }
}

impl Embed for Fake {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn dim(&self) -> usize {
        DIM
    }

    fn max_text_tokens(&self) -> usize {
        self.max_tokens
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        if text.contains('\u{0}') {
            return Err(ModelError::File {
                path: PathBuf::from("fake"),
                message: "a null character".into(),
            });
        }
        let mut offsets: Vec<(usize, usize)> = Vec::new();
        let mut run: Option<(Class, usize)> = None;
        for (start, c) in text.char_indices() {
            let end = start + c.len_utf8();
            let class = class(c);
            match run {
                Some((last, length)) if last == class && length < class.longest() => {
                    run = Some((class, length + 1));
                    if let Some(token) = offsets.last_mut().filter(|_| self.counts(class)) {
                        token.1 = end;
                    }
                    continue;
                }
                _ => run = Some((class, 1)),
            }
            let times = match (self.tokens, class) {
                (Tokens::Sticky, Class::Space) => 3 * usize::from(!text.trim().is_empty()),
                _ => usize::from(self.counts(class)),
            };
            offsets.extend(std::iter::repeat_n((start, end), times));
        }
        Ok(offsets)
    }

    fn embed(&self, texts: &[&str], _: TextKind) -> Result<Embedded, ModelError> {
        let values = texts.iter().flat_map(|text| bag_of_words(text)).collect();
        Ok(Embedded {
            vectors: Vectors { dim: DIM, values },
            tokens: vec![0; texts.len()],
            truncated: vec![0; texts.len()],
        })
    }
}

impl Fake {
    fn counts(&self, class: Class) -> bool {
        class != Class::Space || self.tokens == Tokens::Spaces
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Other,
}

impl Class {
    fn longest(self) -> usize {
        match self {
            Class::Space => usize::MAX,
            Class::Letter => 5,
            Class::Other => 1,
        }
    }
}

fn class(c: char) -> Class {
    match c {
        c if c.is_whitespace() => Class::Space,
        c if c.is_alphanumeric() && c < '\u{2e80}' => Class::Letter,
        _ => Class::Other,
    }
}

/// Texts that share words are close.
fn bag_of_words(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0f32; DIM];
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        let hash = word
            .to_lowercase()
            .bytes()
            .fold(0xcbf29ce484222325u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100000001b3)
            });
        vector[(hash >> 32) as usize % DIM] += if hash & 1 == 0 { 1.0 } else { -1.0 };
    }
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
    vector.iter().map(|x| x / norm).collect()
}
