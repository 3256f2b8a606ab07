//! Functions over many floats, written so that compilers vectorise them, for the instruction set of the processor at
//! hand ([`pulp::Arch`]). The bits of a result are the same on each: no operation is fused or reordered.

/// Sums and maxima run over so many lanes, which meet at the end of every piece.
const LANES: usize = 32;
/// Floats whose sum is taken in f32 before it goes to f64.
const PIECE: usize = 64 * LANES;

vectorized! {
    /// The largest value: NaN if there is one, −∞ of none.
    pub fn max<'a>(x: &'a [f32]) -> f32 {
        let (mut lanes, mut nans) = ([f32::NEG_INFINITY; LANES], [false; LANES]);
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] = if chunk[i] > lanes[i] {
                    chunk[i]
                } else {
                    lanes[i]
                };
                nans[i] |= chunk[i].is_nan();
            }
        }
        match nans.contains(&true) || rest.iter().any(|x| x.is_nan()) {
            true => f32::NAN,
            false => lanes
                .iter()
                .chain(rest)
                .copied()
                .fold(f32::NEG_INFINITY, f32::max),
        }
    }
}

vectorized! {
    /// Places of the values of at least `floor`, in order.
    pub fn from<'a>(x: &'a [f32], floor: f32) -> Vec<usize> {
        let mut places = Vec::new();
        for (at, chunk) in x.chunks(LANES).enumerate() {
            // Mostly there is none.
            if chunk.iter().fold(false, |any, &x| any | (x >= floor)) {
                let found = (0..chunk.len()).filter(|&i| chunk[i] >= floor);
                places.extend(found.map(|i| at * LANES + i));
            }
        }
        places
    }
}

vectorized! {
    /// Σ exp((x − from) · scale).
    pub fn sum_exp<'a>(x: &'a [f32], from: f32, scale: f32) -> f64 {
        let mut total = 0.0;
        for piece in x.chunks(PIECE) {
            let mut lanes = [0.0f32; LANES];
            let (chunks, rest) = piece.as_chunks::<LANES>();
            for chunk in chunks {
                for i in 0..LANES {
                    lanes[i] += exp((chunk[i] - from) * scale);
                }
            }
            for (lane, &x) in lanes.iter_mut().zip(rest) {
                *lane += exp((x - from) * scale);
            }
            total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        }
        total
    }
}

vectorized! {
    /// x ← exp((x − from) · scale).
    pub fn exp_all<'a>(x: &'a mut [f32], from: f32, scale: f32) -> () {
        for x in x {
            *x = exp((*x - from) * scale);
        }
    }
}

/// x ← softmax(x); NaN if one is NaN or infinite.
pub fn softmax(x: &mut [f32]) {
    exp_all(x, max(x), 1.0);
    let total = x.chunks(PIECE).map(|x| sum(x, |x| x)).sum::<f64>() as f32;
    x.iter_mut().for_each(|x| *x /= total);
}

vectorized! {
    /// gate ← silu(gate) · up (SwiGLU, arXiv 2002.05202), silu(x) = x / (1 + exp(−x)).
    pub fn swiglu<'a>(gate: &'a mut [f32], up: &'a [f32]) -> () {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = *gate / (1.0 + exp(-*gate)) * up;
        }
    }
}

vectorized! {
    /// gate ← gelu(gate) · up, with the approximation by tanh.
    pub fn geglu<'a>(gate: &'a mut [f32], up: &'a [f32]) -> () {
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate = by_tanh(*gate) * up;
        }
    }
}

#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += of(chunk[i]);
        }
    }
    let rest = rest.iter().map(|&x| of(x));
    lanes.into_iter().chain(rest).map(f64::from).sum()
}

vectorized! {
    /// x ← x · Φ(x), Φ the normal distribution.
    pub fn gelu<'a>(x: &'a mut [f32]) -> () {
        for x in x {
            *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

vectorized! {
    /// x ← x / (1 + exp(−2 √(2/π) (x + 0.044715 x³))), the approximation of [`gelu`] by tanh.
    pub fn gelu_tanh<'a>(x: &'a mut [f32]) -> () {
        for x in x {
            *x = by_tanh(*x);
        }
    }
}

vectorized! {
    /// x ← (x − mean) / √(variance + epsilon) · weight + bias (arXiv 1607.06450).
    pub fn layer_norm<'a>(x: &'a mut [f32], weight: &'a [f32], bias: &'a [f32], epsilon: f32) -> () {
        let n = x.len() as f64;
        let mean = (sum(x, |x| x) / n) as f32;
        let variance = (sum(x, |x| (x - mean) * (x - mean)) / n) as f32;
        let scale = 1.0 / (variance + epsilon).sqrt();
        for ((x, weight), bias) in x.iter_mut().zip(weight).zip(bias) {
            *x = (*x - mean) * scale * weight + bias;
        }
    }
}

/// exp(x) within 3e-7 of itself; of x outside ±87, exp(±87).
///
/// 2ⁿ · eʳ with n = round(x / ln 2), and the polynomial of Cephes' `expf.c` for eʳ. Bounds of 87 keep 2ⁿ a normal float.
#[inline(always)]
#[allow(clippy::excessive_precision)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: what is added to it is rounded to an integer, in its low bits
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 87.0 { 87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_375 + n * 2.121_944_4e-4;
    let p = 1.987_569_15e-4f32;
    let p = p * r + 1.398_199_95e-3;
    let p = p * r + 8.333_451_9e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_55e-1;
    let p = p * r + 5.000_000_1e-1;
    let power = p * r * r + r + 1.0;
    let exponent = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    power * f32::from_bits(((exponent + 127) << 23) as u32)
}

