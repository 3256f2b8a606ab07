use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn blocks(text: &str) -> Vec<(BlockKind, &str)> {
    analyse(text)
        .blocks
        .iter()
        .map(|b| (b.kind, &text[b.start..b.end]))
        .collect()
}

fn sentences(text: &str) -> Vec<&str> {
    analyse(text)
        .sentences
        .iter()
        .map(|s| &text[s.start..s.end])
        .collect()
}

/// The parts are trimmed, in order, apart, and leave out nothing but white space.
fn assert_tiles(text: &str, parts: impl Iterator<Item = (usize, usize)>) {
    let mut covered = 0;
    for (start, end) in parts {
        assert!(
            start < end && start >= covered,
            "{start}..{end} after {covered}"
        );
        assert_eq!(text[covered..start].trim(), "");
        assert_eq!(text[start..end].trim().len(), end - start);
        covered = end;
    }
    assert_eq!(text[covered..].trim(), "");
}

fn assert_sound(text: &str) -> Analysis {
    let analysis = analyse(text);
    assert_tiles(text, analysis.blocks.iter().map(|b| (b.start, b.end)));
    assert_tiles(text, analysis.sentences.iter().map(|s| (s.start, s.end)));
    for s in &analysis.sentences {
        let block = &analysis.blocks[s.block];
        assert!(block.start <= s.start && s.end <= block.end);
    }
    analysis
}

/// Lines that Markdown reads in many ways, in many scripts.
fn line() -> impl Strategy<Value = String> {
    let marks = prop::sample::select(vec![
        "",
        "",
        "",
        "# ",
        "### ",
        "- ",
        "1. ",
        "  - ",
        "> ",
        "    ",
        "\t",
        "```",
        "~~~ rust",
        "---",
        "===",
        "| a | b |",
        "|---|---|",
        "[x]: /y",
        "<div>",
        "<!-- ",
        "***",
        "* * *",
        "+++",
        "\u{feff}",
        "[^1]: ",
        "&amp;",
        "\\",
    ]);
    let words = prop::sample::select(vec![
        "A sentence. Another one!",
        "Dr. Smith (cf. 3.5) said \"no.\"",
        "它很长。第二句！",
        "नमस्ते दुनिया। ठीक है।",
        "👩‍👩‍👧 e\u{301}e\u{301}. ok",
        "*emphasis* `code` [l](u)",
        "",
        "x",
        "\u{a0}\u{2003}",
        "...",
        "ﷺ\u{200b}",
        "a.b.c",
        "| 1 | 2 |",
        "“Quoted. Twice.” he said.",
        "https://example.org/a?b=c.",
    ]);
    let breaks = prop::sample::select(vec!["\n", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", " ", ""]);
    (marks, words, any::<Option<char>>(), breaks).prop_map(|(mark, words, c, end)| {
        format!(
            "{mark}{words}{}{end}",
            c.map(String::from).unwrap_or_default()
        )
    })
}

pub(crate) fn document() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), 0..24).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn documents_are_tiled(text in document()) {
        assert_sound(&text);
    }

    #[test]
    fn any_text_is_tiled(text in any::<String>()) {
        assert_sound(&text);
    }

    #[test]
    fn offsets_count_code_points(text in document()) {
        let mut points = CodePoints::new(&text);
        for (count, (byte, _)) in text.char_indices().enumerate() {
            prop_assert_eq!(points.at(byte), count);
        }
        let half = text.floor_char_boundary(text.len() / 2);
        prop_assert_eq!(points.at(usize::MAX), text.chars().count());
        prop_assert_eq!(points.at(half), text[..half].chars().count());
    }

    #[test]
    fn windows_move_on(text in any::<String>(), bytes in 1usize..9) {
        let mut at = 0;
        while at < text.len() {
            let end = window_end(&text, at, bytes);
            prop_assert!(end > at && text.is_char_boundary(end) && (end - at <= bytes || text[at..end].chars().count() == 1));
            at = end;
        }
    }
}

#[test]
fn markdown_is_taken_apart() {
    let text = "---\ntitle: x\n---\n\n# *The* `Guide`\n\nIntro here. More of it.\n\n## Setup\n- one\n- two\n\n  more\n\n\
        > said\n> so\n\n```sh\nmake\n\nmake test\n```\n[link]: http://example.org\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n# End";
    let analysis = assert_sound(text);
    use BlockKind::*;
    assert_eq!(
        blocks(text),
        [
            (Code, "---\ntitle: x\n---"),
            (Heading { level: 1 }, "# *The* `Guide`"),
            (Paragraph, "Intro here. More of it."),
            (Heading { level: 2 }, "## Setup"),
            (ListItem, "- one"),
            (ListItem, "- two"),
            (ListItem, "more"),
            (Quote, "> said\n> so"),
            (Code, "```sh\nmake\n\nmake test\n```"),
            (Paragraph, "[link]: http://example.org"),
            (Table, "| a | b |\n|---|---|\n| 1 | 2 |"),
            (Heading { level: 1 }, "# End"),
        ]
    );
    let groups: Vec<usize> = analysis.blocks.iter().map(|b| b.group).collect();
    assert!(
        groups[4] == groups[5]
            && groups[5] == groups[6]
            && groups[3] != groups[4]
            && groups[6] != groups[7]
    );
    assert_eq!(analysis.headings(2), ["The Guide"]);
    assert_eq!(analysis.headings(3), ["The Guide"]);
    assert_eq!(analysis.headings(10), ["The Guide", "Setup"]);
    assert!(analysis.headings(11).is_empty());
    assert_eq!(
        sentences(text)[10..],
        [
            "> said\n> so",
            "```sh",
            "make",
            "make test",
            "```",
            "[link]: http://example.org",
            "| a | b |\n|---|---|",
            "| 1 | 2 |",
            "# End"
        ]
    );
}

