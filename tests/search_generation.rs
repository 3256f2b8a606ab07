//! Search over a small generation, against scores computed by hand from the same vectors.

#[path = "support/generation.rs"]
mod generation;

use generation::{CHUNKS, WordEmbedder, indexed};
use intendex::index::{SparseIndex, SparseWeights};
use intendex::search::{
    Fusion, Mode, Request, SearchError, SearchSettings, Searcher, Unit, passages,
};
use intendex::store::Indexes;

const SETTINGS: SearchSettings = SearchSettings {
    sparse: SparseWeights {
        title: 0.5,
        text: 1.0,
        queries: 0.5,
    },
    queries_weight: 0.3,
    hybrid_weight: 0.5,
    fusion: Fusion::Scores,
    depth: None,
};

const QUERY: &str = "when do cats hunt at dusk";

fn request(mode: Mode, k: usize) -> Request {
    Request {
        mode,
        unit: Unit::Chunk,
        k,
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// t + α·max(0, m − t) of every chunk, t its text's cosine and m its best query's.
fn dense_scores(embedder: &WordEmbedder, query: &str) -> Vec<(&'static str, f32)> {
    let q = embedder.vector(query);
    let score = |(id, text, all): &(&'static str, &str, &'static [&'static str])| {
        let text = dot(&q, &embedder.vector(text));
        let best = indexed(all)
            .iter()
            .map(|query| dot(&q, &embedder.vector(query)));
        let best = best.reduce(f32::max).unwrap_or(text);
        (*id, text + 0.3 * (best - text).max(0.0))
    };
    let mut scores: Vec<_> = CHUNKS.iter().map(score).collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores
}

#[test]
fn dense_search_is_exact_over_both_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let embedder = WordEmbedder::new();
    generation::write(dir.path(), &embedder);
    for depth in [None, Some(2)] {
        let settings = SearchSettings { depth, ..SETTINGS };
        let searcher = Searcher::open(dir.path(), settings, Some(&embedder)).unwrap();
        for query in [QUERY, "puppy food", "the moon"] {
            let found = searcher.search(&[query], request(Mode::Dense, 2)).unwrap();
            for (found, (id, score)) in found[0].iter().zip(dense_scores(&embedder, query)) {
                assert_eq!(found.chunk_id, id, "{query}");
                assert!(
                    (found.score - score).abs() < 1e-5,
                    "{query}: {found:?}, {score}"
                );
            }
        }
    }
}

#[test]
fn a_dense_result_names_its_parts() {
    let dir = tempfile::tempdir().unwrap();
    let embedder = WordEmbedder::new();
    generation::write(dir.path(), &embedder);
    let searcher = Searcher::open(dir.path(), SETTINGS, Some(&embedder)).unwrap();
    let found = &searcher
        .search(&["puppy food"], request(Mode::Dense, 6))
        .unwrap()[0];
    assert_eq!(
        (found[0].chunk_id.as_str(), found[0].doc_id.as_str()),
        ("dogs#1", "dogs")
    );
    assert_eq!(found[0].query_id.as_deref(), Some("dogs#1?1"));
    assert!((found[0].query_cosine.unwrap() - 1.0).abs() < 1e-5);
    let without_queries = found
        .iter()
        .find(|found| found.chunk_id == "sea#0")
        .unwrap();
    assert_eq!(without_queries.query_cosine, None);
    assert_eq!(Some(without_queries.score), without_queries.text_cosine);
}

#[test]
fn hybrid_is_the_mean_of_standardised_scores() {
    let dir = tempfile::tempdir().unwrap();
    let embedder = WordEmbedder::new();
    generation::write(dir.path(), &embedder);
    let searcher = Searcher::open(dir.path(), SETTINGS, Some(&embedder)).unwrap();
    let found = &searcher.search(&[QUERY], request(Mode::Hybrid, 6)).unwrap()[0];
    let sparse = SparseIndex::open(&dir.path().join("sparse")).unwrap();
    let sparse: Vec<(String, f32)> = sparse
        .search(QUERY, 6, SETTINGS.sparse)
        .unwrap()
        .iter()
        .map(|hit| (CHUNKS[hit.row as usize].0.to_owned(), hit.score))
        .collect();
    let dense: Vec<(String, f32)> = dense_scores(&embedder, QUERY)
        .into_iter()
        .map(|(id, score)| (id.to_owned(), score))
        .collect();
    for found in found {
        let part = |list: &[(String, f32)]| {
            let scores = || list.iter().map(|(_, score)| *score);
            let mean = scores().sum::<f32>() / list.len() as f32;
            let variance = scores().map(|s| (s - mean).powi(2)).sum::<f32>() / list.len() as f32;
            let own = list.iter().find(|(id, _)| *id == found.chunk_id);
            let least = list[list.len() - 1].1;
            own.map_or(0.0, |own| (own.1 - least) / variance.sqrt())
        };
        let expected = 0.5 * (part(&sparse) + part(&dense));
        assert!((found.score - expected).abs() < 1e-3, "{found:?}");
    }
    assert_eq!(found[0].chunk_id, "cats#0");
    assert!(found[0].sparse.is_some() && found[0].dense.is_some());
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
}

#[test]
fn documents_stand_where_their_best_chunk_stands() {
    let dir = tempfile::tempdir().unwrap();
    let embedder = WordEmbedder::new();
    generation::write(dir.path(), &embedder);
    let searcher = Searcher::open(dir.path(), SETTINGS, Some(&embedder)).unwrap();
    for mode in [Mode::Sparse, Mode::Dense, Mode::Hybrid] {
        let by_document = Request {
            unit: Unit::Document,
            ..request(mode, 10)
        };
        let documents = &searcher.search(&[QUERY], by_document).unwrap()[0];
        let chunks = &searcher.search(&[QUERY], request(mode, 10)).unwrap()[0];
        for found in documents {
            let best = chunks.iter().find(|chunk| chunk.doc_id == found.doc_id);
            assert_eq!(best, Some(found));
        }
        let mut names: Vec<&str> = documents
            .iter()
            .map(|found| found.doc_id.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), documents.len());
    }
}

#[test]
fn many_queries_are_answered_as_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let embedder = WordEmbedder::new();
    generation::write(dir.path(), &embedder);
    let searcher = Searcher::open(dir.path(), SETTINGS, Some(&embedder)).unwrap();
    let queries: Vec<&str> = [QUERY, "puppy food", ""]
        .into_iter()
        .cycle()
        .take(600)
        .collect();
    let together = searcher.search(&queries, request(Mode::Hybrid, 3)).unwrap();
    for (query, found) in queries.iter().zip(&together).skip(254).take(4) {
        assert_eq!(
            found,
            &searcher.search(&[query], request(Mode::Hybrid, 3)).unwrap()[0]
        );
    }
    assert_eq!(together.len(), 600);
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let embedder = WordEmbedder::new();
    generation::write(dir.path(), &embedder);
    let searcher = Searcher::open(dir.path(), SETTINGS, None).unwrap();
    let error = searcher
        .search(&[QUERY], request(Mode::Hybrid, 3))
        .unwrap_err();
    assert!(matches!(error, SearchError::NoEmbedder));
    std::fs::remove_dir_all(dir.path().join("dense")).unwrap();
    let searcher = Searcher::open(dir.path(), SETTINGS, Some(&embedder)).unwrap();
    let error = searcher
        .search(&[QUERY], request(Mode::Dense, 3))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("there is no dense index; search with `--mode sparse`")
    );
}

