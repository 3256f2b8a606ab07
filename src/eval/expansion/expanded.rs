//! Chunks and all that was generated from them, as a generation's datasets hold it.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};

use super::ExpansionError;
use super::batch::{self, Batch};
use crate::eval::chunks::span::Span;
use crate::eval::half::Half;
use crate::store::Dataset;

/// The folder of scores, where they are not a column of the queries.
const SCORES: &str = "scores";

/// The chunks of a generation with their queries.
#[derive(Debug, Default)]
pub struct Expanded {
    /// Ids of the documents that the chunks are of.
    pub documents: Vec<String>,
    pub chunks: Vec<Chunk>,
    pub queries: Vec<Query>,
    /// Those that some query has.
    pub scores: Vec<Scores>,
}

#[derive(Debug)]
pub struct Chunk {
    pub id: String,
    pub title: Option<String>,
    /// In [`Expanded::documents`].
    pub span: Span,
    pub text: String,
    /// What its lists were steered by.
    pub keywords: Vec<String>,
}

#[derive(Debug)]
pub struct Query {
    pub id: String,
    /// Index of its chunk.
    pub chunk: usize,
    pub text: String,
    pub origin: String,
}

/// One score of every query, None where it has none.
#[derive(Debug)]
pub struct Scores {
    pub name: String,
    pub values: Vec<Option<f32>>,
}

impl Expanded {
    /// Reads `chunks/` (chunk_id, doc_id, start, end, text and perhaps title), perhaps `chunk_topics/` (chunk_id, keywords), `queries/` (query_id,
    /// chunk_id, text, origin) and the scores: the columns of floats of `scores/` (query_id), or else the fields of the column `scores` of the
    /// queries, if there is one. With `half`, of its documents only.
    pub fn read(generation: &Path, half: Option<Half>) -> Result<Self, ExpansionError> {
        let mut expanded = Self::default();
        let chunks = expanded.read_chunks(generation, half)?;
        expanded.read_keywords(generation, &chunks)?;
        expanded.read_queries(generation, &chunks)?;
        expanded.read_scores(generation)?;
        Ok(expanded)
    }

    /// Returns each chunk's index, None of one in the other half.
    fn read_chunks(
        &mut self,
        generation: &Path,
        half: Option<Half>,
    ) -> Result<HashMap<String, Option<usize>>, ExpansionError> {
        let mut by_id = HashMap::new();
        let mut documents = HashMap::new();
        let folder = generation.join(Dataset::Chunks.folder());
        batch::each(&folder, |batch| {
            let (ids, of) = (batch.texts("chunk_id")?, batch.texts("doc_id")?);
            for row in 0..ids.len() {
                let document = of.value(row);
                let is_here = half.is_none_or(|half| half.has(document));
                by_id.insert(
                    ids.value(row).to_owned(),
                    is_here.then_some(self.chunks.len()),
                );
                if is_here {
                    let document = self.document(document, &mut documents);
                    self.chunks.push(chunk(batch, row, document)?);
                }
            }
            Ok(())
        })?;
        match self.chunks.is_empty() {
            true => Err(ExpansionError::NoRows(folder)),
            false => Ok(by_id),
        }
    }

    /// The document's index; `known` are those of the documents so far.
    fn document(&mut self, id: &str, known: &mut HashMap<String, usize>) -> usize {
        *known.entry(id.to_owned()).or_insert_with(|| {
            self.documents.push(id.to_owned());
            self.documents.len() - 1
        })
    }

    /// Of `chunk_topics/`, if it is there.
    fn read_keywords(
        &mut self,
        generation: &Path,
        chunks: &HashMap<String, Option<usize>>,
    ) -> Result<(), ExpansionError> {
        let folder = generation.join(Dataset::ChunkTopics.folder());
        if !folder.is_dir() {
            return Ok(());
        }
        batch::each(&folder, |batch| {
            let ids = batch.texts("chunk_id")?;
            let lists = batch.rows.column_by_name("keywords");
            let Some(lists) = lists.and_then(|lists| lists.as_list_opt::<i32>()) else {
                return Ok(());
            };
            for row in 0..ids.len() {
                if let Some(&Some(chunk)) = chunks.get(ids.value(row)) {
                    let keywords = lists.value(row);
                    let texts = keywords.as_struct().column(0).as_string::<i32>();
                    self.chunks[chunk].keywords =
                        texts.iter().flatten().map(str::to_owned).collect();
                }
            }
            Ok(())
        })
    }

