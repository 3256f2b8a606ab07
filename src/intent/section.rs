//! Packs a document into sections that the generator reads one at a time.

use std::ops::Range;

use super::question_count;
use crate::{
    job::spec,
    model::{Generate, ModelError},
    text::{self, BlockKind},
};

#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    pub bytes: Range<usize>,
    pub chars: Range<usize>,
    /// Questions to ask of it.
    pub questions: usize,
    /// Tokens of its only sentence that the generator does not read, as it is longer than a section may be.
    pub truncated: usize,
}

/// Whole sentences up to `section_tokens` of the generator; a heading starts a new section once the open one is half
/// full. A single longer sentence is a section of its own, cut to the limit. The document's questions are shared out
/// by length.
pub fn sections(
    text: &str,
    settings: &spec::Intents,
    generator: &dyn Generate,
) -> Result<Vec<Section>, ModelError> {
    let analysis = text::analyse(text);
    let tokens = generator.token_offsets(text)?;
    let mut sections: Vec<Open> = Vec::new();
    let mut token = 0;
    let mut held = 0;
    for sentence in &analysis.sentences {
        let first = token;
        while tokens.get(token).is_some_and(|t| t.0 < sentence.end) {
            token += 1;
        }
        let length = token - first;
        let heading = matches!(
            analysis.blocks[sentence.block].kind,
            BlockKind::Heading { .. }
        );
        let full = held + length > settings.section_tokens
            || (heading && 2 * held >= settings.section_tokens);
        match sections.last_mut() {
            Some(open) if !full => {
                open.bytes.end = sentence.end;
                open.sentences += 1;
                held += length;
            }
            _ => {
                let cut = tokens
                    .get(first + settings.section_tokens)
                    .map_or(sentence.end, |t| t.0);
                let end = text
                    .floor_char_boundary(cut.min(sentence.end))
                    .max(sentence.start);
                let truncated = length.saturating_sub(settings.section_tokens);
                sections.push(Open {
                    bytes: sentence.start..end,
                    sentences: 1,
                    truncated,
                });
                held = length;
            }
        }
    }
    Ok(share_out(
        text,
        sections,
        question_count(analysis.sentences.len()),
    ))
}

struct Open {
    bytes: Range<usize>,
    sentences: usize,
    truncated: usize,
}

fn share_out(text: &str, sections: Vec<Open>, questions: usize) -> Vec<Section> {
    let sentences: usize = sections.iter().map(|s| s.sentences).sum();
    let mut chars = text::CodePoints::new(text);
    let mut seen = 0;
    let mut asked = 0;
    let mut shared = Vec::with_capacity(sections.len());
    for Open {
        bytes,
        sentences: length,
        truncated,
    } in sections
    {
        seen += length;
        let due = (questions * seen).div_ceil(sentences.max(1));
        let questions = due.saturating_sub(asked);
        asked += questions;
        let chars = chars.at(bytes.start)..chars.at(bytes.end);
        shared.push(Section {
            bytes,
            chars,
            questions,
            truncated,
        });
    }
    // More sections than questions: those without one are not read.
    shared.retain(|s: &Section| s.questions > 0);
    shared
}