#[test]
fn queries_out_of_order_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let embedder = WordEmbedder::new();
    generation::write(dir.path(), &embedder);
    let ids = dir.path().join("dense/queries.ids");
    let text = std::fs::read_to_string(&ids).unwrap();
    let reversed: Vec<&str> = text.lines().rev().collect();
    std::fs::write(&ids, reversed.join("\n") + "\n").unwrap();
    let error = Searcher::open(dir.path(), SETTINGS, None).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("is not in the order of the chunks"),
        "{error}"
    );
}

#[test]
fn passages_have_their_texts_and_indexed_queries() {
    let dir = tempfile::tempdir().unwrap();
    generation::write(dir.path(), &WordEmbedder::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let wanted = ["naïve docs/1#0", "cats#0", "sea#0", "gone#9"];
    let indexes = Indexes::of(Vec::new(), Some(0.5), 2);
    let found = runtime
        .block_on(passages::read(dir.path(), &wanted, &indexes))
        .unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found["naïve docs/1#0"].text, CHUNKS[4].1);
    let queries: Vec<(&str, &str)> = found["cats#0"]
        .queries
        .iter()
        .map(|(id, text)| (id.as_str(), text.as_str()))
        .collect();
    assert_eq!(
        queries,
        [
            ("cats#0?0", "when do cats hunt"),
            ("cats#0?1", "do cats sleep")
        ]
    );
    assert!(found["sea#0"].queries.is_empty());
}
