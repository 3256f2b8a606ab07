//! Sentences: the smallest parts a document is cut into. Prose is cut by sentencex, code and tables by lines, and a
//! heading is one.

use std::ops::Range;

use super::language::two_letters;
use super::structure::{Block, BlockKind};
use super::window::window_end;

/// Bytes sentencex sees at once. It looks back to the last white space at every full stop, and at every quotation mark
/// and bracket of the paragraph at every one of them: in a script without spaces, or in one line of a whole book,
/// that is quadratic in what it is given.
const WINDOW: usize = 2048;

/// A sentence, a line of code, the row of a table (the first with the line below it), or a heading. Neither empty nor
/// with white space at its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentence {
    /// Bytes, half open.
    pub start: usize,
    pub end: usize,
    /// Index of the block it stands in.
    pub block: usize,
}

pub(super) fn sentences(text: &str, blocks: &[Block], language: &str) -> Vec<Sentence> {
    let language = two_letters(language);
    let mut sentences = Vec::new();
    for (
        block,
        Block {
            kind, start, end, ..
        },
    ) in blocks.iter().enumerate()
    {
        let range = *start..*end;
        let mut push = |part: Range<usize>| {
            let part = trim(text, part);
            if !part.is_empty() {
                sentences.push(Sentence {
                    start: part.start,
                    end: part.end,
                    block,
                });
            }
        };
        match kind {
            BlockKind::Heading { .. } => push(range),
            BlockKind::Code => lines(text, range).for_each(push),
            BlockKind::Table => rows(text, range, push),
            BlockKind::Paragraph | BlockKind::ListItem | BlockKind::Quote | BlockKind::Html => {
                prose(text, range, language, push)
            }
        }
    }
    sentences
}

/// Cuts prose at the ends of its sentences. Each window begins where the last sentence seen did, so that this one is
/// seen whole; if it began in the window's first half it is read on instead, so that every window gains half a window.
fn prose(text: &str, range: Range<usize>, language: &str, mut push: impl FnMut(Range<usize>)) {
    let text = &text[..range.end];
    let (mut sentence, mut window) = (range.start, range.start);
    while window < range.end {
        let stop = window_end(text, window, WINDOW);
        for boundary in sentencex::get_sentence_boundaries(language, &text[window..stop]) {
            let end = window + boundary.end_byte;
            if end < stop && end > sentence {
                push(sentence..end);
                sentence = end;
            }
        }
        let seen = sentence.saturating_sub(window);
        window = if stop < range.end && seen > WINDOW / 2 {
            sentence
        } else {
            stop
        };
    }
    push(sentence..range.end);
}

fn lines(text: &str, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut start = range.start;
    text[range].split_inclusive('\n').map(move |line| {
        let end = start + line.len();
        let line = start..end;
        start = end;
        line
    })
}

/// The line of dashes says nothing without the column names above it.
fn rows(text: &str, range: Range<usize>, mut push: impl FnMut(Range<usize>)) {
    let mut lines = lines(text, range);
    if let Some(names) = lines.next() {
        let end = lines.next().map_or(names.end, |dashes| dashes.end);
        push(names.start..end);
    }
    lines.for_each(push);
}

/// `range` without white space at its ends.
pub(super) fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.end - part.trim_start().len();
    start..start + part.trim().len()
}
