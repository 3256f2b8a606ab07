//! The methods that look at lengths and structure only.

use std::ops::Range;

use crate::model::Embed;

use super::ChunkError;
use super::cut::cut;
use super::unit::Units;

/// Bytes of windows of at most `target` tokens that end between words.
pub(super) fn windows(
    text: &str,
    target: usize,
    embedder: &dyn Embed,
) -> Result<Vec<Range<usize>>, ChunkError> {
    let windows = cut(text, target, embedder)?;
    Ok(windows.into_iter().map(|(range, _)| range).collect())
}

/// Whole sentences up to `target` tokens.
pub(super) fn fixed(units: &Units, target: usize, cap: usize) -> Vec<Range<usize>> {
    pack(units, |start| span_end(units, start, target, cap, 0))
}

/// Whole blocks up to `target` tokens; one that is longer is cut between its sentences, and a list between its items
/// where that is enough.
pub(super) fn paragraph(units: &Units, target: usize, cap: usize) -> Vec<Range<usize>> {
    pack(units, |start| span_end(units, start, target, cap, 2))
}

/// Windows of whole sentences up to `target` tokens. Each begins with the sentences at the end of the last that have at
/// most `overlap` tokens together, or with fewer if it could not reach beyond the last one otherwise.
pub(super) fn sliding(
    units: &Units,
    target: usize,
    overlap: usize,
    cap: usize,
) -> Vec<Range<usize>> {
    let end_of = |start| span_end(units, start, target, cap, 0);
    let mut windows: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    while start < units.len() {
        let end = end_of(start);
        windows.push(start..end);
        if end == units.len() {
            break;
        }
        let shared = (start + 1..end)
            .rev()
            .take_while(|&first| units.tokens(&(first..end)) <= overlap);
        let mut next = shared.last().unwrap_or(end);
        while next < end && end_of(next) <= end {
            next += 1;
        }
        start = next;
    }
    windows
}

fn pack(units: &Units, end_of: impl Fn(usize) -> usize) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut start = 0;
    while start < units.len() {
        let end = end_of(start);
        spans.push(start..end);
        start = end;
    }
    spans
}

/// End of the longest span from `start` of at most `target` tokens, or of one unit. It ends where the strongest
/// boundary is (`Units::strength`, counting from `strongest` down) and not behind a heading; if there are only
/// headings within the target, it takes the unit behind them too, or the cap parts them.
fn span_end(units: &Units, start: usize, target: usize, cap: usize, strongest: u8) -> usize {
    let mut reach = start + 1;
    while reach < units.len() && units.tokens(&(start..reach + 1)) <= target {
        reach += 1;
    }
    if reach == units.len() {
        return reach;
    }
    let within = |strength| {
        let mut ends = (start + 1..=reach).rev();
        ends.find(|&end| !units.glued(end) && units.strength(end) >= strength)
    };
    let beyond = || {
        let mut ends =
            (reach + 1..=units.len()).take_while(|&end| units.tokens(&(start..end)) <= cap);
        ends.find(|&end| !units.glued(end))
    };
    (0..=strongest)
        .rev()
        .find_map(within)
        .or_else(beyond)
        .unwrap_or(reach)
}
