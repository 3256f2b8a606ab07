//! Cuts documents into chunks.
//!
//! What is packed are [`unit::Units`]: sentences, headings, and whole code blocks and tables. Every method is a choice
//! of boundaries between them, so that none can cut inside one; a chunk's own text is then counted in tokens as the
//! embedder sees it, and a chunk found above the cap is cut again.

mod baselines;
mod boundary;
mod coherence;
mod cut;
pub mod dp;
mod fit;
pub mod objective;
mod recursive;
mod serve;
mod tokens;
mod unit;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::job::spec::{self, ChunkMethod};
use crate::model::{Embed, ModelError, TextKind, Vectors};
use crate::text::{CodePoints, analyse};

use objective::Paper;
pub use tokens::offsets as token_offsets;
use unit::Units;

/// Texts in one call of the embedder, which sorts and batches them inside.
const TEXTS_PER_CALL: usize = 4096;

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Unicode code points into the document, half open.
    pub start: usize,
    pub end: usize,
    /// The document from `start` to `end`, exactly.
    pub text: String,
    /// Titles of the sections around the chunk's first text that is not itself a heading, outermost first.
    pub headings: Vec<String>,
    /// Sentences, headings, code blocks and tables in it; also the parts of those above the cap.
    pub sentences: usize,
    /// Tokens of `text` by itself, special tokens not counted.
    pub tokens: usize,
    /// The intents that no other chunk of the document is closer to, best first, then by text.
    pub intents: Vec<ServedIntent>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServedIntent {
    pub text: String,
    /// Cosine of the intent with the mean of the chunk's sentence vectors.
    pub relevance: f32,
}

/// The chunks of one document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chunked {
    pub chunks: Vec<Chunk>,
    /// ISO 639-3, or `und`.
    pub language: String,
    /// Sentences, or lines of code or of a table, that were above the cap by themselves and were cut at tokens.
    pub cut_sentences: usize,
    /// Whether `intent` was asked for and, with no intents or a single sentence, `paragraph` was used.
    pub fallback: bool,
}

/// Cuts `text`. In order, the chunks tile it: they do not overlap, only white space is between them, and none has more
/// tokens than `params.max_tokens` or than a vector can see. The one exception are the windows of `sliding`, which
/// overlap and together cover the text. A text of white space has no chunks.
///
/// - No method but `tokens` and `recursive`, which do not know of them, cuts inside a code block or a table that fits under
///   the cap, nor right after a heading unless nothing follows it or the cap (for `intent`, also `max_sentences`) leaves no
///   other way.
/// - `intent` with no intents, or with a single sentence, is `paragraph`.
/// - The sentences are embedded if the method compares them or there are intents; these are then assigned to chunks
///   whatever the method.
pub fn chunk(
    text: &str,
    intents: &[String],
    params: &spec::Chunk,
    embedder: &dyn Embed,
) -> Result<Chunked, ChunkError> {
    let cap = params
        .max_tokens
        .unwrap_or(usize::MAX)
        .min(embedder.max_text_tokens());
    if cap == 0 {
        return Err(ChunkError::NoRoom {
            max_tokens: params.max_tokens,
            model: embedder.max_text_tokens(),
        });
    }
    let analysis = analyse(text);
    let target = params.target_tokens.clamp(1, cap);
    let given = match params.method {
        ChunkMethod::Tokens => Some(baselines::windows(text, target, embedder)?),
        ChunkMethod::Recursive => Some(recursive::split(text, target, embedder)?),
        _ => None,
    };
    let units = match &given {
        Some(ranges) => Units::given(text, &analysis, ranges, cap, embedder)?,
        None => Units::new(text, &analysis, cap, embedder)?,
    };
    let intents = serve::distinct(intents);
    let vectors = match (intents.is_empty() && !params.method.reads_sentences()) || units.is_empty()
    {
        true => None,
        false => Some(Embedding::new(text, &units, &intents, embedder)?),
    };

    let by_intent = units.len() > 1 && !intents.is_empty();
    let spans = match (params.method, &vectors) {
        (ChunkMethod::Intent, Some(vectors)) if by_intent => {
            by_objective(&units, vectors, cap, params)
        }
        (ChunkMethod::Boundary, Some(vectors)) => {
            let (language, sentences) = (analysis.language, &vectors.sentences);
            boundary::cut(text, language, &units, sentences, target, cap)
        }
        (ChunkMethod::Coherence, Some(vectors)) => {
            coherence::tile(&units, &vectors.sentences, target)
        }
        (ChunkMethod::Cluster, Some(vectors)) => {
            coherence::cluster(&units, &vectors.sentences, target, cap)
        }
        (ChunkMethod::Fixed, _) => baselines::fixed(&units, target, cap),
        (ChunkMethod::Sliding, _) => baselines::sliding(&units, target, params.overlap_tokens, cap),
        (ChunkMethod::Tokens | ChunkMethod::Recursive, _) => {
            (0..units.len()).map(|i| i..i + 1).collect()
        }
        _ => baselines::paragraph(&units, target, cap),
    };
    let spans = fit::fit(text, &units, spans, cap, embedder)?;

    let mut served = match &vectors {
        Some(e) => serve::serve(&spans, &e.sentences, &intents, &e.intents),
        None => vec![Vec::new(); spans.len()],
    };
    let points = code_points(text, &units);
    let chunks = spans
        .iter()
        .zip(&mut served)
        .map(|((span, tokens), served)| Chunk {
            start: points[span.start].0,
            end: points[span.end - 1].1,
            text: text[units.bytes(span)].to_owned(),
            headings: headings(&analysis, &units, span),
            sentences: span.len(),
            tokens: *tokens,
            intents: std::mem::take(served),
        });
    Ok(Chunked {
        chunks: chunks.collect(),
        language: analysis.language.to_owned(),
        cut_sentences: units.cut,
        fallback: params.method == ChunkMethod::Intent && !by_intent && !units.is_empty(),
    })
}

