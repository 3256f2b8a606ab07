//! Files that are one document each: Markdown, text, HTML.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use htmd::element_handler::Handlers;
use htmd::{Element, HtmlToMarkdown};
use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};

use super::find::{Found, Kind};
use super::{Document, MOST_BYTES};
use crate::text::front_matter;

/// A first line longer than this is not a title (code points).
const TITLE_CHARS: usize = 120;

/// Nested HTML is converted by recursion; this is address space, not memory.
const HTML_STACK_BYTES: usize = 512 << 20;

/// Reads a file as one document; the error says why it is none.
pub fn read(file: &Found, kind: Kind) -> Result<Document, String> {
    let text = read_text(&file.path)?;
    let (title, text) = match kind {
        Kind::Html => html(text)?,
        Kind::Text => (first_line(&text), text),
        _ => markdown(text),
    };
    let stem = file
        .path
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned());
    Ok(Document {
        id: file.name.clone(),
        title: title.or(stem),
        text,
        source: file.path.display().to_string(),
        kind: kind.name(),
    })
}

fn read_text(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("it cannot be read: {error}");
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MOST_BYTES {
        return Err(format!(
            "it has {bytes} bytes, more than {MOST_BYTES}; split it"
        ));
    }
    let text = String::from_utf8(std::fs::read(path).map_err(unreadable)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("it is not UTF-8 (byte {at}); convert it")
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_string(),
        None => text,
    })
}

/// The front matter's title or the first heading of level 1, and the text without its front matter.
fn markdown(text: String) -> (Option<String>, String) {
    let (title, text) = match front_matter(&text) {
        Some((matter, body)) => (front_title(matter), text[body..].to_string()),
        None => (None, text),
    };
    (title.or_else(|| first_heading(&text)), text)
}

fn front_title(matter: &str) -> Option<String> {
    let value = matter.lines().find_map(|line| {
        let (key, value) = line.split_once([':', '='])?;
        (key.trim_end() == "title").then_some(value.trim())
    })?;
    let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    filled(quoted('"').or_else(|| quoted('\'')).unwrap_or(value))
}

fn first_heading(text: &str) -> Option<String> {
    let mut title: Option<String> = None;
    for event in Parser::new(text) {
        match (event, &mut title) {
            (
                Event::Start(Tag::Heading {
                    level: HeadingLevel::H1,
                    ..
                }),
                None,
            ) => {
                title = Some(String::new());
            }
            (Event::End(TagEnd::Heading(_)), Some(title)) => return filled(title),
            (Event::Text(part) | Event::Code(part), Some(title)) => title.push_str(&part),
            (Event::SoftBreak | Event::HardBreak, Some(title)) => title.push(' '),
            _ => {}
        }
    }
    None
}

fn first_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    (line.chars().count() <= TITLE_CHARS).then(|| line.to_string())
}

/// The `<title>` or first `<h1>`, and the page as Markdown.
fn html(page: String) -> Result<(Option<String>, String), String> {
    let convert = move || -> Result<(Option<String>, String), String> {
        let title = Arc::new(Mutex::new(None));
        let found = title.clone();
        let converter = HtmlToMarkdown::builder()
            .skip_tags(vec![
                "script", "style", "template", "noscript", "svg", "iframe",
            ])
            .add_handler(
                vec!["title"],
                move |handlers: &dyn Handlers, element: Element| {
                    let text = handlers.walk_children(element.node).content;
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.get_or_insert(text);
                    Some("".into())
                },
            )
            .build();
        let text = converter
            .convert(&page)
            .map_err(|error| error.to_string())?;
        let title = title.lock().unwrap_or_else(PoisonError::into_inner).take();
        let title = title.and_then(|title| filled(&plain(&title)));
        Ok((title.or_else(|| first_heading(&text)), text))
    };
    std::thread::Builder::new()
        .stack_size(HTML_STACK_BYTES)
        .spawn(convert)
        .map_err(|error| format!("no thread to convert it: {error}"))?
        .join()
        .map_err(|_| "its HTML cannot be converted".to_string())?
}

/// Markdown without its escapes and marks.
fn plain(markdown: &str) -> String {
    let mut out = String::new();
    for event in Parser::new(markdown) {
        match event {
            Event::Text(part) | Event::Code(part) => out.push_str(&part),
            Event::SoftBreak | Event::HardBreak => out.push(' '),
            _ => {}
        }
    }
    out
}

fn filled(text: &str) -> Option<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_gives_the_title_and_leaves_the_text() {
        for (text, title, rest) in [
            ("---\ntitle: A: b\n---\n# H\n", Some("A: b"), "# H\n"),
            ("---\r\ntitle: 'Q'\r\n---\r\nx", Some("Q"), "x"),
            ("+++\ntitle = \"T\"\n+++\nx", Some("T"), "x"),
            (
                "---\nlayout: p\n---\n# H *i* `c`\n",
                Some("H i c"),
                "# H *i* `c`\n",
            ),
            ("---\n\nA rule.\n\n---\n", None, "---\n\nA rule.\n\n---\n"),
            ("---\ntitle: unclosed\n", None, "---\ntitle: unclosed\n"),
            ("Set\next\n===\nx", Some("Set ext"), "Set\next\n===\nx"),
            ("## two\n\ntext", None, "## two\n\ntext"),
            ("```\n# code\n```\n", None, "```\n# code\n```\n"),
            ("---", None, "---"),
            ("éé", None, "éé"),
        ] {
            let expected = (title.map(String::from), rest.to_string());
            assert_eq!(markdown(text.to_string()), expected, "{text}");
        }
    }

    #[test]
    fn html_becomes_markdown_with_its_title() {
        let page = "<html><head><title>A_b &amp; c</title><style>p{}</style></head>\
                    <body><h1>Head</h1><p>One <b>two</b>.</p><script>x</script></body></html>";
        let (title, text) = html(page.to_string()).unwrap();
        assert_eq!(title.as_deref(), Some("A_b & c"));
        assert_eq!(text, "# Head\n\nOne **two**.");
        let (title, _) = html("<h1>Only</h1><p>x".to_string()).unwrap();
        assert_eq!(title.as_deref(), Some("Only"));
    }

    #[test]
    fn deeply_nested_html_is_converted() {
        let page = format!("{}deep{}", "<div>".repeat(3000), "</div>".repeat(3000));
        assert_eq!(html(page).unwrap().1, "deep");
    }
}
