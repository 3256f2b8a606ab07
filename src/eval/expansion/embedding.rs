//! The vectors of chunks and queries, all in memory: 4 bytes a number, for SciFact's 9,000 chunks with ten queries each and
//! 384 numbers 150 MB.

use std::collections::HashMap;
use std::path::Path;

use super::ExpansionError;
use super::batch;
use super::expanded::Expanded;
use super::variant::is_dense;
use crate::chunk::objective::dot;
use crate::model::Vectors;
use crate::store::Dataset;

/// Of length 1, so that a dot product is a cosine.
pub struct Embedding {
    /// A row for every chunk.
    pub texts: Vectors,
    /// A row for every query; of zeros for one that the dense side does not take.
    pub queries: Vectors,
}

/// Of one question.
pub struct Cosines {
    /// Of every chunk's text.
    pub texts: Vec<f32>,
    /// Of every query.
    pub queries: Vec<f32>,
}

impl Embedding {
    /// Reads `vectors/text/` (chunk_id, vector) and `vectors/queries/` (query_id, vector), of `dim` numbers each.
    pub fn read(
        generation: &Path,
        expanded: &Expanded,
        dim: usize,
    ) -> Result<Self, ExpansionError> {
        let chunks = expanded.chunks.iter().map(|c| (c.id.as_str(), true));
        let queries = expanded.queries.iter();
        let queries = queries.map(|q| (q.id.as_str(), is_dense(&q.origin)));
        let read = |dataset: Dataset, id: &str, rows: Vec<(&str, bool)>| {
            let folder = generation.join(dataset.folder());
            read(&folder, id, &rows, dim)
        };
        Ok(Self {
            texts: read(Dataset::TextVectors, "chunk_id", chunks.collect())?,
            queries: read(Dataset::QueryVectors, "query_id", queries.collect())?,
        })
    }

    /// Of each question, from its vector.
    pub fn cosines(&self, questions: &[&[f32]]) -> Vec<Cosines> {
        let texts = products(&self.texts, questions);
        let both = texts.into_iter().zip(products(&self.queries, questions));
        both.map(|(texts, queries)| Cosines { texts, queries })
            .collect()
    }
}

/// A row of vectors is read once for all questions.
fn products(vectors: &Vectors, questions: &[&[f32]]) -> Vec<Vec<f32>> {
    let mut products = vec![Vec::with_capacity(vectors.rows()); questions.len()];
    for row in 0..vectors.rows() {
        let vector = vectors.row(row);
        for (of, question) in products.iter_mut().zip(questions) {
            of.push(dot(vector, question));
        }
    }
    products
}

/// The vectors of `rows`, in that order; each has an id and whether it must have one.
fn read(
    dataset: &Path,
    id: &str,
    rows: &[(&str, bool)],
    dim: usize,
) -> Result<Vectors, ExpansionError> {
    let needed = rows.iter().enumerate().filter(|(_, (_, needed))| *needed);
    let mut missing: HashMap<&str, usize> = needed.map(|(row, (id, _))| (*id, row)).collect();
    let mut values = vec![0.0; rows.len() * dim];
    if missing.is_empty() {
        return Ok(Vectors { dim, values });
    }
    batch::each(dataset, |batch| {
        let ids = batch.texts(id)?;
        let (found, vectors) = batch.vectors("vector")?;
        if found != dim {
            return Err(ExpansionError::Dimensions {
                path: batch.path.to_owned(),
                found,
                wanted: dim,
            });
        }
        for (id, vector) in ids.iter().flatten().zip(vectors.chunks_exact(dim)) {
            if let Some(row) = missing.remove(id) {
                values[row * dim..(row + 1) * dim].copy_from_slice(vector);
            }
        }
        Ok(())
    })?;
    match rows.iter().find(|(id, _)| missing.contains_key(id)) {
        Some((id, _)) => Err(ExpansionError::NoVector {
            path: dataset.to_owned(),
            id: (*id).to_owned(),
        }),
        None => Ok(Vectors { dim, values }.of_unit_length()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, FixedSizeListArray};
    use arrow::compute::cast;
    use arrow::datatypes::{DataType, Field};

    use super::super::fake::{expanded, floats, strings, write};
    use super::*;

    fn vectors(values: &[f32], element: DataType) -> ArrayRef {
        let values: Vec<Option<f32>> = values.iter().copied().map(Some).collect();
        let values = cast(&floats(&values), &element).unwrap();
        let item = Arc::new(Field::new("item", element, true));
        Arc::new(FixedSizeListArray::new(item, 2, values, None))
    }

    fn generation(queries: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let texts = [
            ("chunk_id", strings(&["1#0", "0#0"])),
            ("vector", vectors(&[0.6, 0.8, 1.0, 0.0], DataType::Float32)),
        ];
        write(
            &folder.path().join("vectors/text/part-00000.parquet"),
            &texts,
        );
        // As of an embedder that does not normalise.
        let values = [3.0, 4.0].repeat(queries.len());
        let queries = [
            ("query_id", strings(queries)),
            ("vector", vectors(&values, DataType::Float16)),
        ];
        write(
            &folder.path().join("vectors/queries/part-00000.parquet"),
            &queries,
        );
        folder
    }

    #[test]
    fn vectors_are_found_by_id_and_the_vocabulary_has_none() {
        let found = expanded(&[("sample", "s"), ("vocabulary", "v"), ("keyword", "k")]);
        let folder = generation(&["0#0?2", "1#0?1", "of another half", "0#0?0"]);
        let embedding = Embedding::read(folder.path(), &found, 2).unwrap();
        assert_eq!(embedding.texts.values, [1.0, 0.0, 0.6, 0.8]);
        assert_eq!(embedding.queries.values, [0.6, 0.8, 0.0, 0.0, 0.6, 0.8]);
        let cosines = embedding.cosines(&[&[1.0, 0.0], &[0.0, 1.0]]);
        assert_eq!(cosines[0].texts, [1.0, 0.6]);
        assert_eq!(cosines[1].texts, [0.0, 0.8]);
        assert_eq!(cosines[1].queries, [0.8, 0.0, 0.8]);
    }

    #[test]
    fn what_cannot_be_ranked_is_named() {
        let found = expanded(&[("sample", "s"), ("sample", "t")]);
        let error = |queries: &[&str], dim: usize| {
            let folder = generation(queries);
            let error = Embedding::read(folder.path(), &found, dim).err().unwrap();
            error.to_string()
        };
        let lacking = error(&["0#0?0"], 2);
        assert!(
            lacking.ends_with("vectors/queries: there is no vector of 1#0?1"),
            "{lacking}"
        );
        let short = error(&["0#0?0", "1#0?1"], 3);
        assert!(
            short.contains("have 2 numbers, the embedder's 3"),
            "{short}"
        );
    }
}
