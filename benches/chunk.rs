//! The dynamic programme: 100 documents of 500 sentences, and single documents of 1,000 to 100,000 sentences, which
//! have to take time in proportion. Vectors have 384 numbers, a document has 20 intents, L is 24.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use intendex::chunk::dp::{Limits, segment};
use intendex::chunk::objective::Paper;
use intendex::model::Vectors;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const DIM: usize = 384;
const INTENTS: usize = 20;
const LONGEST: usize = 24;

fn vectors(rows: usize, seed: u64) -> Vectors {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    Vectors {
        dim: DIM,
        values: (0..rows * DIM)
            .map(|_| random.random_range(-1.0..1.0))
            .collect(),
    }
}

fn limits(sentences: usize) -> Limits {
    Limits {
        first: (1..=sentences).map(|j| j.saturating_sub(LONGEST)).collect(),
        glued: (0..=sentences).map(|j| j % 40 == 1).collect(),
    }
}

fn spans(sentences: &Vectors, intents: &Vectors) -> usize {
    segment(
        &limits(sentences.rows()),
        &Paper::new(sentences, intents, 0.01, 0.3),
    )
    .len()
}

fn documents(c: &mut Criterion) {
    let documents: Vec<Vectors> = (0..100).map(|seed| vectors(500, seed)).collect();
    let intents = vectors(INTENTS, 1000);
    let mut group = c.benchmark_group("100 documents of 500 sentences");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(50_000));
    group.bench_function("one after another", |b| {
        b.iter(|| {
            documents
                .iter()
                .map(|sentences| spans(sentences, &intents))
                .sum::<usize>()
        })
    });
    group.bench_function("in parallel", |b| {
        b.iter(|| {
            documents
                .par_iter()
                .map(|sentences| spans(sentences, &intents))
                .sum::<usize>()
        })
    });
    group.finish();
}

fn linearity(c: &mut Criterion) {
    let intents = vectors(INTENTS, 1000);
    let mut group = c.benchmark_group("one document");
    group.sample_size(10);
    for sentences in [1_000, 10_000, 100_000] {
        let document = vectors(sentences, 7);
        group.throughput(Throughput::Elements(sentences as u64));
        group.bench_with_input(
            BenchmarkId::from_parameter(sentences),
            &document,
            |b, document| b.iter(|| spans(document, &intents)),
        );
    }
    group.finish();
}

criterion_group!(benches, documents, linearity);
criterion_main!(benches);
