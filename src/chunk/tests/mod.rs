//! What holds for every document, method and tokeniser.

mod examples;
mod optimum;
mod real;

use clap::ValueEnum;
use proptest::prelude::*;

use crate::job::spec::{self, ChunkMethod};
use crate::text::{Analysis, BlockKind, analyse};

use super::fake::{Fake, Tokens};
use super::unit::Units;
use super::*;

pub(super) fn params(method: ChunkMethod, max_tokens: usize, target_tokens: usize) -> spec::Chunk {
    spec::Chunk {
        method,
        max_tokens: Some(max_tokens),
        target_tokens,
        ..spec::Chunk::default()
    }
}

/// Chunks `text` and checks everything [`chunk`] promises.
pub(super) fn checked(
    text: &str,
    intents: &[String],
    params: &spec::Chunk,
    embedder: &Fake,
) -> Chunked {
    let chunked = chunk(text, intents, params, embedder).unwrap();
    let cap = params
        .max_tokens
        .unwrap_or(usize::MAX)
        .min(embedder.max_tokens);
    let analysis = analyse(text);
    let units = Units::new(text, &analysis, cap, embedder).unwrap();
    // Byte offsets of code points.
    let mut bytes: Vec<usize> = text.char_indices().map(|(byte, _)| byte).collect();
    bytes.push(text.len());
    let spans: Vec<Range<usize>> = chunked
        .chunks
        .iter()
        .map(|c| bytes[c.start]..bytes[c.end])
        .collect();

    for (c, span) in chunked.chunks.iter().zip(&spans) {
        assert_eq!(c.text, text[span.clone()]);
        assert_eq!(c.tokens, tokens::count(&c.text, embedder).unwrap());
        assert!(c.tokens <= cap && !c.text.is_empty());
    }
    assert_covers(text, &spans, params.method);
    let knows_units = !matches!(params.method, ChunkMethod::Tokens | ChunkMethod::Recursive);
    if knows_units {
        assert_headings_stay(text, &units, &spans, params, cap, embedder);
        assert_blocks_whole(text, &analysis, &spans, cap, embedder);
        assert_eq!(chunked.cut_sentences, units.cut);
    }
    let intended = params.method == ChunkMethod::Intent;
    if intended && !chunked.fallback {
        assert!(
            chunked
                .chunks
                .iter()
                .all(|c| c.sentences <= params.max_sentences)
        );
    }
    let served: usize = chunked.chunks.iter().map(|c| c.intents.len()).sum();
    assert_eq!(
        served,
        if spans.is_empty() {
            0
        } else {
            serve::distinct(intents).len()
        }
    );
    chunked
}

fn assert_covers(text: &str, spans: &[Range<usize>], method: ChunkMethod) {
    let mut covered = 0;
    for span in spans {
        if method != ChunkMethod::Sliding {
            assert!(span.start >= covered, "chunks overlap");
        }
        assert_eq!(
            text[covered..span.start.max(covered)].trim(),
            "",
            "text between chunks"
        );
        covered = covered.max(span.end);
    }
    assert_eq!(text[covered..].trim(), "", "text behind the last chunk");
}

/// A chunk ends behind a heading only if the headings around that place and what follows them are above a limit.
fn assert_headings_stay(
    text: &str,
    units: &Units,
    spans: &[Range<usize>],
    params: &spec::Chunk,
    cap: usize,
    embedder: &Fake,
) {
    let n = units.len();
    for span in spans {
        let j = units.list.partition_point(|unit| unit.start < span.end);
        if !units.glued(j) {
            continue;
        }
        let first = (0..j)
            .rev()
            .take_while(|&i| units.list[i].heading)
            .last()
            .unwrap();
        let end = (j..n)
            .find(|&i| !units.list[i].heading)
            .map_or(n, |i| i + 1);
        let run = first..end;
        let exact = tokens::count(&text[units.bytes(&run)], embedder).unwrap();
        let long = params.method == ChunkMethod::Intent && run.len() > params.max_sentences;
        assert!(
            units.tokens(&run) > cap || exact > cap || long,
            "cut behind the heading {:?}",
            &text[span.clone()]
        );
    }
}

fn assert_blocks_whole(
    text: &str,
    analysis: &Analysis,
    spans: &[Range<usize>],
    cap: usize,
    embedder: &Fake,
) {
    let indivisible = analysis
        .blocks
        .iter()
        .filter(|b| matches!(b.kind, BlockKind::Code | BlockKind::Table));
    for block in indivisible {
        if tokens::count(&text[block.start..block.end], embedder).unwrap() > cap {
            continue;
        }
        let cut = |at: usize| block.start < at && at < block.end;
        assert!(
            !spans.iter().any(|span| cut(span.start) || cut(span.end)),
            "cut inside {:?}",
            block.kind
        );
    }
}

