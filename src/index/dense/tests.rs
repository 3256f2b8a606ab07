use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const DIM: usize = 16;

/// Unit vectors, row-major.
fn vectors(rows: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f32> = (0..rows * DIM)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    for row in values.chunks_mut(DIM) {
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    values
}

fn build(dir: &Path, factory: &str, values: &[f32]) -> Result<DenseIndex, DenseError> {
    let rows = values.len() / DIM;
    let mut writer = DenseWriter::create(dir, "text", factory, DIM, rows)?;
    if let Some(stride) = writer.training_stride() {
        assert_eq!(stride, 1);
        writer.train(values)?;
    }
    for (i, batch) in values.chunks(7 * DIM).enumerate() {
        let ids: Vec<String> = (0..batch.len() / DIM)
            .map(|j| format!("d#{}", i * 7 + j))
            .collect();
        writer.add(&ids.iter().map(String::as_str).collect::<Vec<_>>(), batch)?;
    }
    writer.finish()?;
    DenseIndex::open(&dir.join("text.faiss"), &dir.join("text.ids"))
}

fn brute_force(values: &[f32], query: &[f32], k: usize) -> Vec<usize> {
    let dot = |row: &[f32]| row.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
    let scores: Vec<f32> = values.chunks(DIM).map(dot).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(k);
    order
}

#[test]
fn every_kind_finds_the_nearest_rows() {
    let values = vectors(2000, 1);
    for (factory, recall_wanted) in [
        ("auto", 1.0),
        ("Flat", 1.0),
        ("HNSW32", 0.95),
        ("IVF64,SQfp16", 0.95),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let index = build(dir.path(), factory, &values).unwrap();
        let mut found = 0;
        for query in vectors(20, 2).chunks(DIM) {
            let hits = index.search(query, 10).unwrap();
            let exact = brute_force(&values, query, 10);
            found += hits.iter().filter(|hit| exact.contains(&hit.row)).count();
            assert!(hits.is_sorted_by(|a, b| a.score >= b.score), "{factory}");
        }
        assert!(
            found as f64 / 200.0 >= recall_wanted,
            "{factory}: {found} of 200"
        );
        assert_eq!(index.ids().get(1999), Some("d#1999"));
    }
}

#[test]
fn a_row_can_be_scored_alone_where_the_index_keeps_it() {
    let (values, query) = (vectors(300, 3), vectors(1, 4));
    for (factory, kept) in [("Flat", true), ("HNSW32", true), ("IVF4,Flat", false)] {
        let dir = tempfile::tempdir().unwrap();
        let index = build(dir.path(), factory, &values).unwrap();
        let best = index.search(&query, 1).unwrap()[0];
        match index.score(&query, best.row) {
            Some(score) => assert!(kept && (score - best.score).abs() < 1e-6, "{factory}"),
            None => assert!(!kept, "{factory}"),
        }
        assert_eq!(index.score(&query, 300), None);
    }
}

#[test]
fn equal_vectors_come_in_the_order_of_their_rows() {
    let dir = tempfile::tempdir().unwrap();
    let one = vectors(1, 5);
    let index = build(dir.path(), "Flat", &one.repeat(40)).unwrap();
    let rows: Vec<usize> = index
        .search(&one, 10)
        .unwrap()
        .iter()
        .map(|hit| hit.row)
        .collect();
    assert_eq!(rows, (0..10).collect::<Vec<_>>());
}

#[test]
fn an_index_of_nothing_answers_with_nothing() {
    for factory in ["auto", "IVF64,Flat"] {
        let dir = tempfile::tempdir().unwrap();
        let index = build(dir.path(), factory, &[]).unwrap();
        assert!(index.search(&vectors(1, 6), 5).unwrap().is_empty());
    }
}

#[test]
fn auto_grows_from_flat_to_a_graph_to_lists() {
    let kinds = [
        (0, "Flat"),
        (50_000, "Flat"),
        (50_001, "HNSW32"),
        (5_000_001, "IVF8192,SQfp16"),
    ];
    for (rows, factory) in kinds {
        assert_eq!(factory_for(rows), factory);
    }
}

#[test]
fn a_bad_factory_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let error = build(dir.path(), "Flatt", &[]).err().unwrap().to_string();
    assert!(
        error.starts_with("`dense.factory`: FAISS does not take `Flatt`"),
        "{error}"
    );
    let error = build(dir.path(), "IVF64,Flat", &vectors(10, 1))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("`dense.factory`: `IVF64,Flat` cannot be trained on 10 vectors"),
        "{error}"
    );
}

#[test]
fn ids_and_vectors_must_be_as_many() {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path(), "Flat", &vectors(3, 1)).unwrap();
    let (index, ids) = (dir.path().join("text.faiss"), dir.path().join("text.ids"));
    std::fs::write(&ids, "a\nb\n").unwrap();
    let error = DenseIndex::open(&index, &ids).err().unwrap();
    assert!(
        matches!(
            error,
            DenseError::Unaligned {
                ids: 2,
                rows: 3,
                ..
            }
        ),
        "{error}"
    );
    std::fs::write(&index, "not an index").unwrap();
    assert!(matches!(
        DenseIndex::open(&index, &ids),
        Err(DenseError::Index { .. })
    ));
}

#[test]
fn an_id_with_a_line_break_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DenseWriter::create(dir.path(), "text", "Flat", DIM, 1).unwrap();
    assert!(matches!(
        writer.add(&["a\nb"], &vectors(1, 1)),
        Err(DenseError::LineBreak { .. })
    ));
}
