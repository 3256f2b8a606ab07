//! Units: what the methods pack. A unit fits under the cap, and no boundary is ever inside one.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use crate::model::Embed;
use crate::text::{Analysis, BlockKind, Sentence};

use super::cut::cut;
use super::{ChunkError, tokens};

/// A sentence, a heading, a code block, a table, or a part of one that is above the cap.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// Bytes into the document, half open.
    pub start: usize,
    pub end: usize,
    /// Tokens of the unit alone.
    pub tokens: usize,
    /// Index of its block.
    pub block: usize,
    pub heading: bool,
}

/// The units of a document, with prefix sums of their tokens.
pub(super) struct Units {
    pub list: Vec<Unit>,
    /// Tokens of all units and of the white space between them before unit i, as if each were tokenised alone.
    before: Vec<usize>,
    /// Tokens of the white space after unit i: none for WordPiece, some for byte-level tokenisers.
    gap: Vec<usize>,
    /// Group of each unit's block.
    group: Vec<usize>,
    /// Sentences that were cut.
    pub cut: usize,
}

impl Units {
    pub fn new(
        text: &str,
        analysis: &Analysis,
        cap: usize,
        embedder: &dyn Embed,
    ) -> Result<Self, ChunkError> {
        let blocks: Vec<&[Sentence]> = analysis
            .sentences
            .chunk_by(|a, b| a.block == b.block)
            .collect();
        // Only a huge document has enough blocks for rayon to split them.
        let parts: Vec<(Vec<Unit>, usize)> = blocks
            .par_iter()
            .with_min_len(512)
            .map(|sentences| units_of_block(text, sentences, analysis, cap, embedder))
            .collect::<Result<_, _>>()?;
        let cut = parts.iter().map(|(_, cut)| cut).sum();
        let list = parts.into_iter().flat_map(|(units, _)| units).collect();
        Self::of(text, analysis, list, cut, embedder)
    }

    /// Units that are chunks already: these ranges of `text`, those above the cap cut.
    pub fn given(
        text: &str,
        analysis: &Analysis,
        ranges: &[Range<usize>],
        cap: usize,
        embedder: &dyn Embed,
    ) -> Result<Self, ChunkError> {
        let (mut list, mut cuts) = (Vec::new(), 0);
        for range in ranges {
            let part = text[range.clone()].trim_end();
            let start = range.start + part.len() - part.trim_start().len();
            let block = analysis.blocks.partition_point(|block| block.end <= start);
            let parts = match part.trim_start() {
                "" => Vec::new(),
                part => cut(part, cap, embedder)?,
            };
            cuts += usize::from(parts.len() > 1);
            list.extend(parts.into_iter().map(|(part, tokens)| Unit {
                start: start + part.start,
                end: start + part.end,
                tokens,
                block,
                heading: false,
            }));
        }
        Self::of(text, analysis, list, cuts, embedder)
    }