    fn read_queries(
        &mut self,
        generation: &Path,
        chunks: &HashMap<String, Option<usize>>,
    ) -> Result<(), ExpansionError> {
        let folder = generation.join(Dataset::Queries.folder());
        batch::each(&folder, |batch| {
            let (ids, of) = (batch.texts("query_id")?, batch.texts("chunk_id")?);
            let (texts, origins) = (batch.texts("text")?, batch.texts("origin")?);
            for row in 0..ids.len() {
                let Some(&chunk) = chunks.get(of.value(row)) else {
                    return Err(ExpansionError::NoChunk {
                        path: batch.path.to_owned(),
                        query: ids.value(row).to_owned(),
                        chunk: of.value(row).to_owned(),
                    });
                };
                let query = |chunk| Query {
                    id: ids.value(row).to_owned(),
                    chunk,
                    text: texts.value(row).to_owned(),
                    origin: origins.value(row).to_owned(),
                };
                self.queries.extend(chunk.map(query));
            }
            Ok(())
        })
    }

    fn read_scores(&mut self, generation: &Path) -> Result<(), ExpansionError> {
        let ids = self
            .queries
            .iter()
            .enumerate()
            .map(|(i, q)| (q.id.clone(), i));
        let by_id: HashMap<String, usize> = ids.collect();
        let of_their_own = generation.join(SCORES);
        let dataset = match of_their_own.is_dir() {
            true => of_their_own,
            false => generation.join(Dataset::Queries.folder()),
        };
        batch::each(&dataset, |batch| {
            let ids = batch.texts("query_id")?;
            for (name, values) in columns_of_scores(batch) {
                self.take_scores(&by_id, &ids, &name, &values);
            }
            Ok(())
        })?;
        let has_some = |scores: &Scores| scores.values.iter().any(Option::is_some);
        self.scores.retain(has_some);
        Ok(())
    }

    fn take_scores(
        &mut self,
        by_id: &HashMap<String, usize>,
        ids: &StringArray,
        name: &str,
        values: &ArrayRef,
    ) {
        let known = self.scores.iter().position(|scores| scores.name == name);
        let at = known.unwrap_or_else(|| {
            self.scores.push(Scores {
                name: name.to_owned(),
                values: vec![None; self.queries.len()],
            });
            self.scores.len() - 1
        });
        let values = values.as_primitive::<Float32Type>();
        for (row, id) in ids.iter().enumerate() {
            let query = id.and_then(|id| by_id.get(id));
            if let (Some(&query), true) = (query, values.is_valid(row)) {
                self.scores[at].values[query] = Some(values.value(row));
            }
        }
    }
}

fn chunk(batch: &Batch, row: usize, document: usize) -> Result<Chunk, ExpansionError> {
    let span = Span {
        document,
        start: batch.integer("start", row)? as usize,
        end: batch.integer("end", row)? as usize,
    };
    Ok(Chunk {
        id: batch.text("chunk_id", row)?,
        title: batch.text_or_null("title", row)?,
        span,
        text: batch.text("text", row)?,
        keywords: Vec::new(),
    })
}