fn tokens_kind() -> impl Strategy<Value = Tokens> {
    prop::sample::select(vec![Tokens::Words, Tokens::Spaces, Tokens::Sticky])
}

fn intents() -> impl Strategy<Value = Vec<String>> {
    let words = prop::sample::select(vec![
        "another sentence?",
        "what is code",
        "它很长",
        "",
        "quoted emphasis 2",
        " x ",
    ]);
    prop::collection::vec(words.prop_map(str::to_owned), 0..4)
}

/// No null characters: the fake embedder refuses them.
fn document() -> impl Strategy<Value = String> {
    crate::text::tests::document().prop_map(|text| text.replace('\0', " "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn contract(
        text in document(),
        intents in intents(),
        tokens in tokens_kind(),
        method in prop::sample::select(ChunkMethod::value_variants()),
        (cap, target, overlap) in (1usize..60, 0usize..60, 0usize..30),
        max_sentences in 1usize..8,
    ) {
        let embedder = Fake::new(tokens, 50);
        let params = spec::Chunk { overlap_tokens: overlap, max_sentences, ..params(method, cap, target) };
        let first = checked(&text, &intents, &params, &embedder);
        prop_assert_eq!(first, chunk(&text, &intents, &params, &embedder).unwrap());
    }

    #[test]
    fn any_text(text in any::<String>(), method in prop::sample::select(ChunkMethod::value_variants()), cap in 1usize..20) {
        let embedder = Fake::new(Tokens::Spaces, 512);
        checked(&text.replace('\0', ""), &["why?".into()], &params(method, cap, 10), &embedder);
    }
}

#[test]
fn white_space_has_no_chunks() {
    let embedder = Fake::new(Tokens::Words, 100);
    for (text, &method) in ["", " \n\t\r\n\u{a0}\u{2003}"]
        .iter()
        .zip(ChunkMethod::value_variants())
    {
        let chunked = checked(text, &["why?".into()], &params(method, 10, 10), &embedder);
        assert!(chunked.chunks.is_empty() && !chunked.fallback && chunked.language == "und");
    }
}

#[test]
fn one_long_line() {
    let embedder = Fake::new(Tokens::Words, 256);
    for text in [
        "word ".repeat(20_000),
        "x".repeat(100_000),
        "长".repeat(100_000),
    ] {
        for &method in ChunkMethod::value_variants() {
            let chunked = checked(
                &text,
                &["why?".into()],
                &params(method, 256, 160),
                &embedder,
            );
            let of_units = !matches!(method, ChunkMethod::Tokens | ChunkMethod::Recursive);
            assert_eq!(chunked.cut_sentences, usize::from(of_units));
            assert!(chunked.chunks.len() >= 20_000 / 256);
        }
    }
}

#[test]
fn errors_are_returned() {
    let text = "A sentence. Another.";
    let none = chunk(
        text,
        &[],
        &params(ChunkMethod::Fixed, 0, 10),
        &Fake::new(Tokens::Words, 10),
    )
    .unwrap_err();
    assert!(matches!(none, ChunkError::NoRoom { .. }), "{none}");
    let model = chunk(
        "a\0b",
        &[],
        &params(ChunkMethod::Fixed, 9, 10),
        &Fake::new(Tokens::Words, 10),
    )
    .unwrap_err();
    assert!(matches!(model, ChunkError::Model(_)), "{model}");
}

#[test]
fn a_character_above_the_cap_is_an_error() {
    let sharp = ChunkError::Character {
        character: 'ﷺ',
        tokens: 2,
        cap: 1,
    };
    let result = cut::cut("aﷺb", 1, &Doubled(Fake::new(Tokens::Words, 10))).unwrap_err();
    assert_eq!(result.to_string(), sharp.to_string());
}

/// Two tokens for every character outside ASCII, as byte-level tokenisers have.
struct Doubled(Fake);

impl Embed for Doubled {
    fn identity(&self) -> &crate::model::ModelIdentity {
        self.0.identity()
    }

    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn max_text_tokens(&self) -> usize {
        self.0.max_text_tokens()
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        let tokens = text
            .char_indices()
            .flat_map(|(i, c)| vec![(i, i + c.len_utf8()); c.len_utf8().min(2)]);
        Ok(tokens.collect())
    }

    fn embed(&self, texts: &[&str], kind: TextKind) -> Result<crate::model::Embedded, ModelError> {
        self.0.embed(texts, kind)
    }
}