    fn of(
        text: &str,
        analysis: &Analysis,
        list: Vec<Unit>,
        cut: usize,
        embedder: &dyn Embed,
    ) -> Result<Self, ChunkError> {
        let gap = gaps(text, &list, embedder)?;
        let mut before = Vec::with_capacity(list.len() + 1);
        let mut total = 0;
        for (unit, gap) in list.iter().zip(&gap) {
            before.push(total);
            total += unit.tokens + gap;
        }
        before.push(total);
        let group = list
            .iter()
            .map(|unit| analysis.blocks[unit.block].group)
            .collect();
        Ok(Self {
            list,
            before,
            gap,
            group,
            cut,
        })
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Tokens of a span that is not empty. An estimate: tokens can differ where two units meet.
    pub fn tokens(&self, span: &Range<usize>) -> usize {
        self.before[span.end] - self.before[span.start] - self.gap[span.end - 1]
    }

    pub fn bytes(&self, span: &Range<usize>) -> Range<usize> {
        self.list[span.start].start..self.list[span.end - 1].end
    }

    /// Whether a boundary before unit `j` would part a heading from what follows.
    pub fn glued(&self, j: usize) -> bool {
        0 < j && j < self.len() && self.list[j - 1].heading
    }

    /// Whether unit `j` begins a block and a list, or another block outside lists (2), a block (1), or neither (0).
    pub fn strength(&self, j: usize) -> u8 {
        if j == 0 || j == self.len() || self.group[j] != self.group[j - 1] {
            2
        } else {
            u8::from(self.list[j].block != self.list[j - 1].block)
        }
    }

    /// For each end `j` from 1 to N, the first unit a span may begin with: at most `most` units and `cap` tokens. A unit
    /// alone is always a span.
    pub fn reach_back(&self, most: usize, cap: usize) -> Vec<usize> {
        let mut first = 0;
        let ends = 1..=self.len();
        ends.map(|j| {
            while first + 1 < j && (j - first > most || self.tokens(&(first..j)) > cap) {
                first += 1;
            }
            first
        })
        .collect()
    }
}

/// Tokens of the white space after each unit. It is nearly always one of a few strings.
fn gaps(text: &str, units: &[Unit], embedder: &dyn Embed) -> Result<Vec<usize>, ChunkError> {
    let mut known: HashMap<&str, usize> = HashMap::new();
    let mut gaps = Vec::with_capacity(units.len());
    for (i, unit) in units.iter().enumerate() {
        let next = units.get(i + 1).map_or(unit.end, |next| next.start);
        let space = &text[unit.end..next];
        let tokens = match known.get(space) {
            Some(&tokens) => tokens,
            None => tokens::count(space, embedder)?,
        };
        known.insert(space, tokens);
        gaps.push(tokens);
    }
    Ok(gaps)
}

/// The units of one block, and how many sentences were cut for them.
fn units_of_block(
    text: &str,
    sentences: &[Sentence],
    analysis: &Analysis,
    cap: usize,
    embedder: &dyn Embed,
) -> Result<(Vec<Unit>, usize), ChunkError> {
    let block = sentences[0].block;
    let kind = analysis.blocks[block].kind;
    let heading = matches!(kind, BlockKind::Heading { .. });
    let unit = |range: &Range<usize>, tokens| Unit {
        start: range.start,
        end: range.end,
        tokens,
        block,
        heading,
    };
    let whole = sentences[0].start..sentences[sentences.len() - 1].end;
    let indivisible = matches!(kind, BlockKind::Code | BlockKind::Table);
    if indivisible {
        let tokens = tokens::count(&text[whole.clone()], embedder)?;
        if tokens <= cap {
            return Ok((vec![unit(&whole, tokens)], 0));
        }
    }

    let (mut units, mut cuts) = (Vec::new(), 0);
    for sentence in sentences {
        let parts = cut(&text[sentence.start..sentence.end], cap, embedder)?;
        cuts += usize::from(parts.len() > 1);
        for (part, tokens) in parts {
            units.push(unit(
                &(sentence.start + part.start..sentence.start + part.end),
                tokens,
            ));
        }
    }
    if indivisible {
        units = pack_lines(text, units, cap, embedder)?;
    }
    Ok((units, cuts))
}

/// Joins the lines of a code block or a table above the cap to units as long as the cap allows.
fn pack_lines(
    text: &str,
    lines: Vec<Unit>,
    cap: usize,
    embedder: &dyn Embed,
) -> Result<Vec<Unit>, ChunkError> {
    let mut units: Vec<Unit> = Vec::new();
    for line in lines {
        if let Some(last) = units
            .last_mut()
            .filter(|last| last.tokens + line.tokens <= cap)
        {
            let tokens = tokens::count(&text[last.start..line.end], embedder)?;
            if tokens <= cap {
                (last.end, last.tokens) = (line.end, tokens);
                continue;
            }
        }
        units.push(line);
    }
    Ok(units)
}
