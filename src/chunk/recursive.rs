//! Recursive splitting, by the `text-splitter` crate.

use std::ops::Range;

use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};

use crate::model::Embed;
use crate::text::window_end;

use super::{ChunkError, tokens};

/// Bytes split at once. The crate looks through all that is left of a line for each of its chunks.
const WINDOW: usize = 1 << 14;

/// Bytes of the chunks.
pub(super) fn split(
    text: &str,
    target: usize,
    embedder: &dyn Embed,
) -> Result<Vec<Range<usize>>, ChunkError> {
    let tokens = Tokens {
        text,
        offsets: tokens::offsets(text, embedder)?,
    };
    let splitter = TextSplitter::new(ChunkConfig::new(target).with_sizer(tokens));
    let (mut chunks, mut start) = (Vec::new(), 0);
    while start < text.len() {
        let end = end_of_window(text, start);
        let split = splitter.chunk_indices(&text[start..end]);
        chunks.extend(split.map(|(at, chunk)| start + at..start + at + chunk.len()));
        start = end;
    }
    Ok(chunks)
}

/// Behind the last empty line of the window's second half, else its last line, else white space where there is any.
fn end_of_window(text: &str, start: usize) -> usize {
    let end = window_end(text, start, WINDOW);
    let middle = text.ceil_char_boundary(start + WINDOW / 2);
    if end == text.len() || middle >= end {
        return end;
    }
    let second = &text[middle..end];
    let marks = ["\n\n", "\n"].iter();
    let mut ends = marks.filter_map(|mark| Some(second.rfind(mark)? + mark.len()));
    ends.next().map_or(end, |length| middle + length)
}

/// Counts the document's tokens in a part of it: the crate asks for the length of many parts, most of them several times.
struct Tokens<'a> {
    text: &'a str,
    offsets: Vec<(usize, usize)>,
}

impl ChunkSizer for Tokens<'_> {
    fn size(&self, chunk: &str) -> usize {
        // Every part that the crate measures is a slice of the text that it splits.
        let start = chunk.as_ptr() as usize - self.text.as_ptr() as usize;
        let end = start + chunk.len();
        let first = self.offsets.partition_point(|&(begin, _)| begin < start);
        self.offsets[first..].partition_point(|&(begin, _)| begin < end)
    }
}
