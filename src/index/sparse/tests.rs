use proptest::prelude::*;
use tempfile::TempDir;

use super::writer::{FAN_IN, PART_BYTES};
use super::*;

const WEIGHTS: SparseWeights = SparseWeights {
    title: 0.5,
    text: 1.0,
    queries: 0.5,
};
const TEXT: SparseWeights = SparseWeights {
    title: 0.0,
    text: 1.0,
    queries: 0.0,
};

fn build(dir: &Path, texts: &[String], part_bytes: usize, fan_in: usize) -> SparseIndex {
    let mut writer =
        SparseWriter::with_parts(dir, SparseLanguage::English, part_bytes, fan_in).unwrap();
    for (i, text) in texts.iter().enumerate() {
        let chunk_id = format!("d#{i}");
        let queries = ["what is a quokka", "who eats leaves"];
        let queries = if i == 1 { &queries[..] } else { &[] };
        let title = (i == 0).then_some("Marsupials");
        writer
            .add(SparseDocument {
                chunk_id: &chunk_id,
                doc_id: "d",
                title,
                text,
                queries,
            })
            .unwrap();
    }
    assert_eq!(writer.finish().unwrap().documents, texts.len() as u64);
    SparseIndex::open(dir).unwrap()
}

fn indexed(texts: &[&str]) -> (TempDir, SparseIndex) {
    let dir = TempDir::new().unwrap();
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    let index = build(&dir.path().join("sparse"), &texts, PART_BYTES, FAN_IN);
    (dir, index)
}

fn rows(index: &SparseIndex, query: &str, weights: SparseWeights) -> Vec<u32> {
    index
        .search(query, 10, weights)
        .unwrap()
        .iter()
        .map(|hit| hit.row)
        .collect()
}

#[test]
fn each_field_is_searched_with_its_own_weight() {
    let (_dir, index) = indexed(&["koalas sleep", "wombats dig", "a quokka smiles"]);
    assert_eq!(rows(&index, "quokka", WEIGHTS), [2, 1]);
    assert_eq!(rows(&index, "quokka", TEXT), [2]);
    assert_eq!(rows(&index, "marsupial", WEIGHTS), [0]);
    assert!(rows(&index, "marsupial", TEXT).is_empty());
    assert_eq!(index.ids(2).unwrap(), ("d#2".to_string(), "d".to_string()));
}

#[test]
fn one_field_scores_by_bm25() {
    let (_dir, index) = indexed(&["koalas sleep", "a quokka digs", "wombats dig"]);
    let found = index.search("quokka", 1, TEXT).unwrap()[0];
    // One of three texts has the term once; lengths 2, 3 and 2: idf·(k1+1)·tf/(tf + k1·(1−b+b·len/avg)).
    let idf = (1.0 + (3.0 - 1.0 + 0.5) / 1.5f32).ln();
    let bm25 = idf * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * 3.0 / (7.0 / 3.0)));
    assert!((found.score - bm25).abs() < 1e-5);
}

#[test]
fn no_character_of_a_query_is_syntax() {
    let (_dir, index) = indexed(&["koalas sleep", "wombats dig"]);
    for query in [
        "text:wombats",
        "+wombats -dig",
        "(wombats",
        "\"wombats",
        "wombats^9 AND NOT",
        "*:* wombats",
    ] {
        assert_eq!(rows(&index, query, TEXT)[0], 1, "{query}");
    }
    assert!(rows(&index, "?! ()", TEXT).is_empty());
    assert!(rows(&index, "", TEXT).is_empty());
}

#[test]
fn stop_words_count_only_in_a_query_of_nothing_else() {
    let (_dir, index) = indexed(&["to be or not to be", "wombats dig"]);
    assert_eq!(rows(&index, "not the wombats", TEXT), [1]);
    assert_eq!(rows(&index, "to be or not", TEXT), [0]);
}

#[test]
fn repeated_words_are_counted() {
    let (_dir, index) = indexed(&["x"]);
    let term = |term: &str, count| QueryTerm {
        term: term.into(),
        count,
    };
    let terms = index.terms("dig, digging dirt");
    assert_eq!(terms, [term("dig", 2.0), term("dirt", 1.0)]);
}

#[test]
fn equal_scores_keep_the_order_of_the_chunks() {
    let texts = vec!["same words here"; 50];
    let (_dir, index) = indexed(&texts);
    assert_eq!(rows(&index, "words", TEXT), (0..10).collect::<Vec<_>>());
}

