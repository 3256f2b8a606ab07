//! The chunkers that are compared, each with the one parameter that sets its length.

use std::collections::HashMap;
use std::sync::Mutex;

use rayon::prelude::*;

use super::ChunksError;
use super::score::Piece;
use super::set::Set;
use super::span::Span;
use crate::chunk::chunk;
use crate::job::spec::{self, ChunkMethod};
use crate::model::{Embed, Embedded, ModelError, ModelIdentity, TextKind, Vectors};

/// How far a mean may be from the length asked for.
const TOLERANCE: f64 = 0.05;

/// Steps of the search for a parameter.
const STEPS: usize = 16;

/// The settings for a size from 0 (shortest chunks) to 1, and what the method's parameter then is: λ of `intent`, whose
/// published objective has no target length, else that length.
fn settings(method: ChunkMethod, size: f64, cap: usize) -> (spec::Chunk, f64) {
    let target = (1.0 + size * (cap as f64 - 1.0)).round();
    let lambda = 10f64.powf(-5.0 * size);
    let settings = spec::Chunk {
        method,
        max_tokens: Some(cap),
        target_tokens: target as usize,
        overlap_tokens: target as usize / 5,
        lambda: lambda as f32,
        ..spec::Chunk::default()
    };
    let parameter = match method {
        ChunkMethod::Intent => lambda,
        _ => target,
    };
    (settings, parameter)
}

/// A set as a method cuts it.
pub struct Cut {
    pub pieces: Vec<Piece>,
    pub mean_tokens: f64,
    /// The target length, or λ.
    pub parameter: f64,
}

/// Cuts the set so that the mean chunk has about `length` tokens; None if no parameter of the method does.
pub fn cut_to(
    method: ChunkMethod,
    length: usize,
    cap: usize,
    (set, intents): (&Set, &Intents),
    embedder: &dyn Embed,
) -> Result<Option<Cut>, ChunksError> {
    let wanted = length as f64;
    let (mut low, mut high) = (0.0, 1.0);
    let mut best: Option<Cut> = None;
    for _ in 0..STEPS {
        let size = (low + high) / 2.0;
        let (settings, parameter) = settings(method, size, cap);
        let pieces = cut(set, intents, &settings, embedder)?;
        let tokens: usize = pieces.iter().map(|piece| piece.tokens).sum();
        let mean_tokens = tokens as f64 / pieces.len().max(1) as f64;
        let off = |mean: f64| (mean - wanted).abs();
        if best
            .as_ref()
            .is_none_or(|best| off(mean_tokens) < off(best.mean_tokens))
        {
            best = Some(Cut {
                pieces,
                mean_tokens,
                parameter,
            });
        }
        if off(mean_tokens) < TOLERANCE / 10.0 * wanted {
            break;
        }
        match mean_tokens < wanted {
            true => low = size,
            false => high = size,
        }
    }
    let near = |cut: &Cut| (cut.mean_tokens - wanted).abs() <= TOLERANCE * wanted;
    Ok(best.filter(near))
}

/// Predicted questions, by document.
pub type Intents = HashMap<String, Vec<String>>;

fn cut(
    set: &Set,
    intents: &Intents,
    settings: &spec::Chunk,
    embedder: &dyn Embed,
) -> Result<Vec<Piece>, ChunksError> {
    let none = Vec::new();
    let documents = set.documents.par_iter().enumerate().map(|(i, document)| {
        let intents = match settings.method {
            ChunkMethod::Intent => intents.get(&document.id).unwrap_or(&none),
            _ => &none,
        };
        let chunked = chunk(&document.text, intents, settings, embedder)?;
        let piece = |chunk: crate::chunk::Chunk| Piece {
            span: Span {
                document: i,
                start: chunk.start,
                end: chunk.end,
            },
            tokens: document.tokens(chunk.start, chunk.end),
            text: chunk.text,
        };
        Ok(chunked.chunks.into_iter().map(piece).collect())
    });
    let pieces: Vec<Vec<Piece>> = documents.collect::<Result<_, ChunksError>>()?;
    Ok(pieces.into_iter().flatten().collect())
}

/// Vector, tokens and truncated tokens of a text.
type Remembered = (Vec<f32>, usize, usize);

/// An embedder that remembers: the search for a length cuts the same sentences many times.
pub struct Remembering<'a> {
    embedder: &'a dyn Embed,
    known: Mutex<HashMap<(bool, String), Remembered>>,
}

impl<'a> Remembering<'a> {
    pub fn new(embedder: &'a dyn Embed) -> Self {
        Self {
            embedder,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(bool, String), Remembered>> {
        self.known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Embed for Remembering<'_> {
    fn identity(&self) -> &ModelIdentity {
        self.embedder.identity()
    }

    fn dim(&self) -> usize {
        self.embedder.dim()
    }

    fn max_text_tokens(&self) -> usize {
        self.embedder.max_text_tokens()
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        self.embedder.token_offsets(text)
    }

    fn embed(&self, texts: &[&str], kind: TextKind) -> Result<Embedded, ModelError> {
        let key = |text: &str| (kind == TextKind::Query, text.to_owned());
        let mut new: Vec<&str> = {
            let known = self.known();
            let is_new = |text: &&str| !known.contains_key(&key(text));
            texts.iter().copied().filter(is_new).collect()
        };
        new.sort_unstable();
        new.dedup();
        if !new.is_empty() {
            let of = self.embedder.embed(&new, kind)?;
            let row = |(i, text): (usize, &&str)| {
                let vector = of.vectors.row(i).to_vec();
                (key(text), (vector, of.tokens[i], of.truncated[i]))
            };
            self.known().extend(new.iter().enumerate().map(row));
        }
        let known = self.known();
        let rows: Vec<&Remembered> = texts.iter().map(|text| &known[&key(text)]).collect();
        Ok(Embedded {
            vectors: Vectors {
                dim: self.dim(),
                values: rows.iter().flat_map(|row| row.0.iter().copied()).collect(),
            },
            tokens: rows.iter().map(|row| row.1).collect(),
            truncated: rows.iter().map(|row| row.2).collect(),
        })
    }
}
