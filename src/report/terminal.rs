//! A document for the terminal.

use std::io::{self, Write};

use super::document::{Chunk, Document, Part};

/// The chunks in order, with `┊methods┊` where others cut.
pub fn write(out: &mut dyn Write, document: &Document, method: &str) -> io::Result<()> {
    let title = document.title.as_deref().unwrap_or_default();
    writeln!(
        out,
        "{}  {title}\n{} code points, {} chunks by {method}",
        document.doc_id,
        document.text.chars().count(),
        document.chunks.len()
    )?;
    for other in &document.others {
        let chunks = other.chunks;
        writeln!(out, "  {:<10} {chunks} chunks", other.method)?;
    }
    if !document.others.is_empty() {
        writeln!(out, "┊methods┊ stand where others would begin a chunk")?;
    }
    let parts = document.parts();
    let mut chunks = document.chunks.iter().zip(&parts);
    chunks.try_for_each(|(chunk, parts)| write_chunk(out, chunk, parts))
}

fn write_chunk(out: &mut dyn Write, chunk: &Chunk, parts: &[Part]) -> io::Result<()> {
    let Chunk {
        chunk_id,
        start,
        end,
        tokens,
        ..
    } = chunk;
    writeln!(
        out,
        "\n──── {chunk_id}  {start}..{end}  {tokens} tokens ────"
    )?;
    for (methods, text) in parts {
        if !methods.is_empty() {
            write!(out, "┊{}┊ ", methods.join(" "))?;
        }
        write!(out, "{}", harmless(text))?;
    }
    writeln!(out)?;
    if !chunk.keywords.is_empty() {
        writeln!(out, "  keywords: {}", harmless(&chunk.keywords.join(", ")))?;
    }
    for (text, relevance) in &chunk.intents {
        writeln!(out, "  {relevance:>6.3}  intent    {}", harmless(text))?;
    }
    for question in &chunk.questions {
        let score = question.shown_score();
        let left = if question.indexed {
            ""
        } else {
            "  (not indexed)"
        };
        let (origin, text) = (&question.origin, harmless(&question.text));
        writeln!(out, "  {score:>6}  {origin:<9} {text}{left}")?;
    }
    Ok(())
}

/// A terminal would obey what a document's control characters say.
pub fn harmless(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        // What changes the direction of a line.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        _ if c.is_control() => char::REPLACEMENT_CHARACTER,
        _ => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::document;
    use super::*;

    #[test]
    fn control_characters_are_not_obeyed() {
        assert_eq!(harmless("a\u{1b}[2Jb\tc\n"), "a\u{fffd}[2Jb\tc\n");
    }

    #[test]
    fn everything_is_shown() {
        let mut out = Vec::new();
        write(&mut out, &document(), "boundary").unwrap();
        let expected = "d<1>  Ä & B\n19 code points, 2 chunks by boundary\n  fixed      3 chunks\n  paragraph  2 chunks\n\
                        ┊methods┊ stand where others would begin a chunk\n\
                        \n──── d<1>#0  0..11  6 tokens ────\nOne é. ┊fixed┊ Two.\n  keywords: one, <two>\n   0.625  intent    What is <one>?\n\
                        \x20  1.500  sample    why two?\n  -0.250  sample    who?  (not indexed)\n\
                        \n──── d<1>#1  13..19  2 tokens ────\n┊fixed paragraph┊ Three.\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
