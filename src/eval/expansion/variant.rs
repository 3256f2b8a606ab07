//! What is compared: which queries are indexed, and what is made of them.

use super::expanded::{Expanded, Scores};
use super::selection::{Selection, filtered, random};
use crate::eval::retrieval::Retrieval::{self, Dense, Hybrid, Sparse};
use crate::index::SparseWeights;
use crate::job::spec;
use crate::search::fusion::{Fusion, coverage_weight, dense_score};

/// The origins that a set's name begins with, in this order; others follow in the order of their bytes.
const ORIGINS: [&str; 4] = ["intent", "sample", "keyword", VOCABULARY];

/// Words for the sparse index, of which no vector says anything.
const VOCABULARY: &str = "vocabulary";

/// Shares of the queries that a filter keeps.
const SHARES: [f32; 3] = [0.8, 0.6, 0.4];

/// α of the dense forms.
const ALPHAS: [f32; 4] = [0.1, 0.2, 0.3, 0.5];

/// Whether the dense side takes queries of this origin.
pub fn is_dense(origin: &str) -> bool {
    origin != VOCABULARY
}

/// How the fields of a chunk make its sparse score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SparseForm {
    /// BM25F: occurrences in all fields are added up.
    Fields(SparseWeights),
    /// The weighted sum of the BM25 of each field alone.
    Separate(SparseWeights),
}

/// How the cosines of a text, t, and of its best query, m, make its dense score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DenseForm {
    /// t + α · max(0, m − t)
    Raised(f32),
    /// (1 − α) · t + α · m, the published form; t where there is no query.
    Mixed(f32),
}

