//! Cutting documents whose sentences have vectors: the dynamic programme of intent-driven chunking (384 numbers a vector, 20
//! intents a document, L = 24), and the method `boundary` as a whole, from text to chunks, with an embedder that costs
//! nothing. 100 documents of 500 sentences, and single documents of 1,000 to 100,000, which have to take time in proportion.
//! `benches/chunk.py` runs the published objective in numpy, on vectors of the same shapes.

use std::hash::{DefaultHasher, Hash, Hasher};

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use intendex::chunk::chunk;
use intendex::chunk::dp::{Limits, segment};
use intendex::chunk::objective::Paper;
use intendex::job::spec;
use intendex::model::{Embed, Embedded, ModelError, ModelIdentity, TextKind, Vectors};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const DIM: usize = 384;
const INTENTS: usize = 20;
const LONGEST: usize = 24;
const DOCUMENTS: usize = 100;
const SENTENCES: usize = 500;

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

/// Spans of the published objective.
fn paper(sentences: &Vectors, intents: &Vectors) -> usize {
    let gains = Paper::new(sentences, intents, 0.01, 0.3);
    segment(&limits(sentences.rows()), &gains).len()
}

/// Sentences of some 20 words in paragraphs of five.
fn text(sentences: usize, seed: u64) -> String {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut text = String::new();
    for i in 0..sentences {
        text.push_str("The");
        for _ in 0..random.random_range(8..30) {
            text.push_str(
                [" water", " of", " several", " engines", " was", " found"]
                    [random.random_range(0..6)],
            );
        }
        text.push_str(if i % 5 == 4 { ".\n\n" } else { ". " });
    }
    text
}

/// A token for every word, and some vector for every text, of a table: to look one up costs nothing beside what is measured.
struct Table {
    identity: ModelIdentity,
    vectors: Vectors,
}

impl Table {
    fn new() -> Self {
        let identity = ModelIdentity {
            name: "table".into(),
            architecture: "table".into(),
            files: Vec::new(),
        };
        Self {
            identity,
            vectors: vectors(1024, 3),
        }
    }
}

impl Embed for Table {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn dim(&self) -> usize {
        DIM
    }

    fn max_text_tokens(&self) -> usize {
        254
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        let start = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
        let words = text.split_whitespace();
        Ok(words.map(|w| (start(w), start(w) + w.len())).collect())
    }

    fn embed(&self, texts: &[&str], _: TextKind) -> Result<Embedded, ModelError> {
        let row = |text: &&str| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            self.vectors
                .row(hasher.finish() as usize % self.vectors.rows())
        };
        Ok(Embedded {
            vectors: Vectors {
                dim: DIM,
                values: texts.iter().flat_map(row).copied().collect(),
            },
            tokens: vec![0; texts.len()],
            truncated: vec![0; texts.len()],
        })
    }
}

fn boundary(text: &str, embedder: &Table) -> usize {
    let chunked = chunk(text, &[], &spec::Chunk::default(), embedder);
    chunked.expect("chunks").chunks.len()
}

fn many<T: Sync>(c: &mut Criterion, name: &str, documents: &[T], cut: impl Fn(&T) -> usize + Sync) {
    let mut group = c.benchmark_group(format!(
        "{name}, {DOCUMENTS} documents of {SENTENCES} sentences"
    ));
    group.sample_size(10);
    group.throughput(Throughput::Elements((DOCUMENTS * SENTENCES) as u64));
    group.bench_function("one after another", |b| {
        b.iter(|| documents.iter().map(&cut).sum::<usize>())
    });
    group.bench_function("in parallel", |b| {
        b.iter(|| documents.par_iter().map(&cut).sum::<usize>())
    });
    group.finish();
}

fn one<T>(
    group: &mut BenchmarkGroup<WallTime>,
    sentences: usize,
    document: &T,
    cut: impl Fn(&T) -> usize,
) {
    group.sample_size(10);
    group.throughput(Throughput::Elements(sentences as u64));
    let id = BenchmarkId::from_parameter(sentences);
    group.bench_with_input(id, document, |b, document| b.iter(|| cut(document)));
}

const LENGTHS: [usize; 3] = [1_000, 10_000, 100_000];

fn published(c: &mut Criterion) {
    let documents: Vec<Vectors> = (0..DOCUMENTS as u64)
        .map(|seed| vectors(SENTENCES, seed))
        .collect();
    let intents = vectors(INTENTS, 1000);
    many(c, "paper", &documents, |sentences| {
        paper(sentences, &intents)
    });
    let mut group = c.benchmark_group("paper, one document");
    for sentences in LENGTHS {
        let document = vectors(sentences, 7);
        one(&mut group, sentences, &document, |document| {
            paper(document, &intents)
        });
    }
    group.finish();
}

fn ours(c: &mut Criterion) {
    let embedder = Table::new();
    let documents: Vec<String> = (0..DOCUMENTS as u64)
        .map(|seed| text(SENTENCES, seed))
        .collect();
    many(c, "boundary", &documents, |text| boundary(text, &embedder));
    let mut group = c.benchmark_group("boundary, one document");
    for sentences in LENGTHS {
        one(&mut group, sentences, &text(sentences, 7), |text| {
            boundary(text, &embedder)
        });
    }
    group.finish();
}

criterion_group!(benches, published, ours);
criterion_main!(benches);
