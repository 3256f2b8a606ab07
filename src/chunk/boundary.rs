//! The method of our own: cut where the text speaks for a boundary, into chunks near the target length t. Maximises
//!
//! Σ_j e(j) − 4 Σ_C ((|C| − t) / t)²        over the boundaries j and the chunks C, |C| in tokens
//!
//! The evidence e(j) that a paragraph ends before unit j is the sum of five cosines of the sentences around j (standardised
//! within the document, so that it does not depend on the embedder's scale) and of how unit j begins, with the weights,
//! rounded, of a logistic regression on the paragraphs of the tuning half of SQuAD's articles, their marks removed; the
//! other constants were set by hand on that half (`jobs/ablation/chunks.md`). Marks of the document's own outweigh it.

use std::ops::Range;

use rayon::prelude::*;

use crate::model::Vectors;

use super::dp::{self, Gains};
use super::objective::{add, dot, unit_rows};
use super::unit::Units;

/// Evidence of each cosine of [`cosines`], per standard deviation.
const WEIGHTS: [f64; 5] = [0.8, 0.5, -0.5, -0.5, -0.45];

/// Evidence of a start that points back.
const WEAK_START: f64 = -1.5;

/// Evidence of a boundary without any other; with it the mean chunk is about as long as the target.
const BIAS: f64 = -0.6;

/// Evidence of a mark between blocks against none.
const MARK: f64 = 8.0;

/// Cost of a length that is off by the whole target.
const OFF: f64 = 4.0;

/// Words with which a sentence points back to the one before it.
const POINTING_BACK: [&str; 13] = [
    "he", "her", "his", "it", "its", "she", "such", "that", "their", "these", "they", "this",
    "those",
];

/// Languages whose words [`POINTING_BACK`] has; a text too short to tell is taken for one of them.
const LANGUAGES: [&str; 2] = ["eng", "und"];

/// Spans that tile the units, none above the cap but single units.
pub(super) fn cut(
    text: &str,
    language: &str,
    units: &Units,
    vectors: &Vectors,
    target: usize,
    cap: usize,
) -> Vec<Range<usize>> {
    let limits = dp::Limits {
        // What has no tokens does not end a span either.
        first: units.reach_back(cap, cap),
        glued: (0..=units.len()).map(|j| units.glued(j)).collect(),
    };
    let gains = Evidence {
        units,
        boundary: evidence(text, language, units, vectors, target),
        target,
    };
    dp::segment(&limits, &gains)
}

struct Evidence<'a> {
    units: &'a Units,
    /// Of the boundary before each unit; that before the first is 0.
    boundary: Vec<f64>,
    target: usize,
}

impl Gains for Evidence<'_> {
    fn gains(&self, j: usize, row: &mut [f64]) {
        for (k, gain) in row.iter_mut().enumerate() {
            let i = j - 1 - k;
            let off = self.units.tokens(&(i..j)) as f64 / self.target as f64 - 1.0;
            *gain = self.boundary[i] - OFF * off * off;
        }
    }
}

fn evidence(
    text: &str,
    language: &str,
    units: &Units,
    vectors: &Vectors,
    target: usize,
) -> Vec<f64> {
    let n = units.len();
    let columns = cosines(&unit_rows(vectors)).map(standardised);
    let marks: Vec<f64> = (0..n).map(|j| f64::from(units.strength(j)) / 2.0).collect();
    let usual = usual_mark(units, &marks, target);
    let tells = LANGUAGES.contains(&language);
    let of = |j: usize| {
        let unit = &units.list[j];
        let weak = tells && points_back(&text[unit.start..unit.end]);
        let cosines = columns.iter().zip(WEIGHTS);
        let cosines: f64 = cosines.map(|(column, weight)| weight * column[j - 1]).sum();
        cosines + f64::from(u8::from(weak)) * WEAK_START + BIAS + MARK * (marks[j] - usual)
    };
    std::iter::once(0.0).chain((1..n).map(of)).collect()
}

/// The mean of the strongest marks at as many boundaries as the target asks for. What is added for a mark is taken from it,
/// so that a document with marks is cut into about as many chunks as one without.
fn usual_mark(units: &Units, marks: &[f64], target: usize) -> f64 {
    let n = units.len();
    let free = (1..n).filter(|&j| !units.glued(j));
    let mut marks: Vec<f64> = free.map(|j| marks[j]).collect();
    marks.sort_by(|a, b| b.total_cmp(a));
    let wanted = (units.tokens(&(0..n)) / target).max(1);
    marks.iter().take(wanted).sum::<f64>() / wanted as f64
}

