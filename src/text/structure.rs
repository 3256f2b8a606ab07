//! Blocks and headings, by pulldown-cmark. Its tree is flattened to leaves in reading order, and what it drops (link
//! definitions, empty items) is filled in: chunks must tile the document.

use std::ops::Range;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::{front_matter, sentence::trim};

/// A longer heading, in characters, is a paragraph that happens to stand above a line of dashes or behind a `#`.
const LONGEST_HEADING: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Level 1 to 6. Headings inside lists and quotations open no section, and have their container's kind.
    Heading {
        level: u8,
    },
    Paragraph,
    /// One paragraph of a list item, with the item's marker.
    ListItem,
    Quote,
    Code,
    Table,
    Html,
}

/// A leaf of the document, with the marks before it (`- `, `> `).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub kind: BlockKind,
    /// Bytes, half open; neither empty nor with white space at its ends.
    pub start: usize,
    pub end: usize,
    /// Blocks of one list or quotation share a number; any other block has its own.
    pub group: usize,
    /// Index of the innermost section the block stands in; a heading stands in the section above its own.
    pub section: Option<usize>,
}

/// What a heading opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub level: u8,
    /// The heading's text without Markdown's marks.
    pub title: String,
    /// Index of the section it stands in.
    pub parent: Option<usize>,
}

pub(super) fn structure(text: &str) -> (Vec<Block>, Vec<Section>) {
    let mut builder = Builder::new(text);
    // To pulldown it would be a heading, or metadata anywhere in the document.
    let body = front_matter(text).map_or(0, |(_, body)| body);
    builder.push(BlockKind::Code, 0..body);
    for (event, range) in Parser::new_ext(&text[body..], Options::ENABLE_TABLES).into_offset_iter()
    {
        let range = body + range.start..body + range.end;
        match event {
            Event::Start(tag) => builder.open(&tag, range),
            Event::End(tag) => builder.close(tag, range),
            Event::Rule => builder.leaf(BlockKind::Paragraph, range),
            Event::Text(words) | Event::Code(words) => builder.inline(&words, range),
            Event::SoftBreak | Event::HardBreak => builder.inline(" ", range),
            _ => builder.inline("", range),
        }
    }
    builder.fill(text.len());
    (builder.blocks, builder.sections)
}

struct Builder<'a> {
    text: &'a str,
    blocks: Vec<Block>,
    sections: Vec<Section>,
    section: Option<usize>,
    /// Kinds of the open lists, items and quotations.
    containers: Vec<BlockKind>,
    /// What closes the open leaf.
    open: Option<TagEnd>,
    /// Text of a tight list item, which has no paragraph around it.
    bare: Option<Range<usize>>,
    /// All text before this byte is in a block.
    covered: usize,
    group: usize,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            blocks: Vec::new(),
            sections: Vec::new(),
            section: None,
            containers: Vec::new(),
            open: None,
            bare: None,
            covered: 0,
            group: 0,
        }
    }

    fn open(&mut self, tag: &Tag, range: Range<usize>) {
        if self.open.is_some() {
            return;
        }
        match tag {
            Tag::List(_) | Tag::Item => self.enter(BlockKind::ListItem, range),
            Tag::BlockQuote(_) => self.enter(BlockKind::Quote, range),
            Tag::Paragraph => self.start(tag, BlockKind::Paragraph, range),
            Tag::CodeBlock(_) => self.start(tag, BlockKind::Code, range),
            Tag::HtmlBlock => self.start(tag, BlockKind::Html, range),
            Tag::Table(_) => self.start(tag, BlockKind::Table, range),
            Tag::Heading { level, .. } => {
                let long = self.text[range.clone()]
                    .chars()
                    .nth(LONGEST_HEADING)
                    .is_some();
                let level = *level as u8;
                let kind = if long {
                    BlockKind::Paragraph
                } else {
                    BlockKind::Heading { level }
                };
                self.start(tag, kind, range);
            }
            _ => self.inline("", range),
        }
    }

    fn close(&mut self, tag: TagEnd, range: Range<usize>) {
        if self.open == Some(tag) {
            self.open = None;
        } else if self.open.is_none()
            && matches!(tag, TagEnd::List(_) | TagEnd::Item | TagEnd::BlockQuote(_))
        {
            self.flush();
            if self.containers.len() == 1 {
                self.fill(range.end);
            }
            self.containers.pop();
        }
    }

    /// Into a list, an item or a quotation.
    fn enter(&mut self, kind: BlockKind, range: Range<usize>) {
        self.flush();
        if self.containers.is_empty() {
            self.fill(range.start);
            self.group += 1;
        }
        self.containers.push(kind);
    }

    fn start(&mut self, tag: &Tag, kind: BlockKind, range: Range<usize>) {
        self.leaf(kind, range);
        self.open = Some(tag.to_end());
    }

    fn inline(&mut self, words: &str, range: Range<usize>) {
        match (self.open, &mut self.bare) {
            (Some(TagEnd::Heading(_)), _) => self.title(words),
            (Some(_), _) => {}
            (None, Some(bare)) => bare.end = bare.end.max(range.end),
            (None, bare) => *bare = Some(range),
        }
    }

    /// Only a heading that opened a section, and so is the last block, has a title.
    fn title(&mut self, words: &str) {
        let heading = matches!(
            self.blocks.last(),
            Some(Block {
                kind: BlockKind::Heading { .. },
                ..
            })
        );
        if let Some(section) = self.section.filter(|_| heading) {
            self.sections[section].title.push_str(words);
        }
    }

    fn flush(&mut self) {
        if let Some(bare) = self.bare.take() {
            self.leaf(BlockKind::Paragraph, bare);
        }
    }

    /// Text that pulldown passed over becomes a block of its own.
    fn fill(&mut self, until: usize) {
        self.flush();
        if until > self.covered {
            if self.containers.is_empty() {
                self.group += 1;
            }
            self.push(BlockKind::Paragraph, self.covered..until);
        }
    }

    fn leaf(&mut self, kind: BlockKind, range: Range<usize>) {
        self.flush();
        let start = if self.containers.is_empty() {
            self.fill(range.start);
            self.group += 1;
            self.covered.max(range.start)
        } else {
            // The marks of items and quotations belong to what they mark.
            self.covered
        };
        if range.end > start {
            self.push(kind, start..range.end);
        }
    }

    fn push(&mut self, kind: BlockKind, range: Range<usize>) {
        self.covered = range.end;
        let range = trim(self.text, range);
        if range.is_empty() {
            return;
        }
        let kind = match (kind, self.containers.last()) {
            (
                BlockKind::Paragraph | BlockKind::Html | BlockKind::Heading { .. },
                Some(&container),
            ) => container,
            _ => kind,
        };
        let section = match kind {
            BlockKind::Heading { level } => self.section_above(level),
            _ => self.section,
        };
        self.blocks.push(Block {
            kind,
            start: range.start,
            end: range.end,
            group: self.group,
            section,
        });
        if let BlockKind::Heading { level } = kind {
            self.sections.push(Section {
                level,
                title: String::new(),
                parent: section,
            });
            self.section = Some(self.sections.len() - 1);
        }
    }

    fn section_above(&self, level: u8) -> Option<usize> {
        let mut section = self.section;
        while let Some(i) = section.filter(|&i| self.sections[i].level >= level) {
            section = self.sections[i].parent;
        }
        section
    }
}
