//! A document for the terminal.

use std::io::{self, Write};

use super::document::{Chunk, Document};

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
        let chunks = other.starts.len() + 1;
        writeln!(out, "  {:<10} {chunks} chunks", other.method)?;
    }
    document
        .chunks
        .iter()
        .try_for_each(|chunk| write_chunk(out, document, chunk))
}

fn write_chunk(out: &mut dyn Write, document: &Document, chunk: &Chunk) -> io::Result<()> {
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
    for (methods, text) in document.parts(chunk) {
        if !methods.is_empty() {
            write!(out, "┊{}┊ ", methods.join(" "))?;
        }
        write!(out, "{text}")?;
    }
    writeln!(out)?;
    for (text, relevance) in &chunk.intents {
        writeln!(out, "  {relevance:>6.3}  intent    {text}")?;
    }
    for question in &chunk.questions {
        let gain = question
            .gain
            .map_or("–".into(), |gain| format!("{gain:.3}"));
        let left = if question.indexed {
            ""
        } else {
            "  (not indexed)"
        };
        let (origin, text) = (&question.origin, &question.text);
        writeln!(out, "  {gain:>6}  {origin:<9} {text}{left}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::document;
    use super::*;

    #[test]
    fn everything_is_shown() {
        let mut out = Vec::new();
        write(&mut out, &document(), "boundary").unwrap();
        let expected = "d<1>  Ä & B\n19 code points, 2 chunks by boundary\n  fixed      3 chunks\n  paragraph  2 chunks\n\
                        \n──── d<1>#0  0..11  6 tokens ────\nOne é. ┊fixed┊ Two.\n   0.625  intent    What is <one>?\n\
                        \x20  1.500  sample    why two?\n  -0.250  sample    who?  (not indexed)\n\
                        \n──── d<1>#1  13..19  2 tokens ────\n┊fixed paragraph┊ Three.\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
