//! A document as a page of HTML that needs no other file.

use std::io::{self, Write};

use super::document::{Chunk, Document, Part};

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}\
section{border-left:4px solid #47a;margin:1em 0;padding:.2em 1em;background:#f6f8fb}\
section:nth-of-type(even){border-color:#a74;background:#fbf8f4}\
h2{font-size:.8em;font-weight:normal;color:#667;margin:.3em 0}\
p{white-space:pre-wrap;margin:.3em 0}\
mark{background:#fd9;font-size:.7em;padding:0 .3em;margin:0 .2em;border-radius:.3em}\
table{font-size:.85em;border-spacing:.6em 0}td:first-child{text-align:right;font-variant-numeric:tabular-nums}\
.left{color:#999}";

/// Chunks one below the other, a mark with the methods' names where others cut.
pub fn write(out: &mut dyn Write, document: &Document, method: &str) -> io::Result<()> {
    let id = escaped(&document.doc_id);
    let title = escaped(document.title.as_deref().unwrap_or(&document.doc_id));
    writeln!(
        out,
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head><body>\n\
         <h1>{title}</h1>\n<p>{id}: {} code points, {} chunks by {method}{}</p>",
        document.text.chars().count(),
        document.chunks.len(),
        document
            .others
            .iter()
            .map(|other| format!(", {} by {}", other.chunks, other.method))
            .collect::<String>()
    )?;
    if !document.others.is_empty() {
        writeln!(
            out,
            "<p><mark>methods</mark> stand where others would begin a chunk.</p>"
        )?;
    }
    for (chunk, parts) in document.chunks.iter().zip(&document.parts()) {
        write_chunk(out, chunk, parts)?;
    }
    writeln!(out, "</body></html>")
}

fn write_chunk(out: &mut dyn Write, chunk: &Chunk, parts: &[Part]) -> io::Result<()> {
    let (id, tokens) = (escaped(&chunk.chunk_id), chunk.tokens);
    let (start, end) = (chunk.start, chunk.end);
    write!(
        out,
        "<section><h2>{id} · {start}..{end} · {tokens} tokens</h2><p>"
    )?;
    for (methods, text) in parts {
        if !methods.is_empty() {
            write!(out, "<mark>{}</mark>", methods.join(" "))?;
        }
        write!(out, "{}", escaped(text))?;
    }
    write!(out, "</p>")?;
    if !chunk.keywords.is_empty() {
        let keywords = escaped(&chunk.keywords.join(", "));
        write!(out, "<p class=\"keywords\">Keywords: {keywords}</p>")?;
    }
    if chunk.intents.is_empty() && chunk.questions.is_empty() {
        return writeln!(out, "</section>");
    }
    write!(out, "<table>")?;
    for (text, relevance) in &chunk.intents {
        let text = escaped(text);
        write!(
            out,
            "<tr><td>{relevance:.3}</td><td>intent</td><td>{text}</td></tr>"
        )?;
    }
    for question in &chunk.questions {
        let score = question.shown_score();
        let class = match question.indexed {
            true => "",
            false => " class=\"left\" title=\"not indexed\"",
        };
        let (origin, text) = (escaped(&question.origin), escaped(&question.text));
        write!(
            out,
            "<tr{class}><td>{score}</td><td>{origin}</td><td>{text}</td></tr>"
        )?;
    }
    writeln!(out, "</table></section>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::document::tests::document;
    use super::*;

    #[test]
    fn text_is_escaped_and_others_are_marked() {
        let mut out = Vec::new();
        write(&mut out, &document(), "boundary").unwrap();
        let page = String::from_utf8(out).unwrap();
        for part in [
            "<h1>Ä &amp; B</h1>",
            "d&lt;1&gt;: 19 code points, 2 chunks by boundary, 3 by fixed, 2 by paragraph",
            "One é. <mark>fixed</mark>Two.</p>",
            "Keywords: one, &lt;two&gt;</p>",
            "<td>0.625</td><td>intent</td><td>What is &lt;one&gt;?</td>",
            "<tr class=\"left\" title=\"not indexed\"><td>-0.250</td>",
            "<mark>fixed paragraph</mark>Three.",
        ] {
            assert!(page.contains(part), "{part} not in {page}");
        }
        assert_eq!(
            page.matches("<section>").count(),
            page.matches("</section>").count()
        );
    }
}