/// For each boundary, before unit 1 to before unit N−1: the cosine of the unit behind it with the three that follow; of the
/// unit before it with the three that it follows; of that with the three behind; of the two before with the two behind; and
/// how far that of the four before with the four behind is above its mean at the six boundaries around. NaN where there is
/// nothing to compare.
fn cosines(unit: &Vectors) -> [Vec<f64>; 5] {
    let n = unit.rows();
    let cosine = |a: Range<usize>, b: Range<usize>| {
        let (a, b) = (sum(unit, a), sum(unit, b));
        f64::from(dot(&a, &b)) / f64::from(dot(&a, &a) * dot(&b, &b)).sqrt()
    };
    let before = |j: usize, most: usize| j.saturating_sub(most)..j;
    let behind = |j: usize, most: usize| j..(j + most).min(n);
    let rows = (1..n).into_par_iter().with_min_len(1024).map(|j| {
        [
            cosine(j..j + 1, behind(j + 1, 3)),
            cosine(j - 1..j, before(j - 1, 3)),
            cosine(j - 1..j, behind(j, 3)),
            cosine(before(j, 2), behind(j, 2)),
            cosine(before(j, 4), behind(j, 4)),
        ]
    });
    let rows: Vec<[f64; 5]> = rows.collect();
    let mut columns = [0, 1, 2, 3, 4].map(|c| rows.iter().map(|row| row[c]).collect::<Vec<f64>>());
    columns[4] = above_neighbours(&columns[4]);
    columns
}

fn sum(unit: &Vectors, rows: Range<usize>) -> Vec<f32> {
    let mut sum = vec![0.0; unit.dim];
    rows.for_each(|i| add(&mut sum, unit.row(i)));
    sum
}

/// Each value less the mean of the three before and the three behind it; beyond an end the last value stands again.
fn above_neighbours(values: &[f64]) -> Vec<f64> {
    let last = values.len().saturating_sub(1) as isize;
    let at = |i: isize| values[i.clamp(0, last) as usize];
    let around = |i: isize| [-3, -2, -1, 1, 2, 3].iter().map(|d| at(i + d)).sum::<f64>() / 6.0;
    (0..values.len() as isize)
        .map(|i| at(i) - around(i))
        .collect()
}