#[inline(always)]
fn by_tanh(x: f32) -> f32 {
    let inner = 1.595_769 * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-inner))
}

/// erf(x) within 5e-7, as x · P(x²) / Q(x²) on [−4, 4] (the coefficients of Eigen's `generic_fast_erf_float`).
#[inline(always)]
#[allow(clippy::excessive_precision)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let p = -2.726_142_4e-10f32;
    let p = p * s + 2.770_681_4e-8;
    let p = p * s - 2.101_024_02e-6;
    let p = p * s - 5.692_506_4e-5;
    let p = p * s - 7.349_906_3e-4;
    let p = p * s - 2.954_600_3e-3;
    let p = p * s - 1.609_603_3e-2;
    let q = -1.456_607_2e-5f32;
    let q = q * s - 2.133_740_6e-4;
    let q = q * s - 1.682_827_1e-3;
    let q = q * s - 7.373_329_2e-3;
    let q = q * s - 1.426_473_9e-2;
    x * p / q
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64, within: f64) -> bool {
        (found - expected).abs() <= within * expected.abs().max(1e-30)
    }

    proptest! {
        #[test]
        fn exponentials_are_those_of_f64(x in prop::collection::vec(-86f32..86.0, 1..100)) {
            let mut powers = x.clone();
            exp_all(&mut powers, 0.0, 1.0);
            for (x, power) in x.iter().zip(&powers) {
                prop_assert!(close(f64::from(*power), f64::from(*x).exp(), 3e-7), "exp({x}) = {power}");
            }
        }

        #[test]
        fn sums_are_those_of_f64(x in prop::collection::vec(-20f32..20.0, 0..9000), from in -1f32..1.0) {
            let expected: f64 = x.iter().map(|&x| (f64::from(x - from) * 0.5).exp()).sum();
            prop_assert!(close(sum_exp(&x, from, 0.5), expected, 2e-6));
        }

        #[test]
        fn the_maximum_is_found_at_any_place(mut x in prop::collection::vec(-1f32..1.0, 1..100), at: prop::sample::Index) {
            let at = at.index(x.len());
            x[at] = 2.0;
            prop_assert_eq!(max(&x), 2.0);
            x[at] = f32::NAN;
            prop_assert!(max(&x).is_nan());
        }

        #[test]
        fn gates_are_those_of_f64(gate in prop::collection::vec(-30f32..30.0, 1..70), up in -2f32..2.0) {
            let ups = vec![up; gate.len()];
            let (mut silu, mut gelu) = (gate.clone(), gate.clone());
            swiglu(&mut silu, &ups);
            geglu(&mut gelu, &ups);
            for (i, &x) in gate.iter().enumerate() {
                let (x, up) = (f64::from(x), f64::from(up));
                let expected = x / (1.0 + (-x).exp()) * up;
                prop_assert!((f64::from(silu[i]) - expected).abs() < 1e-5, "{} {expected}", silu[i]);
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                let expected = 0.5 * x * (1.0 + inner.tanh()) * up;
                prop_assert!((f64::from(gelu[i]) - expected).abs() < 1e-4, "{} {expected}", gelu[i]);
            }
        }
    }

    proptest! {
        #[test]
        fn gelu_is_that_of_tensors_and_layer_norm_that_of_f64(x in prop::collection::vec(-12f32..12.0, 2..70)) {
            use candle_core::{Device, Tensor};
            let n = x.len();
            let tensor = Tensor::new(&x[..], &Device::Cpu).unwrap();
            let worst = |found: &[f32], expected: Tensor| {
                let expected: Vec<f32> = expected.to_vec1().unwrap();
                found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
            };
            let mut exact = x.clone();
            gelu(&mut exact);
            prop_assert!(worst(&exact, tensor.gelu_erf().unwrap()) < 4e-6);
            let mut rough = x.clone();
            gelu_tanh(&mut rough);
            prop_assert!(worst(&rough, tensor.gelu().unwrap()) < 1e-5);
            let mut normed = x.clone();
            layer_norm(&mut normed, &vec![1.5; n], &vec![-0.5; n], 1e-3);
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64;
            for (x, normed) in x.iter().zip(normed) {
                let expected = (f64::from(*x) - mean) / (variance + 1e-3).sqrt() * 1.5 - 0.5;
                prop_assert!((f64::from(normed) - expected).abs() < 1e-3, "{normed} {expected}");
            }
        }
    }

    #[test]
    fn infinities_and_nothing() {
        assert_eq!(max(&[]), f32::NEG_INFINITY);
        assert_eq!(max(&[f32::NEG_INFINITY, f32::INFINITY]), f32::INFINITY);
        assert_eq!(sum_exp(&[], 0.0, 1.0), 0.0);
        assert!(sum_exp(&[f32::NEG_INFINITY], 0.0, 1.0) < 1e-30);
        assert!(sum_exp(&[f32::NAN], 0.0, 1.0).is_nan());
    }
}