/// As single precision. Whatever else there is, like keys, is no score.
fn columns_of_scores(batch: &Batch) -> Vec<(String, ArrayRef)> {
    let schema = batch.rows.schema();
    let own = schema.fields().iter().zip(batch.rows.columns());
    let inner = batch.rows.column_by_name(SCORES);
    let inner = inner.and_then(|column| column.as_struct_opt());
    let inner = inner.map(|scores| scores.fields().iter().zip(scores.columns()));
    let all = own.chain(inner.into_iter().flatten());
    let floats = all.filter(|(field, _)| field.data_type().is_floating());
    let single = floats.filter_map(|(field, column)| {
        let values = cast(column, &DataType::Float32).ok()?;
        Some((field.name().clone(), values))
    });
    single.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, StructArray};

    use super::super::fake::{floats, halved, integers, strings, write};
    use super::*;

    /// A chunk of each of four documents, in two parts, with a query each.
    fn generation(queries_of: [&str; 4], scores: Option<ArrayRef>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let ids = halved();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        for (part, ids) in ids.chunks(2).enumerate() {
            let columns = [
                ("chunk_id", strings(ids)),
                ("doc_id", strings(ids)),
                ("start", integers(&[0, 0])),
                ("end", integers(&[4, 4])),
                ("text", strings(&["text", "more"])),
            ];
            let path = folder.path().join(format!("chunks/part-{part:05}.parquet"));
            write(&path, &columns);
        }
        let of: Vec<&str> = queries_of
            .map(|of| of.parse().map_or(of, |i: usize| ids[i]))
            .into();
        let mut columns = vec![
            ("query_id", strings(&["a", "b", "c", "d"])),
            ("chunk_id", strings(&of)),
            ("text", strings(&["how", "why", "who", "when"])),
            ("origin", strings(&["sample"; 4])),
        ];
        columns.extend(scores.map(|scores| (SCORES, scores)));
        write(&folder.path().join("queries/part-00000.parquet"), &columns);
        folder
    }

    fn struct_of(name: &str, values: [Option<f32>; 4]) -> ArrayRef {
        let none: ArrayRef = floats(&[None; 4]);
        Arc::new(StructArray::try_from(vec![(name, floats(&values)), ("empty", none)]).unwrap())
    }

    #[test]
    fn half_of_the_documents_has_its_queries_and_their_scores() {
        let scores = struct_of("gain", [Some(1.0), Some(2.0), None, Some(4.0)]);
        let folder = generation(["3", "0", "1", "1"], Some(scores));
        let all = Expanded::read(folder.path(), None).unwrap();
        assert_eq!(all.chunks.len(), 4);
        assert_eq!(all.documents, halved());
        let gains = [Some(1.0), Some(2.0), None, Some(4.0)];
        assert_eq!(
            (all.scores.len(), &all.scores[0].values[..]),
            (1, &gains[..])
        );
        let tune = Expanded::read(folder.path(), Some(Half::Tune)).unwrap();
        assert_eq!(tune.documents, halved()[..2]);
        let queries = tune.queries.iter().map(|q| (q.id.as_str(), q.chunk));
        assert_eq!(queries.collect::<Vec<_>>(), [("b", 0), ("c", 1), ("d", 1)]);
        assert_eq!(tune.scores[0].values, gains[1..]);
        assert!(tune.chunks[0].title.is_none());
    }

    #[test]
    fn a_folder_of_scores_is_preferred_and_its_floats_are_read() {
        let folder = generation(["0"; 4], Some(struct_of("gain", [Some(1.0); 4])));
        let columns: [(&str, ArrayRef); 4] = [
            ("query_id", strings(&["c", "a"])),
            ("key", strings(&["k", "k"])),
            ("rank", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
            ("cosine", floats(&[Some(0.1), Some(0.2)])),
        ];
        write(&folder.path().join("scores/part-00000.parquet"), &columns);
        let found = Expanded::read(folder.path(), None).unwrap().scores;
        let named: Vec<_> = found
            .iter()
            .map(|s| (s.name.as_str(), s.values.clone()))
            .collect();
        let rank = vec![None, None, Some(0.5), None];
        let cosine = vec![Some(0.2), None, Some(0.1), None];
        assert_eq!(named, [("rank", rank), ("cosine", cosine)]);
    }

    #[test]
    fn a_query_of_no_chunk_is_named() {
        let folder = generation(["0", "0", "lost", "1"], None);
        let error = Expanded::read(folder.path(), None).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "part-00000.parquet: query c is of the chunk lost, which is not among the chunks"
            ),
            "{error}"
        );
    }
}
