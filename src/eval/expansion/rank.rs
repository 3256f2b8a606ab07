//! Ranks chunks for questions by every variant: as a search of a published index does, but with exact cosines.

use tempfile::TempDir;

use super::ExpansionError;
use super::embedding::Cosines;
use super::expanded::Expanded;
use super::selection::Selection;
use super::set::Question;
use super::variant::{DenseForm, Plan, SparseForm, Variant};
use crate::eval::retrieval::{Retrieval, best};
use crate::index::{SparseDocument, SparseIndex, SparseWeights, SparseWriter};
use crate::job::spec;
use crate::search::MIN_DEPTH;
use crate::search::fusion::fuse;

/// Chunks with their scores, best first.
type List = Vec<(usize, f32)>;

/// The chunks with each selection of queries, ready to be ranked.
pub struct Ranker<'a> {
    expanded: &'a Expanded,
    plan: &'a Plan,
    /// Of each selection.
    indexes: Vec<SparseIndex>,
    /// Every list that some variant needs, once: a selection and what is made of it.
    sparse: Vec<(usize, SparseForm)>,
    dense: Vec<(usize, DenseForm)>,
    // After the indexes that are in it.
    _folder: TempDir,
}

impl<'a> Ranker<'a> {
    pub fn new(expanded: &'a Expanded, plan: &'a Plan) -> Result<Self, ExpansionError> {
        let folder = TempDir::new().map_err(ExpansionError::Folder)?;
        let mut indexes = Vec::new();
        for (i, selection) in plan.selections.iter().enumerate() {
            let dir = folder.path().join(format!("{i}/sparse"));
            indexes.push(index(&dir, expanded, selection)?);
        }
        let (mut sparse, mut dense) = (Vec::new(), Vec::new());
        for variant in &plan.variants {
            place(&mut sparse, (variant.selection, variant.sparse));
            place(&mut dense, dense_list(plan, variant));
        }
        Ok(Self {
            expanded,
            plan,
            indexes,
            sparse,
            dense,
            _folder: folder,
        })
    }

    /// What each variant's rankings are worth, under each kind of retrieval that it is measured under.
    pub fn values(
        &self,
        question: &Question,
        cosines: &Cosines,
    ) -> Result<Vec<Vec<f64>>, ExpansionError> {
        let sparse = self.sparse.iter();
        let sparse =
            sparse.map(|(at, form)| sparse_list(&self.indexes[*at], &question.text, *form));
        let sparse: Vec<List> = sparse.collect::<Result<_, _>>()?;
        let dense = self.dense_lists(cosines);
        let value = |list: &[(usize, f32)]| question.value(list, self.expanded);
        let of_sparse: Vec<f64> = sparse.iter().map(|list| value(list)).collect();
        let of_dense: Vec<f64> = dense.iter().map(|list| value(list)).collect();
        let share = spec::Dense::default().hybrid_weight;
        let of_variant = |variant: &Variant| {
            let s = position(&self.sparse, &(variant.selection, variant.sparse));
            let d = position(&self.dense, &dense_list(self.plan, variant));
            let of = |retrieval: &Retrieval| match retrieval {
                Retrieval::Sparse => of_sparse[s],
                Retrieval::Dense => of_dense[d],
                Retrieval::Hybrid => value(&fuse(&sparse[s], &dense[d], variant.fusion, share)),
            };
            variant.retrievals.iter().map(of).collect()
        };
        Ok(self.plan.variants.iter().map(of_variant).collect())
    }

    fn dense_lists(&self, cosines: &Cosines) -> Vec<List> {
        let selections = self.plan.selections.iter();
        let queries = selections.map(|selection| self.best_queries(selection, cosines));
        let queries: Vec<Vec<Option<f32>>> = queries.collect();
        let list = |(selection, form): &(usize, DenseForm)| {
            let both = cosines.texts.iter().zip(&queries[*selection]).enumerate();
            let scored = both.map(|(chunk, (text, query))| (chunk, form.score(*text, *query)));
            best(scored.collect())
        };
        self.dense.iter().map(list).collect()
    }

