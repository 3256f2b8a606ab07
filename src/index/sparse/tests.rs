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
fn the_score_is_the_weighted_sum_of_bm25_over_fields() {
    let (_dir, index) = indexed(&["koalas sleep", "a quokka digs", "wombats dig"]);
    let only = |title, text, queries| {
        index
            .search(
                "quokka",
                1,
                SparseWeights {
                    title,
                    text,
                    queries,
                },
            )
            .unwrap()[0]
    };
    let sum = only(0.0, 1.0, 0.0).score + 0.5 * only(0.0, 0.0, 1.0).score;
    assert!((only(0.5, 1.0, 0.5).score - sum).abs() < 1e-5);
    // One of three texts has the term once; lengths 2, 3 and 2: idf·(k1+1)·tf/(tf + k1·(1−b+b·len/avg)).
    let idf = (1.0 + (3.0 - 1.0 + 0.5) / 1.5f32).ln();
    let bm25 = idf * 2.2 / (1.0 + 1.2 * (0.25 + 0.75 * 3.0 / (7.0 / 3.0)));
    assert!((only(0.0, 1.0, 0.0).score - bm25).abs() < 1e-5);
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
fn repeated_words_are_one_clause_with_a_higher_boost() {
    let (_dir, index) = indexed(&["x"]);
    let terms = index.terms(
        "dig, digging dirt",
        SparseWeights {
            title: 0.0,
            text: 2.0,
            queries: 0.0,
        },
    );
    let clause = |term: &str, boost| QueryTerm {
        field: "text",
        term: term.into(),
        boost,
    };
    assert_eq!(terms, [clause("dig", 4.0), clause("dirt", 2.0)]);
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
}
