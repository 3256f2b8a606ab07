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
    let mut rest = span;
    while !rest.is_empty() {
        let (end, tokens) = longest(text, units, &rest, cap, embedder)?;
        fitted.push((rest.start..end, tokens));
        rest.start = end;
    }
    Ok(fitted)
}

/// End and tokens of the longest part of `span`, from its start, that is not above the cap; a unit alone never is.
fn longest(
    text: &str,
    units: &Units,
    span: &Range<usize>,
    cap: usize,
    embedder: &dyn Embed,
) -> Result<(usize, usize), ModelError> {
    let ends = || (span.start + 1..=span.end).rev();
    let parts_heading = |&end: &usize| end < span.end && units.glued(end);
    let apart = ends().filter(|end| !parts_heading(end));
    for end in apart.chain(ends().filter(parts_heading)) {
        let tokens = tokens::count(&text[units.bytes(&(span.start..end))], embedder)?;
        if tokens <= cap {
            return Ok((end, tokens));
        }
    }
    Ok((span.start + 1, units.list[span.start].tokens))
}
