//! Packed products against ggml's definitions of the types.

mod reference;

use super::{Activations, Kind, Path, Quantized, project_on};
use reference::{Random, dequantize, f16_bits};

/// Blocks with every field drawn at random, but with scales of a size that real weights have.
fn random_bytes(kind: Kind, out: usize, input: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..out * kind.row_bytes(input).unwrap())
        .map(|_| random.next() as u8)
        .collect();
    for block in bytes.chunks_exact_mut(kind.block_bytes()) {
        for at in reference::halves(kind) {
            let scale = 0.01 + 0.02 * random.unit();
            block[*at..at + 2].copy_from_slice(&f16_bits(scale).to_le_bytes());
        }
    }
    bytes
}

/// Normal values with a few outliers, as the residual stream of a decoder has them.
fn random_rows(n: usize, input: usize, random: &mut Random) -> Vec<f32> {
    let mut x: Vec<f32> = (0..n * input).map(|_| random.normal()).collect();
    for at in (17..x.len()).step_by(211) {
        x[at] *= 8.0;
    }
    x
}

fn product(path: Path, threads: usize, weights: &Quantized, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / weights.input() * weights.out()];
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
        project_on(
            path,
            &Activations::new(x, weights.input()),
            &mut [(weights, &mut y)],
        )
    });
    y
}

fn inputs(kind: Kind) -> &'static [usize] {
    if kind.block() == 256 {
        &[256, 768]
    } else {
        &[32, 96, 256, 416, 896]
    }
}

#[test]
fn rows_that_are_taken_are_packed_as_from_the_file() {
    for kind in Kind::ALL {
        for &input in inputs(kind) {
            let (out, mut random) = (101, Random::new(input as u64));
            let bytes = random_bytes(kind, out, input, &mut random);
            let weights = Quantized::pack(kind, &bytes, out, input).unwrap();
            let rows: Vec<u32> = (0..60).map(|i| i * 37 % 101).collect();
            let row_bytes = kind.row_bytes(input).unwrap();
            let taken = rows
                .iter()
                .flat_map(|&row| &bytes[row as usize * row_bytes..][..row_bytes]);
            let taken: Vec<u8> = taken.copied().collect();
            let expected = Quantized::pack(kind, &taken, rows.len(), input).unwrap();
            let x = random_rows(3, input, &mut random);
            let product = |weights| product(Path::best(), 2, weights, &x);
            let taken = weights.take(&rows);
            assert_eq!(product(&taken), product(&expected), "{kind:?} {input}");
            assert_eq!(
                (taken.kind(), taken.out(), taken.bytes()),
                (kind, 60, expected.bytes())
            );
        }
    }
}

#[test]
fn rows_are_those_of_the_file() {
    for kind in Kind::ALL {
        for &input in inputs(kind) {
            let (out, mut random) = (37, Random::new(input as u64));
            let bytes = random_bytes(kind, out, input, &mut random);
            let weights = Quantized::pack(kind, &bytes, out, input).unwrap();
            let (mut packed, mut plain) = (vec![0.0; input], vec![0.0; input]);
            for (o, row) in bytes
                .chunks_exact(kind.row_bytes(input).unwrap())
                .enumerate()
            {
                let expected = dequantize(kind, row);
                weights.row(o, &mut packed);
                kind.dequantize(row, &mut plain).unwrap();
                assert_eq!(packed, expected, "{kind:?} row {o}");
                assert_eq!(plain, expected, "{kind:?} row {o}");
            }
        }
    }
}

#[test]
fn products_are_those_of_the_quantised_activations() {
    for kind in Kind::ALL {
        for &input in inputs(kind) {
            for (n, out) in [(1, 16), (3, 37), (7, 64), (13, 33)] {
                let mut random = Random::new((n * input) as u64);
                let bytes = random_bytes(kind, out, input, &mut random);
                let x = random_rows(n, input, &mut random);
                let y = product(
                    Path::best(),
                    2,
                    &Quantized::pack(kind, &bytes, out, input).unwrap(),
                    &x,
                );
                check(
                    kind,
                    &bytes,
                    &x,
                    input,
                    &y,
                    reference::quantized(kind, &x, input),
                    2e-6,
                );
            }
        }
    }
}

#[test]
fn products_are_close_to_those_of_the_activations() {
    for kind in Kind::ALL {
        let (n, out, input) = (5, 64, 1536);
        let mut random = Random::new(5);
        let bytes = random_bytes(kind, out, input, &mut random);
        let x = random_rows(n, input, &mut random);
        let y = product(
            Path::best(),
            2,
            &Quantized::pack(kind, &bytes, out, input).unwrap(),
            &x,
        );
        let exact = x.iter().map(|&x| f64::from(x)).collect();
        let error = check(kind, &bytes, &x, input, &y, exact, 0.05);
        assert!(
            error < if kind.block() == 256 { 0.02 } else { 0.012 },
            "{kind:?}: relative error {error}"
        );
    }
}

/// Compares with f64 sums over `x`, each within `tolerance` of the norms' product; returns the relative error of all.
fn check(
    kind: Kind,
    bytes: &[u8],
    rows: &[f32],
    input: usize,
    y: &[f32],
    x: Vec<f64>,
    tolerance: f64,
) -> f64 {
    let weights: Vec<Vec<f32>> = bytes
        .chunks_exact(kind.row_bytes(input).unwrap())
        .map(|row| dequantize(kind, row))
        .collect();
    let (mut wrong, mut total) = (0.0, 0.0);
    for ((x, row), y) in x
        .chunks_exact(input)
        .zip(rows.chunks_exact(input))
        .zip(y.chunks_exact(weights.len()))
    {
        for (o, (w, &y)) in weights.iter().zip(y).enumerate() {
            let expected: f64 = x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum();
            let size: f64 = row.iter().zip(w).map(|(x, w)| f64::from(x * w).abs()).sum();
            assert!(
                (expected - f64::from(y)).abs() <= tolerance * size,
                "{kind:?} {input} output {o}: {y}, not {expected}"
            );
            wrong += (expected - f64::from(y)).powi(2);
            total += expected * expected;
        }
    }
    (wrong / total).sqrt()
}