/// The finite values to mean 0 and standard deviation 1; 0 for the others, and for all where they do not differ.
fn standardised(values: Vec<f64>) -> Vec<f64> {
    let finite = || values.iter().filter(|value| value.is_finite());
    let n = finite().count().max(1) as f64;
    let mean = finite().sum::<f64>() / n;
    let deviation = (finite().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt();
    let of = |value: f64| (value - mean) / deviation;
    let flat = deviation < 1e-6;
    let values = values.into_iter().map(|value| match value.is_finite() {
        true if !flat => of(value),
        _ => 0.0,
    });
    values.collect()
}

fn points_back(unit: &str) -> bool {
    let word = unit
        .trim_start_matches(|c: char| !c.is_alphanumeric())
        .split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap_or_default();
    POINTING_BACK
        .iter()
        .any(|pointing| word.eq_ignore_ascii_case(pointing))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fake::{Fake, Tokens};
    use super::*;
    use crate::model::{Embed, TextKind};
    use crate::text::analyse;

    /// What the method maximises, as its formula stands, after the fewest cuts behind a heading.
    fn value(
        spans: &[Range<usize>],
        evidence: &[f64],
        units: &Units,
        target: usize,
    ) -> (usize, f64) {
        let glued = spans.iter().filter(|span| units.glued(span.start)).count();
        let cuts: f64 = spans[1..].iter().map(|span| evidence[span.start]).sum();
        let length = |span: &Range<usize>| units.tokens(span) as f64;
        let target = target as f64;
        let off = spans
            .iter()
            .map(|span| ((length(span) - target) / target).powi(2));
        (glued, cuts - OFF * off.sum::<f64>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn equals_brute_force(text in crate::text::tests::document(), target in 1usize..40, cap in 5usize..60) {
            let (text, embedder) = (text.replace('\0', " "), Fake::new(Tokens::Words, 100));
            let analysis = analyse(&text);
            let units = Units::new(&text, &analysis, cap, &embedder).unwrap();
            let n = units.len();
            prop_assume!((1..=12).contains(&n));
            let texts: Vec<&str> = units.list.iter().map(|unit| &text[unit.start..unit.end]).collect();
            let vectors = embedder.embed(&texts, TextKind::Document).unwrap().vectors;
            let found = cut(&text, analysis.language, &units, &vectors, target, cap);
            let evidence = evidence(&text, analysis.language, &units, &vectors, target);
            let allowed = |span: &Range<usize>| span.len() == 1 || (units.tokens(span) <= cap && span.len() <= cap);
            prop_assert!(found.iter().all(allowed));
            let (glued, sum) = value(&found, &evidence, &units, target);
            for cuts in 0..1u32 << (n - 1) {
                let ends = (1..n).filter(|j| cuts >> (j - 1) & 1 == 1).chain([n]);
                let spans: Vec<Range<usize>> = ends.scan(0, |start, end| Some(std::mem::replace(start, end)..end)).collect();
                if spans.iter().all(allowed) {
                    let other = value(&spans, &evidence, &units, target);
                    prop_assert!(other.0 > glued || (other.0 == glued && other.1 <= sum + 1e-9), "{spans:?} {other:?} {sum}");
                }
            }
        }
    }

    /// Whatever marks there are, chunks are about as long as the target.
    #[test]
    fn the_mean_is_near_the_target() {
        let embedder = Fake::new(Tokens::Words, 200);
        let words = [
            "tide", "moon", "bread", "salt", "mice", "steel", "yeast", "crust", "sun", "rust",
        ];
        let sentence = |i: usize| {
            let word = |k: usize| words[(i * 7 + k * k * 3 + i * i) % words.len()];
            format!(
                "The {} {} {} was seen near {} by {}.",
                word(0),
                word(1),
                word(2),
                word(3),
                word(4)
            )
        };
        let join = |between: &dyn Fn(usize) -> &'static str| -> String {
            (0..200)
                .map(|i| format!("{}{}", sentence(i), between(i)))
                .collect()
        };
        let headings = |i: usize| {
            if i % 12 == 11 {
                "\n\n# A heading\n\n"
            } else {
                " "
            }
        };
        for (kind, text) in [
            ("no marks", join(&|_| " ")),
            (
                "paragraphs",
                join(&|i| if i % 4 == 3 { "\n\n" } else { " " }),
            ),
            ("short paragraphs", join(&|_| "\n\n")),
            ("long sections", join(&headings)),
            ("a list", format!("- {}", join(&|_| "\n- "))),
        ] {
            let params = crate::job::spec::Chunk {
                target_tokens: 60,
                ..Default::default()
            };
            let chunks = crate::chunk::chunk(&text, &[], &params, &embedder)
                .unwrap()
                .chunks;
            let mean = chunks.iter().map(|chunk| chunk.tokens).sum::<usize>() / chunks.len();
            assert!((42..=78).contains(&mean), "{kind}: {mean}");
        }
    }

    /// Topics change at empty lines, or at nothing but other words.
    #[test]
    fn cuts_are_where_the_topic_changes() {
        let embedder = Fake::new(Tokens::Words, 100);
        let cats = "Cats sleep all day. Cats hunt mice at night. Cats purr when cats sleep.";
        let ships = "Ships cross the sea. Ships carry steel. Steel ships rust at sea.";
        for between in [" ", "\n\n"] {
            let text = format!("{cats}{between}{ships}");
            let params = crate::job::spec::Chunk {
                target_tokens: 18,
                ..Default::default()
            };
            let chunked = crate::chunk::chunk(&text, &[], &params, &embedder).unwrap();
            let chunks: Vec<&str> = chunked.chunks.iter().map(|chunk| &*chunk.text).collect();
            assert_eq!(chunks, [cats, ships]);
        }
    }

    fn vectors(rows: &[[f32; 2]]) -> Vectors {
        Vectors {
            dim: 2,
            values: rows.concat(),
        }
    }

    #[test]
    fn cosines_are_those_of_the_sentences_around() {
        let unit = vectors(&[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]);
        let [next, last, across, two, _] = cosines(&unit);
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        near(next[0], 0.6 / (0.36f64 + 3.24).sqrt());
        near(next[1], 0.8);
        assert!(next[2].is_nan() && last[0].is_nan());
        near(last[2], 0.0);
        near(across[1], 0.6 / (0.36f64 + 3.24).sqrt());
        near(two[1], 1.2 / (2.0 * (0.36f64 + 3.24).sqrt()));
    }

    #[test]
    fn a_dip_lies_below_its_neighbours() {
        let dips = above_neighbours(&[1.0, 1.0, 1.0, 0.4, 1.0, 1.0, 1.0]);
        assert!((dips[3] + 0.6).abs() < 1e-9 && (dips[0] - 0.1).abs() < 1e-9);
        assert!(above_neighbours(&[]).is_empty());
    }

    #[test]
    fn what_cannot_be_compared_says_nothing() {
        assert_eq!(standardised(vec![f64::NAN, 1.0, 3.0]), [0.0, -1.0, 1.0]);
        assert_eq!(standardised(vec![0.5, 0.5]), [0.0, 0.0]);
        assert_eq!(standardised(vec![f64::NAN]), [0.0]);
    }

    #[test]
    fn a_pronoun_points_back() {
        for weak in ["This is it.", "“They did.", "- its parts"] {
            assert!(points_back(weak), "{weak}");
        }
        for strong in ["Items differ.", "", "42 of them", "那是"] {
            assert!(!points_back(strong), "{strong}");
        }
    }
}
