//! Cuts a sentence that is above the cap by itself.

use std::ops::Range;

use crate::model::Embed;

use super::{ChunkError, tokens};

/// Byte ranges into `text`, in order, that cover all of it but white space, each with the tokens it has when it is
/// tokenised alone: at most `cap`. One range if `text` fits. Cuts lie between tokens and between characters, between
/// words if there is a place in the second half of a part.
pub(super) fn cut(
    text: &str,
    cap: usize,
    embedder: &dyn Embed,
) -> Result<Vec<(Range<usize>, usize)>, ChunkError> {
    let offsets = tokens::offsets(text, embedder)?;
    if offsets.len() <= cap {
        return Ok(vec![(0..text.len(), offsets.len())]);
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let start = text.len() - rest.len();
        let first = offsets.partition_point(|&(begin, _)| begin < start);
        let (end, tokens) = part(text, start, &offsets[first..], cap, embedder)?;
        parts.push((start..end, tokens));
        rest = text[end..].trim_start();
    }
    Ok(parts)
}

/// End and tokens of the part that begins at `start`; `offsets` are the tokens from there on. A part alone can have
/// more tokens than it has inside its sentence, so it is counted, and shortened until it fits.
fn part(
    text: &str,
    start: usize,
    offsets: &[(usize, usize)],
    cap: usize,
    embedder: &dyn Embed,
) -> Result<(usize, usize), ChunkError> {
    let one_character = text.ceil_char_boundary(start + 1);
    let mut wanted = cap;
    loop {
        let end = match (wanted, offsets.get(wanted)) {
            (0, _) => one_character,
            (_, Some(_)) => between_words(text, start, &offsets[wanted / 2..=wanted]),
            (_, None) => text.len(),
        };
        let end = text.floor_char_boundary(end).max(one_character);
        let end = start + text[start..end].trim_end().len();
        let tokens = tokens::count(&text[start..end], embedder)?;
        if tokens <= cap {
            return Ok((end, tokens));
        }
        if end == one_character {
            let character = text[start..].chars().next().unwrap_or_default();
            return Err(ChunkError::Character {
                character,
                tokens,
                cap,
            });
        }
        wanted = wanted.saturating_sub(tokens - cap);
    }
}

/// The last place before one of `tokens` with white space before it, else the place before the last token.
fn between_words(text: &str, start: usize, tokens: &[(usize, usize)]) -> usize {
    let mut places = tokens.iter().rev().map(|&(begin, _)| begin);
    let last = tokens.last().map_or(start, |&(begin, _)| begin);
    places
        .find(|&place| place > start && text.is_char_boundary(place) && starts_word(text, place))
        .unwrap_or(last)
}

fn starts_word(text: &str, place: usize) -> bool {
    text[..place].ends_with(char::is_whitespace) || text[place..].starts_with(char::is_whitespace)
}