    /// Of every chunk the greatest cosine of its selected queries.
    fn best_queries(&self, selection: &Selection, cosines: &Cosines) -> Vec<Option<f32>> {
        let mut best: Vec<Option<f32>> = vec![None; self.expanded.chunks.len()];
        for &query in &selection.dense {
            let of = &mut best[self.expanded.queries[query].chunk];
            let cosine = cosines.queries[query];
            *of = Some(of.map_or(cosine, |best| best.max(cosine)));
        }
        best
    }
}

/// Without queries in it, all forms of a selection are the text's cosine.
fn dense_list(plan: &Plan, variant: &Variant) -> (usize, DenseForm) {
    match plan.selections[variant.selection].dense.is_empty() {
        true => (0, DenseForm::Raised(0.0)),
        false => (variant.selection, variant.dense),
    }
}

fn place<T: PartialEq>(lists: &mut Vec<T>, list: T) {
    if !lists.contains(&list) {
        lists.push(list);
    }
}

fn position<T: PartialEq>(lists: &[T], list: &T) -> usize {
    let at = lists.iter().position(|known| known == list);
    at.expect("every variant's lists were placed")
}

fn index(
    dir: &std::path::Path,
    expanded: &Expanded,
    selection: &Selection,
) -> Result<SparseIndex, ExpansionError> {
    let mut writer = SparseWriter::create(dir, spec::Sparse::default().language)?;
    for (chunk, queries) in expanded.chunks.iter().zip(selection.by_chunk(expanded)) {
        writer.add(SparseDocument {
            chunk_id: &chunk.id,
            doc_id: &expanded.documents[chunk.span.document],
            title: chunk.title.as_deref(),
            text: &chunk.text,
            queries: &queries,
        })?;
    }
    writer.finish()?;
    Ok(SparseIndex::open(dir)?)
}

fn sparse_list(
    index: &SparseIndex,
    question: &str,
    form: SparseForm,
) -> Result<List, ExpansionError> {
    match form {
        SparseForm::Fields(weights) => {
            let hits = index.search(question, MIN_DEPTH, weights)?.into_iter();
            Ok(hits.map(|hit| (hit.row as usize, hit.score)).collect())
        }
        SparseForm::Separate(weights) => separate(index, question, weights),
    }
}

/// Every field is searched to the end, so that no chunk lacks a part of its sum.
fn separate(
    index: &SparseIndex,
    question: &str,
    weights: SparseWeights,
) -> Result<List, ExpansionError> {
    let none = SparseWeights {
        title: 0.0,
        text: 0.0,
        queries: 0.0,
    };
    let fields = [
        (weights.title, SparseWeights { title: 1.0, ..none }),
        (weights.text, SparseWeights { text: 1.0, ..none }),
        (
            weights.queries,
            SparseWeights {
                queries: 1.0,
                ..none
            },
        ),
    ];
    let all = index.len() as usize;
    let mut sums = vec![0.0; all];
    for (weight, field) in fields {
        for hit in index.search(question, all, field)? {
            sums[hit.row as usize] += weight * hit.score;
        }
    }
    let found = sums.into_iter().enumerate().filter(|(_, sum)| *sum > 0.0);
    Ok(best(found.collect()))
}

#[cfg(test)]
mod tests {
    use super::super::embedding::Embedding;
    use super::super::fake::expanded;
    use super::super::set::Truth;
    use super::*;
    use crate::eval::chunks::span::Span;
    use crate::model::Vectors;

    fn question(text: &str, document: usize) -> Question {
        let answer = Span {
            document,
            start: 2,
            end: 8,
        };
        Question {
            id: "q".to_owned(),
            text: text.to_owned(),
            truth: Truth::Answers(vec![answer]),
        }
    }

