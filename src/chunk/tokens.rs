//! Tokens as the embedder counts them.

use crate::model::{Embed, ModelError};
use crate::text::window_end;

/// Bytes tokenised at once. A tokeniser keeps some hundred bytes for every token, too much for a text of 20 MB.
const WINDOW: usize = 1 << 16;

/// Byte ranges of the tokens of `text`; a text longer than a window is tokenised in parts that end at white space
/// where there is any.
pub fn offsets(text: &str, embedder: &dyn Embed) -> Result<Vec<(usize, usize)>, ModelError> {
    let mut offsets = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = window_end(text, start, WINDOW);
        let tokens = embedder.token_offsets(&text[start..end])?;
        offsets.extend(tokens.into_iter().map(|(a, b)| (start + a, start + b)));
        start = end;
    }
    Ok(offsets)
}

pub(super) fn count(text: &str, embedder: &dyn Embed) -> Result<usize, ModelError> {
    Ok(offsets(text, embedder)?.len())
}