#[test]
fn plain_text_is_paragraphs() {
    let text = "Dr. Smith went to Washington. He met Mr. Jones at 3.15 p.m. on Friday!\r\n\r\n\"Well?\" he said. It rained.";
    assert_eq!(
        blocks(text).iter().map(|b| b.0).collect::<Vec<_>>(),
        [BlockKind::Paragraph; 2]
    );
    assert_eq!(
        sentences(text),
        [
            "Dr. Smith went to Washington.",
            "He met Mr. Jones at 3.15 p.m. on Friday!",
            "\"Well?\" he said.",
            "It rained."
        ]
    );
}

#[test]
fn a_heading_of_a_page_is_a_paragraph() {
    let page = "One sentence of a page. ".repeat(20);
    for text in [format!("{page}\n---\n\nnext"), format!("# {page}\n\nnext")] {
        let analysis = assert_sound(&text);
        assert_eq!(analysis.blocks[0].kind, BlockKind::Paragraph);
        assert!(analysis.sentences.len() > 20 && analysis.sections.is_empty());
    }
}

#[test]
fn headings_in_containers_open_no_section() {
    let analysis = assert_sound("# Top\n\n> # Quoted\n> text\n\nbody");
    assert_eq!(analysis.blocks[1].kind, BlockKind::Quote);
    assert_eq!(analysis.headings(3), ["Top"]);
}

#[test]
fn languages_are_told() {
    let german = "Der schnelle braune Fuchs springt über den faulen Hund, und niemand im Dorf weiß, warum er das tut.";
    let chinese = "知识就是力量。法国就是培根。";
    assert_eq!(language(german), "deu");
    assert_eq!(language(chinese), "cmn");
    for text in ["", " \n", "1234", "ok"] {
        assert_eq!(language(text), UNDETERMINED);
    }
    assert_eq!(sentences(chinese).len(), 2);
}

#[test]
fn sentences_do_not_depend_on_windows() {
    let sentence = "The window ends somewhere in here, but nobody who reads the sentences can tell where that was. ";
    let text = sentence.repeat(500);
    assert_eq!(sentences(&text), vec![sentence.trim(); 500]);
}

#[test]
fn a_sentence_longer_than_a_window_is_one() {
    let text = format!("{}end. Next one.", "word ".repeat(20_000));
    assert_eq!(sentences(&text).len(), 2);
}

/// Each of these is quadratic for a parser or a segmenter somewhere; at these lengths that is minutes.
#[test]
fn traps_take_linear_time() {
    let traps = [
        ("one line", "word ".repeat(20_000)),
        ("one word", "x".repeat(1_000_000)),
        ("white space", " \r\n\t".repeat(500_000)),
        ("no spaces", "它很长。".repeat(80_000)),
        ("open brackets", "([{<".repeat(100_000)),
        ("links", "[a](".repeat(100_000)),
        ("quotes", "\"a. B ".repeat(100_000)),
        ("emphasis", "*a _b ".repeat(100_000)),
        ("list of items", "- a. B\n".repeat(100_000)),
        ("numbers", "1. a. B\n".repeat(100_000)),
        ("ticks", (1..1200).map(|n| "`".repeat(n) + " ").collect()),
        ("nested quotes", "> ".repeat(20_000)),
        ("nested lists", "- ".repeat(20_000)),
        ("headings", "# a\n## b\n".repeat(50_000)),
        ("table", format!("a|b\n-|-\n{}", "1|2\n".repeat(100_000))),
        ("code", format!("```\n{}", "let x = 1;\n".repeat(100_000))),
        ("combining", format!("e{}", "\u{301}".repeat(500_000))),
        ("html", "<a <b </c ".repeat(100_000)),
    ];
    for (name, text) in traps {
        let began = Instant::now();
        let analysis = assert_sound(&text);
        let took = began.elapsed();
        println!(
            "{name}: {} bytes, {} sentences, {took:.2?}",
            text.len(),
            analysis.sentences.len()
        );
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
    }
}

#[test]
fn twenty_megabytes() {
    let text = "A plain sentence of a very long book. And one more, (with brackets), of it.\n\n"
        .repeat(260_000);
    let began = Instant::now();
    let analysis = assert_sound(&text);
    println!("{} bytes in {:.2?}", text.len(), began.elapsed());
    assert_eq!(analysis.sentences.len(), 520_000);
    assert!(began.elapsed() < Duration::from_secs(60));
}
