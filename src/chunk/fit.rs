//! The last word on the cap. Spans are chosen by sums over units, and a text can have more tokens than the sum of its
//! parts, so every chunk's own text is counted.

use std::ops::Range;

use rayon::prelude::*;

use crate::model::{Embed, ModelError};

use super::tokens;
use super::unit::Units;

/// The spans, each with the tokens of its text; those above the cap cut into as few as a greedy reading gives, behind
/// headings only if there is no other place.
pub(super) fn fit(
    text: &str,
    units: &Units,
    spans: Vec<Range<usize>>,
    cap: usize,
    embedder: &dyn Embed,
) -> Result<Vec<(Range<usize>, usize)>, ModelError> {
    let fitted: Vec<Vec<(Range<usize>, usize)>> = spans
        .into_par_iter()
        .with_min_len(256)
        .map(|span| fit_one(text, units, span, cap, embedder))
        .collect::<Result<_, _>>()?;
    Ok(fitted.into_iter().flatten().collect())
}

fn fit_one(
    text: &str,
    units: &Units,
    span: Range<usize>,
    cap: usize,
    embedder: &dyn Embed,
) -> Result<Vec<(Range<usize>, usize)>, ModelError> {
    let mut fitted = Vec::new();
    let mut start = span.start;
    while start < span.end {
        let apart = (start + 1..=span.end)
            .rev()
            .filter(|&end| end == span.end || !units.glued(end));
        let behind_headings = (start + 1..span.end).rev().filter(|&end| units.glued(end));
        for end in apart.chain(behind_headings) {
            let part = start..end;
            let tokens = match part.len() {
                1 => units.list[start].tokens,
                _ => tokens::count(&text[units.bytes(&part)], embedder)?,
            };
            if tokens <= cap {
                fitted.push((part, tokens));
                start = end;
                break;
            }
        }
    }
    Ok(fitted)
}