impl DenseForm {
    pub fn score(self, text: f32, best_query: Option<f32>) -> f32 {
        match self {
            DenseForm::Raised(alpha) => dense_score(text, best_query, alpha),
            DenseForm::Mixed(alpha) => (1.0 - alpha) * text + alpha * best_query.unwrap_or(text),
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Variant {
    pub section: &'static str,
    pub name: String,
    /// Index of what is selected of the queries.
    pub selection: usize,
    pub sparse: SparseForm,
    pub dense: DenseForm,
    pub fusion: Fusion,
    /// What it is measured under: that which its form concerns.
    pub retrievals: &'static [Retrieval],
    /// Index of the variant without queries that it is compared to; that one's own is its own.
    pub baseline: usize,
}

/// The variants, in the order of the table, and the selections that they speak of; the first selects nothing.
pub struct Plan {
    pub selections: Vec<Selection>,
    pub variants: Vec<Variant>,
    chunks: usize,
}

impl Plan {
    pub fn of(expanded: &Expanded) -> Self {
        let mut plan = Self {
            selections: Vec::new(),
            variants: Vec::new(),
            chunks: expanded.chunks.len(),
        };
        plan.select("sets", "none", Selection::default());
        let everything = plan.sets(expanded);
        plan.filters(expanded);
        plan.sparse_forms(everything);
        plan.dense_forms(everything);
        plan.hybrid_forms(everything);
        plan
    }

    /// Queries per chunk that a variant's indexes take.
    pub fn queries_per_chunk(&self, variant: &Variant) -> f64 {
        self.selections[variant.selection].queries.len() as f64 / self.chunks as f64
    }

    /// Adds a variant of the default form; returns its selection.
    fn select(&mut self, section: &'static str, name: &str, selection: Selection) -> usize {
        self.selections.push(selection);
        let selection = self.selections.len() - 1;
        let variant = self.default_form(section, name.to_owned(), selection);
        self.variants.push(variant);
        selection
    }

    fn default_form(&self, section: &'static str, name: String, selection: usize) -> Variant {
        let dense_queries = self.selections[selection].dense.len() as f32;
        Variant {
            section,
            name,
            selection,
            sparse: SparseForm::Fields(weights(spec::Sparse::default().queries_weight)),
            dense: DenseForm::Raised(coverage_weight(dense_queries / self.chunks as f32)),
            fusion: Fusion::Scores,
            retrievals: &Retrieval::ALL,
            baseline: 0,
        }
    }

    /// Each origin alone, all but the vocabulary, and all; each set once. Returns the selection of all.
    fn sets(&mut self, expanded: &Expanded) -> usize {
        let origins = origins(expanded);
        let alone = origins.iter().map(|origin| vec![*origin]);
        let questions = origins.iter().copied().filter(|o| is_dense(o)).collect();
        let all: Vec<Vec<&str>> = alone.chain([questions, origins.clone()]).collect();
        let first = |(i, set): &(usize, &Vec<&str>)| !set.is_empty() && !all[..*i].contains(*set);
        let mut everything = 0;
        for (_, set) in all.iter().enumerate().filter(first) {
            let chosen = Selection::of(expanded, |query| {
                set.contains(&expanded.queries[query].origin.as_str())
            });
            let selection = self.select("sets", &set.join("+"), chosen);
            if set.len() == origins.len() {
                everything = selection;
            }
        }
        everything
    }

    /// All queries but those with the lowest of each score, and as many drawn by lot of those that have any score.
    fn filters(&mut self, expanded: &Expanded) {
        if expanded.scores.is_empty() {
            return;
        }
        let control = random(expanded);
        for Scores { name, values } in expanded.scores.iter().chain([&control]) {
            for share in SHARES {
                let name = format!("{name}, {:.0}% kept", share * 100.0);
                let chosen = filtered(expanded, values, share);
                self.select("filters", &name, chosen);
            }
        }
    }

    fn sparse_forms(&mut self, selection: usize) {
        let forms = [
            ("appended", SparseForm::Fields(weights(1.0))),
            (
                "separate fields, weight 0.2",
                SparseForm::Separate(weights(0.2)),
            ),
            (
                "separate fields, weight 0.5",
                SparseForm::Separate(weights(0.5)),
            ),
            ("BM25F, weight 0.1", SparseForm::Fields(weights(0.1))),
            ("BM25F, weight 0.3", SparseForm::Fields(weights(0.3))),
            ("BM25F, weight 0.5", SparseForm::Fields(weights(0.5))),
        ];
        for (name, sparse) in forms {
            self.variants.push(Variant {
                sparse,
                retrievals: &[Sparse],
                ..self.default_form("sparse forms", name.to_owned(), selection)
            });
        }
    }

    fn dense_forms(&mut self, selection: usize) {
        let mixed = ALPHAS.map(DenseForm::Mixed);
        for dense in mixed.into_iter().chain(ALPHAS.map(DenseForm::Raised)) {
            let name = match dense {
                DenseForm::Mixed(alpha) => format!("(1-α)·text + α·max, α {alpha}"),
                DenseForm::Raised(alpha) => format!("text + α·max(0, max-text), α {alpha}"),
            };
            self.variants.push(Variant {
                dense,
                retrievals: &[Dense],
                ..self.default_form("dense forms", name, selection)
            });
        }
    }

    fn hybrid_forms(&mut self, selection: usize) {
        let form = |plan: &Self, name: &str, selection: usize, fusion: Fusion| Variant {
            fusion,
            retrievals: &[Hybrid],
            ..plan.default_form("hybrid forms", name.to_owned(), selection)
        };
        let scores = form(self, "standardised scores", selection, Fusion::Scores);
        let ranks = Fusion::ReciprocalRanks;
        let baseline = self.variants.len() + 1;
        let none = form(self, "reciprocal ranks, none", 0, ranks);
        let ranks = form(self, "reciprocal ranks", selection, ranks);
        let of_ranks = [none, ranks].map(|variant| Variant {
            baseline,
            ..variant
        });
        self.variants.push(scores);
        self.variants.extend(of_ranks);
    }
}

/// The default weights, but this for the queries.
fn weights(queries: f32) -> SparseWeights {
    let default = spec::Sparse::default();
    SparseWeights {
        title: default.title_weight,
        text: default.text_weight,
        queries,
    }
}

/// Those that occur, in the order of names.
fn origins(expanded: &Expanded) -> Vec<&str> {
    let mut origins: Vec<&str> = expanded.queries.iter().map(|q| q.origin.as_str()).collect();
    let place = |origin: &str| ORIGINS.iter().position(|known| *known == origin);
    origins.sort_by_key(|origin| (place(origin).unwrap_or(ORIGINS.len()), *origin));
    origins.dedup();
    origins
}

#[cfg(test)]
mod tests {
    use super::super::fake::{expanded, scored};
    use super::*;

    fn names(plan: &Plan, section: &str) -> Vec<String> {
        let of = plan.variants.iter().filter(|v| v.section == section);
        of.map(|v| v.name.clone()).collect()
    }

    fn texts<'a>(plan: &Plan, expanded: &'a Expanded, name: &str) -> Vec<&'a str> {
        let variant = plan.variants.iter().find(|v| v.name == name).unwrap();
        let chosen = &plan.selections[variant.selection].queries;
        chosen
            .iter()
            .map(|&q| expanded.queries[q].text.as_str())
            .collect()
    }

    #[test]
    fn every_set_of_origins_is_there_once() {
        let found = expanded(&[
            ("vocabulary", "v"),
            ("sample", "s"),
            ("other", "o"),
            ("intent", "i"),
            ("sample", "t"),
        ]);
        let plan = Plan::of(&found);
        assert_eq!(
            names(&plan, "sets"),
            [
                "none",
                "intent",
                "sample",
                "vocabulary",
                "other",
                "intent+sample+other",
                "intent+sample+vocabulary+other"
            ]
        );
        assert_eq!(texts(&plan, &found, "sample"), ["s", "t"]);
        assert_eq!(
            texts(&plan, &found, "intent+sample+other"),
            ["s", "o", "i", "t"]
        );
        assert_eq!(texts(&plan, &found, "appended").len(), 5);
        let one = Plan::of(&expanded(&[("sample", "s")]));
        assert_eq!(names(&one, "sets"), ["none", "sample"]);
        let words = Plan::of(&expanded(&[("vocabulary", "v")]));
        assert_eq!(names(&words, "sets"), ["none", "vocabulary"]);
    }

    #[test]
    fn the_vocabulary_stays_out_of_the_dense_side_and_its_weight() {
        let found = expanded(&[("sample", "s"), ("vocabulary", "v"), ("vocabulary", "w")]);
        let plan = Plan::of(&found);
        let of = |name: &str| plan.variants.iter().find(|v| v.name == name).unwrap();
        let all = &plan.selections[of("sample+vocabulary").selection];
        assert_eq!((all.queries.len(), all.dense.as_slice()), (3, &[0][..]));
        assert_eq!(of("sample+vocabulary").dense, of("sample").dense);
        assert_eq!(of("vocabulary").dense, DenseForm::Raised(0.0));
        // One question, two chunks.
        assert_eq!(of("sample").dense, DenseForm::Raised(coverage_weight(0.5)));
        assert_eq!(plan.queries_per_chunk(of("sample+vocabulary")), 1.5);
    }

    #[test]
    fn a_filter_keeps_the_best_and_what_has_no_score() {
        let (values, free) = ([0.3, 0.9, -1.0, 0.5, 0.1], ("vocabulary", "free"));
        let found = scored("gain", &values, free);
        let plan = Plan::of(&found);
        assert_eq!(
            texts(&plan, &found, "gain, 80% kept"),
            ["0.3", "0.9", "0.5", "0.1", "free"]
        );
        assert_eq!(
            texts(&plan, &found, "gain, 40% kept"),
            ["0.9", "0.5", "free"]
        );
        let lots: Vec<_> = names(&plan, "filters").split_off(3);
        assert_eq!(
            lots,
            ["random, 80% kept", "random, 60% kept", "random, 40% kept"]
        );
        for (name, kept) in lots.iter().zip([5, 4, 3]) {
            let kept_texts = texts(&plan, &found, name);
            assert_eq!(
                (kept_texts.len(), *kept_texts.last().unwrap()),
                (kept, "free")
            );
        }
        assert_eq!(names(&Plan::of(&expanded(&[free])), "filters").len(), 0);
    }

    #[test]
    fn forms_are_shown_where_they_matter_and_ranks_are_compared_to_ranks() {
        let plan = Plan::of(&expanded(&[("sample", "s")]));
        let of = |name: &str| plan.variants.iter().find(|v| v.name == name).unwrap();
        assert_eq!(of("appended").retrievals, [Sparse]);
        assert_eq!(of("(1-α)·text + α·max, α 0.5").retrievals, [Dense]);
        assert_eq!(of("standardised scores").baseline, 0);
        for name in ["reciprocal ranks", "reciprocal ranks, none"] {
            let baseline = &plan.variants[of(name).baseline];
            assert_eq!(baseline.name, "reciprocal ranks, none");
            assert_eq!(
                (of(name).retrievals, baseline.selection),
                (&[Hybrid][..], 0)
            );
        }
    }

    #[test]
    fn the_published_form_lowers_what_the_other_leaves() {
        let close = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(close(DenseForm::Mixed(0.25).score(0.4, Some(0.8)), 0.5));
        assert!(close(DenseForm::Mixed(0.25).score(0.4, Some(0.2)), 0.35));
        assert!(close(DenseForm::Mixed(0.25).score(0.4, None), 0.4));
        assert!(close(DenseForm::Raised(0.25).score(0.4, Some(0.2)), 0.4));
    }
}