#[test]
fn bits_depend_on_neither_rows_nor_threads_nor_path() {
    for kind in Kind::ALL {
        let (input, out) = (inputs(kind)[inputs(kind).len() - 1], 70);
        let mut random = Random::new(9);
        let bytes = random_bytes(kind, out, input, &mut random);
        let weights = Quantized::pack(kind, &bytes, out, input).unwrap();
        let x = random_rows(200, input, &mut random);
        let all = product(Path::Portable, 1, &weights, &x);
        for path in Path::available() {
            for (n, threads) in [
                (200, 2),
                (131, 1),
                (17, 2),
                (16, 1),
                (6, 2),
                (5, 1),
                (4, 2),
                (3, 1),
                (2, 2),
                (1, 1),
            ] {
                let y = product(path, threads, &weights, &x[..n * input]);
                assert!(
                    same(&y, &all[..n * out]),
                    "{kind:?} {path:?}: {n} rows, {threads} threads"
                );
            }
            let last = product(path, 2, &weights, &x[199 * input..]);
            assert!(
                same(&last, &all[199 * out..]),
                "{kind:?} {path:?}: last row"
            );
        }
    }
}

#[test]
fn matrices_together_are_as_matrices_alone() {
    let (n, input, mut random) = (9, 768, Random::new(3));
    let x = random_rows(n, input, &mut random);
    let weights: Vec<Quantized> = [
        (Kind::Q4_K, 70),
        (Kind::Q6_K, 33),
        (Kind::Q8_0, 64),
        (Kind::Q4_0, 1),
    ]
    .map(|(kind, out)| {
        Quantized::pack(
            kind,
            &random_bytes(kind, out, input, &mut random),
            out,
            input,
        )
        .unwrap()
    })
    .into();
    let mut together: Vec<Vec<f32>> = weights.iter().map(|w| vec![0.0; n * w.out()]).collect();
    let mut products: Vec<_> = weights
        .iter()
        .zip(&mut together)
        .map(|(w, y)| (w, y.as_mut_slice()))
        .collect();
    crate::quant::project(&Activations::new(&x, input), &mut products);
    for (weights, y) in weights.iter().zip(&together) {
        let mut alone = vec![0.0; y.len()];
        weights.forward(&x, &mut alone);
        assert!(same(y, &alone), "{:?}", weights.kind());
    }
}

#[test]
fn extremes_do_not_saturate() {
    for kind in Kind::ALL {
        for fill in [0x00u8, 0xff, 0x7f, 0x80] {
            let (n, out, input) = (6, 33, 512);
            let mut bytes = vec![fill; out * kind.row_bytes(input).unwrap()];
            for block in bytes.chunks_exact_mut(kind.block_bytes()) {
                for at in reference::halves(kind) {
                    block[*at..at + 2].copy_from_slice(&f16_bits(0.5).to_le_bytes());
                }
            }
            // Rows of one sign, of alternating signs, of a large value among small ones, of zeros, of the smallest floats.
            let pattern: [fn(usize) -> f32; 6] = [
                |_| 127.0,
                |_| -3e30,
                |i| if i % 2 == 0 { 1.0 } else { -1.0 },
                |i| if i == 100 { 1e6 } else { 1.0 },
                |_| 0.0,
                |_| f32::from_bits(1),
            ];
            let x: Vec<f32> = (0..n * input)
                .map(|i| pattern[i / input](i % input))
                .collect();
            let weights = Quantized::pack(kind, &bytes, out, input).unwrap();
            for path in Path::available() {
                let y = product(path, 1, &weights, &x);
                check(
                    kind,
                    &bytes,
                    &x,
                    input,
                    &y,
                    reference::quantized(kind, &x, input),
                    2e-6,
                );
            }
        }
    }
}

#[test]
fn rows_with_nan_or_infinity_stay_alone() {
    let (input, out, mut random) = (512, 40, Random::new(4));
    for kind in [Kind::Q4_K, Kind::Q6_K, Kind::Q8_0, Kind::Q5_1] {
        let weights = Quantized::pack(
            kind,
            &random_bytes(kind, out, input, &mut random),
            out,
            input,
        )
        .unwrap();
        let mut x = random_rows(4, input, &mut random);
        let clean = product(Path::best(), 1, &weights, &x);
        x[input + 3] = f32::NAN;
        x[2 * input + 300] = f32::NEG_INFINITY;
        for path in Path::available() {
            let y = product(path, 1, &weights, &x);
            assert!(
                y[out..3 * out].iter().all(|y| y.is_nan()),
                "{kind:?} {path:?}"
            );
            assert!(
                same(&y[..out], &clean[..out]) && same(&y[3 * out..], &clean[3 * out..]),
                "{kind:?} {path:?}"
            );
        }
    }
}

#[test]
fn wrong_sizes_are_refused() {
    assert!(Quantized::pack(Kind::Q4_K, &[0; 144], 1, 128).is_err());
    assert!(Quantized::pack(Kind::Q4_K, &[0; 143], 1, 256).is_err());
    assert!(Quantized::pack(Kind::Q8_0, &[0; 68], 2, 32).is_ok());
    assert!(Kind::Q8_0.dequantize(&[0; 34], &mut [0.0; 64]).is_err());
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
