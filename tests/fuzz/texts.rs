//! Texts: any characters, and what Markdown reads in many ways, cut by every method with a real tokenizer.

#[path = "../common/tiny.rs"]
mod tiny;

use std::{ops::Range, path::Path};

use candle_core::Device;
use clap::ValueEnum;
use intendex::{
    chunk::{ChunkError, chunk},
    job::spec::{self, ChunkMethod},
    model::{ModelIdentity, bert::BertEmbedder},
    text::analyse,
};
use proptest::{prelude::*, test_runner::TestCaseError};

use crate::campaign;

/// Fragments that Markdown reads in many ways, among any text.
fn document() -> impl Strategy<Value = String> {
    let fragments = prop::sample::select(vec![
        "# ",
        "###### ",
        "- ",
        "1. ",
        "  - ",
        "> ",
        "\t",
        "```",
        "~~~",
        "---\n",
        "| a | b |\n",
        "|---|---|\n",
        "<div>",
        "<!-- ",
        "[x]: /y",
        "***",
        "\u{feff}",
        "&amp;",
        "\\",
        "A sentence. Another one! ",
        "它很长。第二句！",
        "Dr. Smith ",
        "नमस्ते दुनिया। ",
        "👩‍👩‍👧 e\u{301}",
        "`code` ",
        "\r\n",
        "\n\n",
        "\u{2028}",
        "\u{a0}",
        "\u{0}",
        "ﷺ",
        "\u{202e}",
        "...",
    ]);
    let piece = prop_oneof![
        3 => fragments.prop_map(str::to_owned),
        1 => any::<String>(),
        1 => "[a-z ]{0,60}",
        1 => "\\PC{0,20}",
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

#[test]
fn are_tiled() {
    let folder = tempfile::tempdir().unwrap();
    tiny::embedder(folder.path(), "");
    let embedder = embedder(folder.path());
    let intents = prop::collection::vec("[a-z ?]{0,20}", 0..3);
    let inputs = (
        document(),
        intents,
        prop::sample::select(ChunkMethod::value_variants()),
        (1usize..60, 1usize..60, 0usize..30, 1usize..8),
    );
    let (cases, chunked) = campaign(&inputs, |(text, intents, method, sizes)| {
        is_tiled(&text, &intents, method, sizes, &embedder)
    });
    println!("{cases} texts: {chunked} have chunks, which tile them, no panic");
}

/// What random texts are seldom: characters that the tokenizer drops, and nothing else.
#[test]
fn texts_without_tokens_are_tiled() {
    let folder = tempfile::tempdir().unwrap();
    tiny::embedder(folder.path(), "");
    let embedder = embedder(folder.path());
    for text in ["\0", "\0\n\n\0", "# \0\n\n\0. \0.", "\u{202e}"] {
        for &method in ChunkMethod::value_variants() {
            for intents in [vec![], vec!["why?".to_owned()]] {
                is_tiled(text, &intents, method, (1, 1, 0, 1), &embedder).unwrap();
            }
        }
    }
}

/// Cuts a text and checks the spans: whether there are any. `sizes`: cap and target in tokens, overlap, sentences at most.
fn is_tiled(
    text: &str,
    intents: &[String],
    method: ChunkMethod,
    (cap, target, overlap, most): (usize, usize, usize, usize),
    embedder: &BertEmbedder,
) -> Result<bool, TestCaseError> {
    let analysis = analyse(text);
    let sentences: Vec<_> = analysis.sentences.iter().map(|s| s.start..s.end).collect();
    assert_tiles(text, &sentences, false)?;
    let params = spec::Chunk {
        method,
        max_tokens: Some(cap),
        target_tokens: target,
        overlap_tokens: overlap,
        max_sentences: most,
        ..spec::Chunk::default()
    };
    let chunks = match chunk(text, intents, &params, embedder) {
        Ok(chunked) => chunked.chunks,
        // A character of more tokens than the cap: such a document goes to quarantine.
        Err(ChunkError::Character { .. }) => return Ok(false),
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    let mut bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).collect();
    bytes.push(text.len());
    let spans: Vec<_> = chunks
        .iter()
        .map(|c| bytes[c.start]..bytes[c.end])
        .collect();
    for (chunk, span) in chunks.iter().zip(&spans) {
        prop_assert_eq!(&chunk.text, &text[span.clone()]);
        prop_assert!(chunk.tokens <= cap);
    }
    assert_tiles(text, &spans, method == ChunkMethod::Sliding)?;
    Ok(!spans.is_empty())
}

fn embedder(folder: &Path) -> BertEmbedder {
    let settings: spec::Embedder = toml::from_str("model = \"tiny\"").unwrap();
    let identity = ModelIdentity {
        name: "tiny".into(),
        architecture: "bert".into(),
        files: Vec::new(),
    };
    BertEmbedder::load(folder, identity, &settings, &Device::Cpu).unwrap()
}

/// In order; only white space is between them, and they overlap only where they may.
fn assert_tiles(text: &str, spans: &[Range<usize>], overlap: bool) -> Result<(), TestCaseError> {
    let mut covered = 0;
    for span in spans {
        prop_assert!(
            overlap || span.start >= covered,
            "overlap at {}",
            span.start
        );
        let gap = &text[covered.min(span.start)..span.start];
        prop_assert!(gap.trim().is_empty(), "a gap: {gap:?}");
        covered = covered.max(span.end);
    }
    prop_assert!(text[covered..].trim().is_empty(), "the end is missing");
    Ok(())
}