fn by_objective(
    units: &Units,
    vectors: &Embedding,
    cap: usize,
    params: &spec::Chunk,
) -> Vec<Range<usize>> {
    let limits = dp::Limits {
        first: units.reach_back(params.max_sentences.max(1), cap),
        glued: (0..=units.len()).map(|j| units.glued(j)).collect(),
    };
    match params.objective {
        spec::Objective::Paper => {
            let gains = Paper::new(
                &vectors.sentences,
                &vectors.intents,
                params.lambda,
                params.beta,
            );
            dp::segment(&limits, &gains)
        }
    }
}

fn headings(analysis: &crate::text::Analysis, units: &Units, span: &Range<usize>) -> Vec<String> {
    let text = span
        .clone()
        .find(|&i| !units.list[i].heading)
        .unwrap_or(span.start);
    analysis
        .headings(units.list[text].block)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Start and end of every unit in code points.
fn code_points(text: &str, units: &Units) -> Vec<(usize, usize)> {
    let mut points = CodePoints::new(text);
    units
        .list
        .iter()
        .map(|unit| (points.at(unit.start), points.at(unit.end)))
        .collect()
}

/// Vectors of a document's units and of its intents.
struct Embedding {
    sentences: Vectors,
    intents: Vectors,
}

impl Embedding {
    fn new(
        text: &str,
        units: &Units,
        intents: &[&str],
        embedder: &dyn Embed,
    ) -> Result<Self, ChunkError> {
        let sentences: Vec<&str> = units
            .list
            .iter()
            .map(|unit| &text[unit.start..unit.end])
            .collect();
        Ok(Self {
            sentences: embed(&sentences, TextKind::Document, embedder)?,
            intents: embed(intents, TextKind::Query, embedder)?,
        })
    }
}

fn embed(texts: &[&str], kind: TextKind, embedder: &dyn Embed) -> Result<Vectors, ChunkError> {
    let dim = embedder.dim();
    let mut values = Vec::with_capacity(texts.len() * dim);
    for texts in texts.chunks(TEXTS_PER_CALL) {
        let vectors = embedder.embed(texts, kind)?.vectors;
        if vectors.dim != dim || vectors.values.len() != texts.len() * dim {
            return Err(ChunkError::Vectors {
                wanted: texts.len() * dim,
                got: vectors.values.len(),
            });
        }
        values.extend_from_slice(&vectors.values);
    }
    Ok(Vectors { dim, values })
}

/// Why a document could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    #[error(
        "chunks of no tokens: chunk.max_tokens is {max_tokens:?} and the embedder sees {model} tokens of a text; \
         raise chunk.max_tokens, or models.embedder.max_tokens"
    )]
    NoRoom {
        max_tokens: Option<usize>,
        model: usize,
    },
    #[error(
        "the character {character:?} alone is {tokens} tokens, above the cap of {cap}; raise chunk.max_tokens"
    )]
    Character {
        character: char,
        tokens: usize,
        cap: usize,
    },
    #[error("the embedder returned {got} numbers where its vectors of these texts have {wanted}")]
    Vectors { wanted: usize, got: usize },
    #[error(transparent)]
    Model(#[from] ModelError),
}