#[test]
fn an_index_of_nothing_answers_with_nothing() {
    let (_dir, index) = indexed(&[]);
    assert!(index.is_empty());
    assert!(rows(&index, "anything", WEIGHTS).is_empty());
}

#[test]
fn files_have_the_same_permissions() {
    let (dir, _index) = indexed(&["x"]);
    let files = std::fs::read_dir(dir.path().join("sparse")).unwrap();
    let mut kinds: Vec<_> = files
        .map(|file| file.unwrap().metadata().unwrap().permissions())
        .collect();
    kinds.dedup();
    assert_eq!(kinds.len(), 1, "{kinds:?}");
}

#[test]
fn a_folder_with_files_is_refused() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("notes"), "").unwrap();
    let error = SparseWriter::create(dir.path(), SparseLanguage::English)
        .err()
        .unwrap();
    assert!(matches!(error, SparseError::NotEmpty { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    /// Parts and their merging change neither order nor scores.
    #[test]
    fn an_index_in_many_parts_is_the_index_in_one(
        texts in prop::collection::vec("[a-e]{1,2}( [a-e]{1,2}){0,6}", 1..30)
    ) {
        let dir = TempDir::new().unwrap();
        let whole = build(&dir.path().join("whole"), &texts, PART_BYTES, FAN_IN);
        let parts = build(&dir.path().join("parts"), &texts, 0, 3);
        for query in ["a b c", "ab", "e dd quokka"] {
            prop_assert_eq!(whole.search(query, 20, WEIGHTS).unwrap(), parts.search(query, 20, WEIGHTS).unwrap());
        }
        for row in 0..texts.len() as u32 {
            prop_assert_eq!(parts.ids(row).unwrap().0, format!("d#{row}"));
        }
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "parts are removed");
    }

    /// Scores are those of BM25F worked out from the words themselves; lengths up to 39 are exact in Tantivy.
    #[test]
    fn scores_are_bm25f(
        texts in prop::collection::vec(
            ["[a-c]( [a-c]){0,5}", "[a-c]( [a-c]){0,5}", "([a-c] ){0,3}"].map(|p| p.prop_map(|t: String| t)), 1..12
        ),
        weights in [1u8..4, 1u8..4, 0u8..4],
    ) {
        check_bm25f(&texts, weights.map(|w| f32::from(w) * 0.3))?;
    }
}

/// Of documents of title, text and queries.
fn check_bm25f(texts: &[[String; 3]], weights: [f32; 3]) -> Result<(), TestCaseError> {
    let dir = TempDir::new().unwrap();
    let dir = dir.path().join("sparse");
    let mut writer = SparseWriter::create(&dir, SparseLanguage::None).unwrap();
    for [title, text, query] in texts {
        writer
            .add(SparseDocument {
                chunk_id: "d#0",
                doc_id: "d",
                title: Some(title),
                text,
                queries: &[query],
            })
            .unwrap();
    }
    writer.finish().unwrap();
    let [title, text, queries] = weights;
    let weights_of = SparseWeights {
        title,
        text,
        queries,
    };
    let index = SparseIndex::open(&dir).unwrap();
    let hits = index.search("a b b", 100, weights_of).unwrap();

    let n = texts.len() as f32;
    let count = |text: &str, word: &str| text.split(' ').filter(|w| *w == word).count() as f32;
    let length = |text: &str| text.split(' ').filter(|w| !w.is_empty()).count() as f32;
    let weighted = |of: &dyn Fn(usize) -> f32| (0..3).map(|f| weights[f] * of(f)).sum::<f32>();
    let total: f32 = texts.iter().map(|t| weighted(&|f| length(&t[f]))).sum();
    for (row, document) in texts.iter().enumerate() {
        let mut expected = 0.0;
        for (word, times) in [("a", 1.0), ("b", 2.0)] {
            let with = |f: usize| texts.iter().filter(|t| count(&t[f], word) > 0.0).count() as f32;
            let searched = (0..3).filter(|f| weights[*f] > 0.0);
            let df = searched.map(with).fold(0.0, f32::max);
            let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
            let tf = weighted(&|f| count(&document[f], word));
            let len = weighted(&|f| length(&document[f]));
            expected += times * idf * 2.2 * tf / (tf + 1.2 * (0.25 + 0.75 * len / (total / n)));
        }
        let found = hits.iter().find(|hit| hit.row as usize == row);
        let found = found.map_or(0.0, |hit| hit.score);
        prop_assert!(
            (found - expected).abs() < 1e-4,
            "row {row}: {found}, {expected}"
        );
    }
    Ok(())
}