    /// Of the variant with this name, in the order of its retrievals.
    fn values(
        expanded: &Expanded,
        embedding: &Embedding,
        asked: (&str, usize),
        name: &str,
    ) -> Vec<f64> {
        let plan = Plan::of(expanded);
        let ranker = Ranker::new(expanded, &plan).unwrap();
        let cosines = embedding.cosines(&[&[1.0, 0.0]]).remove(0);
        let values = ranker
            .values(&question(asked.0, asked.1), &cosines)
            .unwrap();
        let at = plan.variants.iter().position(|v| v.name == name).unwrap();
        values[at].clone()
    }

    fn embedding(texts: [[f32; 2]; 2], queries: &[[f32; 2]]) -> Embedding {
        let vectors = |rows: &[[f32; 2]]| Vectors {
            dim: 2,
            values: rows.concat(),
        };
        Embedding {
            texts: vectors(&texts),
            queries: vectors(queries),
        }
    }

    #[test]
    fn queries_bring_a_chunk_to_the_front_of_each_list() {
        let found = expanded(&[("sample", "why is there ebb"), ("sample", "cats")]);
        // The other text is a little closer, and the right one has the very question.
        let vectors = embedding([[0.6, 0.8], [0.61, 0.79]], &[[1.0, 0.0], [0.0, 1.0]]);
        let asked = ("what is an ebb", 0);
        assert_eq!(values(&found, &vectors, asked, "none"), [0.0, 0.0, 0.0]);
        assert_eq!(values(&found, &vectors, asked, "sample"), [1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_vocabulary_changes_the_sparse_list_only() {
        let found = expanded(&[("vocabulary", "ebb flood"), ("sample", "cats")]);
        // What a vector says of it is not asked for.
        let vectors = embedding([[0.6, 0.8], [0.7, 0.7]], &[[1.0, 0.0], [0.0, 1.0]]);
        let asked = ("ebb", 0);
        assert_eq!(
            values(&found, &vectors, asked, "vocabulary")[..2],
            [1.0, 0.0]
        );
        assert_eq!(
            values(&found, &vectors, asked, "sample+vocabulary")[..2],
            [1.0, 0.0]
        );
    }

    #[test]
    fn separate_fields_are_the_sum_of_three_searches() {
        let mut found = expanded(&[("sample", "moon moon"), ("sample", "sleeping kitten moon")]);
        found.chunks[1].title = Some("A moon over kittens".to_owned());
        let folder = tempfile::tempdir().unwrap();
        let all = Selection::of(&found, |_| true);
        let index = index(&folder.path().join("sparse"), &found, &all).unwrap();
        let of = |title: f32, text: f32, queries: f32| {
            let weights = SparseWeights {
                title,
                text,
                queries,
            };
            sparse_list(&index, "moon", SparseForm::Fields(weights)).unwrap()
        };
        let score = |list: &List, chunk: usize| -> f32 {
            let hit = list.iter().find(|hit| hit.0 == chunk);
            hit.map_or(0.0, |hit| hit.1)
        };
        let weights = SparseWeights {
            title: 1.5,
            text: 1.0,
            queries: 0.2,
        };
        let list = sparse_list(&index, "moon", SparseForm::Separate(weights)).unwrap();
        let (titles, texts, queries) = (of(1.0, 0.0, 0.0), of(0.0, 1.0, 0.0), of(0.0, 0.0, 1.0));
        assert_eq!(list.len(), 2);
        for chunk in 0..2 {
            let parts = [(1.5, &titles), (1.0, &texts), (0.2, &queries)];
            let sum: f32 = parts.iter().map(|(w, of)| w * score(of, chunk)).sum();
            assert!((score(&list, chunk) - sum).abs() < 1e-6 && sum > 0.0);
        }
        // The title has the word in the second only, the text in the first only.
        assert_eq!((score(&titles, 0), score(&texts, 1)), (0.0, 0.0));
        // Added up before they saturate, they are something else.
        assert!((score(&list, 1) - score(&of(1.5, 1.0, 0.2), 1)).abs() > 1e-3);
    }
}
