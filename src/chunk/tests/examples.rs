//! Documents one can read.

use crate::chunk::fake::{Fake, Tokens};
use crate::job::spec::ChunkMethod;

use super::{Chunked, checked, params};

const GUIDE: &str = "# Kettle\n\nThe kettle boils water. It takes two minutes.\n\n## Cleaning\n\nScale builds up in hard \
    water. Use vinegar to remove scale. Rinse twice.\n\n```sh\nkettle --descale\nkettle --rinse\n```\n\n## Warranty\n\n\
    The warranty lasts two years. It does not cover scale.\n\n- Keep the receipt.\n- Keep the box.\n";

fn embedder() -> Fake {
    Fake::new(Tokens::Words, 512)
}

fn texts(chunked: &Chunked) -> Vec<&str> {
    chunked.chunks.iter().map(|c| c.text.as_str()).collect()
}

#[test]
fn fixed_packs_sentences() {
    let chunked = checked(
        GUIDE,
        &[],
        &params(ChunkMethod::Fixed, 100, 22),
        &embedder(),
    );
    assert_eq!(
        texts(&chunked),
        [
            "# Kettle\n\nThe kettle boils water. It takes two minutes.",
            "## Cleaning\n\nScale builds up in hard water. Use vinegar to remove scale.",
            "Rinse twice.\n\n```sh\nkettle --descale\nkettle --rinse\n```",
            "## Warranty\n\nThe warranty lasts two years. It does not cover scale.",
            "- Keep the receipt.\n- Keep the box.",
        ]
    );
    let headings: Vec<_> = chunked
        .chunks
        .iter()
        .map(|c| c.headings.join(" > "))
        .collect();
    assert_eq!(
        headings,
        [
            "Kettle",
            "Kettle > Cleaning",
            "Kettle > Cleaning",
            "Kettle > Warranty",
            "Kettle > Warranty"
        ]
    );
    assert_eq!(chunked.chunks[0].sentences, 3);
}

#[test]
fn paragraph_packs_blocks() {
    let chunked = checked(
        GUIDE,
        &[],
        &params(ChunkMethod::Paragraph, 100, 45),
        &embedder(),
    );
    assert_eq!(
        texts(&chunked),
        [
            "# Kettle\n\nThe kettle boils water. It takes two minutes.\n\n## Cleaning\n\nScale builds up in hard water. \
             Use vinegar to remove scale. Rinse twice.",
            "```sh\nkettle --descale\nkettle --rinse\n```\n\n## Warranty\n\nThe warranty lasts two years. It does not \
             cover scale.",
            "- Keep the receipt.\n- Keep the box.",
        ]
    );
}

#[test]
fn sliding_windows_share_sentences() {
    let text = "One one one. Two two two. Three three three. Four four four. Five five five.";
    let mut params = params(ChunkMethod::Sliding, 100, 12);
    params.overlap_tokens = 5;
    let chunked = checked(text, &[], &params, &embedder());
    assert_eq!(
        texts(&chunked),
        [
            "One one one. Two two two. Three three three.",
            "Three three three. Four four four. Five five five.",
        ]
    );
}

#[test]
fn intent_cuts_where_the_questions_change() {
    let text = "Boil water in the kettle. The kettle boils water fast. Vinegar removes scale. Scale needs vinegar. The \
        warranty lasts two years. Two years of warranty.";
    let intents = [
        "kettle boil water?",
        "vinegar removes scale?",
        "warranty two years?",
    ]
    .map(String::from);
    let mut params = params(ChunkMethod::Intent, 100, 20);
    params.beta = 0.8;
    let chunked = checked(text, &intents, &params, &embedder());
    assert_eq!(
        texts(&chunked),
        [
            "Boil water in the kettle. The kettle boils water fast.",
            "Vinegar removes scale. Scale needs vinegar.",
            "The warranty lasts two years. Two years of warranty.",
        ]
    );
    for (chunk, intent) in chunked.chunks.iter().zip(&intents) {
        assert_eq!(
            chunk.intents.iter().map(|i| &i.text).collect::<Vec<_>>(),
            [intent]
        );
        assert!(chunk.intents[0].relevance > 0.5 && chunk.intents[0].relevance <= 1.0 + 1e-6);
    }
    assert!(!chunked.fallback);
}

/// With β above any cosine every further chunk costs more than it can bring: as few chunks as the limits allow.
#[test]
fn intent_obeys_its_limits() {
    let text = "Water boils. ".repeat(30);
    let mut params = params(ChunkMethod::Intent, 100, 20);
    params.lambda = 0.0;
    params.max_sentences = 10;
    let chunked = checked(&text, &["water".into()], &params, &embedder());
    assert_eq!(
        chunked
            .chunks
            .iter()
            .map(|c| c.sentences)
            .collect::<Vec<_>>(),
        [10, 10, 10]
    );
    params.max_tokens = Some(25);
    let chunked = checked(&text, &["water".into()], &params, &embedder());
    assert!(
        chunked
            .chunks
            .iter()
            .all(|c| c.tokens <= 25 && c.sentences <= 8)
    );
    assert_eq!(chunked.chunks.len(), 4);
}

#[test]
fn intent_falls_back_to_paragraphs() {
    let intent = params(ChunkMethod::Intent, 100, 45);
    let paragraph = params(ChunkMethod::Paragraph, 100, 45);
    for (text, intents) in [
        (GUIDE, vec![]),
        (GUIDE, vec![" ".to_owned()]),
        ("A single one.", vec!["why?".to_owned()]),
    ] {
        let fallback = checked(text, &intents, &intent, &embedder());
        assert!(fallback.fallback);
        assert_eq!(
            fallback.chunks,
            checked(text, &intents, &paragraph, &embedder()).chunks
        );
    }
}

#[test]
fn code_above_the_cap_is_cut_at_lines() {
    let text = format!("Intro.\n\n```\n{}```\n\nOutro.", "let x = 1;\n".repeat(20));
    let chunked = checked(&text, &[], &params(ChunkMethod::Fixed, 30, 30), &embedder());
    assert_eq!(chunked.cut_sentences, 0);
    let inner = &chunked.chunks[1..chunked.chunks.len() - 1];
    assert!(
        inner.len() > 1
            && inner
                .iter()
                .all(|c| c.text.ends_with(';') || c.text.ends_with("```"))
    );
}

#[test]
fn long_sentences_are_cut_between_words() {
    let text = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu";
    let chunked = checked(text, &[], &params(ChunkMethod::Fixed, 5, 5), &embedder());
    assert_eq!(chunked.cut_sentences, 1);
    assert_eq!(
        texts(&chunked),
        [
            "alpha beta gamma delta",
            "epsilon zeta eta theta",
            "iota kappa lambda mu"
        ]
    );
}

#[test]
fn offsets_are_code_points() {
    let text = "👩‍👩‍👧 Größe e\u{301}. 它很长。\r\n\r\nEnde.";
    let chunked = checked(text, &[], &params(ChunkMethod::Fixed, 100, 1), &embedder());
    let last = &chunked.chunks[chunked.chunks.len() - 1];
    assert_eq!(
        (last.start, last.end),
        (text.chars().count() - 5, text.chars().count())
    );
    assert_eq!(last.text, "Ende.");
}
