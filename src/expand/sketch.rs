//! How much of its documents a corpus shares with an earlier one, from a few numbers of each: the smallest hashes of the texts
//! (Broder, SEQUENCES 1997).

use std::collections::BTreeSet;

/// Hashes kept: the estimate's standard error is at most 0.03.
const SIZE: usize = 256;

/// The smallest hashes of a corpus's texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch(BTreeSet<u64>);

impl Sketch {
    pub fn add(&mut self, text: &str) {
        let hash = blake3::hash(text.as_bytes());
        let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes");
        self.0.insert(u64::from_le_bytes(*first));
        if self.0.len() > SIZE {
            self.0.pop_last();
        }
    }

    /// Adds another corpus's texts.
    pub fn unite(&mut self, other: &Self) {
        self.0.extend(&other.0);
        while self.0.len() > SIZE {
            self.0.pop_last();
        }
    }

    /// The share of the texts of both corpora that is in both: |A ∩ B| / |A ∪ B|. Exact for few texts.
    pub fn similarity(&self, other: &Self) -> f64 {
        let union: Vec<&u64> = self.0.union(&other.0).take(SIZE).collect();
        if union.is_empty() {
            return 1.0;
        }
        let shared = union
            .iter()
            .filter(|hash| self.0.contains(hash) && other.0.contains(hash));
        shared.count() as f64 / union.len() as f64
    }

    /// In ascending order.
    pub fn hashes(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }
}

impl FromIterator<u64> for Sketch {
    fn from_iter<I: IntoIterator<Item = u64>>(hashes: I) -> Self {
        Self(hashes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(texts: std::ops::Range<usize>) -> Sketch {
        let mut sketch = Sketch::default();
        texts.for_each(|i| sketch.add(&format!("text {i}")));
        sketch
    }

    #[test]
    fn a_few_texts_are_compared_exactly() {
        assert_eq!(sketch(0..10).similarity(&sketch(0..10)), 1.0);
        assert_eq!(sketch(0..10).similarity(&sketch(0..20)), 0.5);
        assert_eq!(sketch(0..10).similarity(&sketch(10..20)), 0.0);
        assert_eq!(sketch(0..0).similarity(&sketch(0..0)), 1.0);
    }

    #[test]
    fn many_are_estimated() {
        for (shared, wanted) in [(0, 0.0), (5_000, 1.0 / 3.0), (9_000, 9.0 / 11.0)] {
            let found = sketch(0..10_000).similarity(&sketch(10_000 - shared..20_000 - shared));
            assert!(
                (found - wanted).abs() < 0.1,
                "{shared}: {found}, not {wanted}"
            );
        }
        let mut both = sketch(0..10_000);
        both.unite(&sketch(5_000..15_000));
        assert_eq!(both, sketch(0..15_000));
        let kept: Sketch = sketch(0..1_000).hashes().collect();
        assert_eq!(kept, sketch(0..1_000));
    }
}
