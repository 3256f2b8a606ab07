//! `intendex inspect` on a built index.

mod common;

use std::fs;

use common::{Place, documents, read, texts};

fn inspect(place: &Place, code: i32, arguments: &[&str]) -> (String, String) {
    let output = place.run(&[&["inspect", "out"], arguments].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    (String::from_utf8(output.stdout).unwrap(), said)
}

fn unmarked(shown: &str) -> String {
    let chunks = shown.split_once("\n────").unwrap().1;
    let mut parts = chunks.split('┊');
    let first = parts.next().unwrap().to_owned();
    parts.skip(1).step_by(2).fold(first, |all, part| all + part)
}

#[test]
fn a_document_is_shown_with_its_chunks_and_questions() {
    let place = Place::new(&documents());
    place.build_expecting(0, &[]);
    let generation = place.generation(1);
    let (chunks, queries) = (read(&generation, "chunks"), read(&generation, "queries"));
    let (ids, owners) = (texts(&chunks, "chunk_id"), texts(&chunks, "doc_id"));
    let (questions, asked_of) = (texts(&queries, "text"), texts(&queries, "chunk_id"));
    assert!(!questions.is_empty());
    for (id, title, text) in documents() {
        let (document, title, text) = (id.unwrap(), title.unwrap(), text.unwrap());
        let (shown, _) = inspect(&place, 0, &[document]);
        assert!(
            shown.starts_with(&format!("{document}  {title}\n")),
            "{shown}"
        );
        let of_document = |id: &&String| **id == *document;
        let count = owners.iter().filter(of_document).count();
        assert!(
            shown.contains(&format!(" {count} chunks by boundary")),
            "{shown}"
        );
        for method in ["fixed", "paragraph", "recursive", "cluster"] {
            assert!(shown.contains(&format!("\n  {method}")), "{shown}");
        }
        for (id, _) in ids
            .iter()
            .zip(&owners)
            .filter(|(_, owner)| *owner == document)
        {
            assert!(shown.contains(&format!("──── {id}  ")), "{shown}");
            for (question, _) in questions
                .iter()
                .zip(&asked_of)
                .filter(|(_, chunk)| *chunk == id)
            {
                assert!(
                    shown.contains(question.as_str()),
                    "{question} not in {shown}"
                );
            }
        }
        // Without the marks of other methods' cuts, the text is there in order.
        let mut rest: &str = &unmarked(&shown);
        for word in text.split_whitespace() {
            let at = rest
                .find(word)
                .unwrap_or_else(|| panic!("{word} not in {shown}"));
            rest = &rest[at + word.len()..];
        }
    }
}

#[test]
fn a_page_is_written_and_what_cannot_be_shown_is_said() {
    let place = Place::new(&documents());
    let quick = [
        "--set",
        "intents.enabled=false",
        "--set",
        "expand.enabled=false",
    ];
    place.build_expecting(0, &quick);
    let id = "tides";
    let (shown, _) = inspect(&place, 0, &[id, "--html", "page.html"]);
    assert_eq!(shown, "");
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    let chunks = texts(&read(&place.generation(1), "chunks"), "doc_id");
    let count = chunks.iter().filter(|owner| *owner == id).count();
    assert_eq!(page.matches("<section>").count(), count);

    let (_, said) = inspect(&place, 2, &["nobody"]);
    assert!(said.contains("out has no document \"nobody\""), "{said}");
    let (_, said) = inspect(&place, 2, &[id, "--html", "nowhere/page.html"]);
    assert!(said.contains("cannot write nowhere/page.html"), "{said}");
    let (shown, said) = inspect(&place, 0, &["tides#0", "--model", "nowhere"]);
    assert!(
        said.contains("not shown") && said.contains("nowhere"),
        "{said}"
    );
    assert!(
        shown.starts_with("tides  Tides\n") && !shown.contains('┊'),
        "{shown}"
    );
    fs::remove_dir_all(place.path("out/generations/1/chunks")).unwrap();
    let (_, said) = inspect(&place, 2, &[id]);
    assert!(said.contains("chunks"), "{said}");
}
