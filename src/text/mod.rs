//! What a document is made of: blocks, the headings above them, sentences, language.
//!
//! Everything here is a pure function of the text, linear in its length, and total: any `&str` has an analysis.

mod front_matter;
mod language;
mod offset;
mod sentence;
mod structure;
mod window;

#[cfg(test)]
pub(crate) mod tests;

pub use front_matter::front_matter;
pub use language::{UNDETERMINED, language};
pub use offset::CodePoints;
pub use sentence::Sentence;
pub use structure::{Block, BlockKind, Section};
pub(crate) use window::window_end;

/// The parts of one document. All offsets are bytes into its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// ISO 639-3, or [`UNDETERMINED`].
    pub language: &'static str,
    /// In order, without overlap; they cover all of the text but white space.
    pub blocks: Vec<Block>,
    /// The sections that headings open, in the order of their headings.
    pub sections: Vec<Section>,
    /// In order, without overlap; they cover all of the text but white space.
    pub sentences: Vec<Sentence>,
}

impl Analysis {
    /// Titles of the sections a block stands in, outermost first, without Markdown's marks. A heading's own title is
    /// not among them: it opens a section and does not stand in it.
    pub fn headings(&self, block: usize) -> Vec<&str> {
        let mut path = Vec::new();
        let mut section = self.blocks[block].section;
        while let Some(i) = section {
            if !self.sections[i].title.is_empty() {
                path.push(self.sections[i].title.as_str());
            }
            section = self.sections[i].parent;
        }
        path.reverse();
        path
    }
}

/// Takes a document apart. Plain text is Markdown without marks: paragraphs between empty lines.
pub fn analyse(text: &str) -> Analysis {
    let language = language(text);
    let (blocks, sections) = structure::structure(text);
    let sentences = sentence::sentences(text, &blocks, language);
    Analysis {
        language,
        blocks,
        sections,
        sentences,
    }
}
