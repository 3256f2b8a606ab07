//! A dense index: a FAISS index by inner product in `NAME.faiss`, and the ids of its rows in `NAME.ids`.
//!
//! Vectors are scaled to length 1 on the way in, if they are not, so that the inner product is the cosine. Both files are plain FAISS and plain
//! text: `faiss.read_index` opens the one, and line i of the other is the id of row i.
//!
//! Flat indexes are the same bytes in every build. HNSW links depend on the order in which FAISS's threads insert:
//! for the same bytes every time, build with `OMP_NUM_THREADS=1`.

mod shards;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use faiss::index::autotune::ParameterSpace;
use faiss::index::io::{read_index, write_index};
use faiss::index::{Idx, IndexImpl};
use faiss::{Index, MetricType, index_factory};

use super::ids::Ids;
use crate::model::unit;
pub use shards::DenseShards;

/// Up to here every search compares all vectors: exact, and still a few milliseconds.
const FLAT_ROWS: usize = 50_000;
/// Up to here the graph, which needs about 270 bytes a row beside the f32 vectors and has the best recall.
const HNSW_ROWS: usize = 5_000_000;
/// Most rows that inverted lists are trained on; 64 per list at 5 million rows.
const TRAINING_ROWS: usize = 1 << 19;

/// Parameters kept in the index file, so that every reader searches alike: (name, value). FAISS refuses those an
/// index does not have.
const PARAMETERS: [(&str, f64); 3] = [
    ("efConstruction", 100.0),
    ("efSearch", 128.0),
    ("nprobe", 64.0),
];

/// The factory string for `auto`: exact while small, then HNSW; beyond, inverted lists of half-precision vectors,
/// as a graph over f32 vectors no longer fits in the memory of an ordinary machine.
fn factory_for(rows: usize) -> String {
    if rows <= FLAT_ROWS {
        "Flat".into()
    } else if rows <= HNSW_ROWS {
        "HNSW32".into()
    } else {
        let lists = (4.0 * (rows as f64).sqrt()).log2().round().exp2();
        format!("IVF{lists},SQfp16")
    }
}

/// The factory string that a setting stands for at a number of rows.
pub fn resolve(factory: &str, rows: usize) -> String {
    match factory {
        "auto" => factory_for(rows),
        other => other.to_owned(),
    }
}

/// Whether FAISS takes a factory string for vectors of length `dim`: to be asked before hours are spent on them.
pub fn check_factory(factory: &str, dim: usize) -> Result<(), DenseError> {
    let factory = resolve(factory, 0);
    match index_factory(dim as u32, &factory, MetricType::InnerProduct) {
        Ok(_) => Ok(()),
        Err(e) => Err(DenseError::Factory {
            factory,
            message: message(&e),
        }),
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenseSummary {
    pub rows: u64,
    /// The factory string used; `auto` resolved.
    pub factory: String,
}

/// Builds a dense index in memory and writes its two files at the end.
pub struct DenseWriter {
    index: IndexImpl,
    factory: String,
    dim: usize,
    expected_rows: usize,
    index_path: PathBuf,
    ids_path: PathBuf,
    ids: BufWriter<File>,
}

impl DenseWriter {
    /// Starts `dir/name.faiss` and `dir/name.ids` for about `expected_rows` vectors of length `dim`. `factory` is a
    /// FAISS factory string, or `auto`.
    pub fn create(
        dir: &Path,
        name: &str,
        factory: &str,
        dim: usize,
        expected_rows: usize,
    ) -> Result<Self, DenseError> {
        let factory = resolve(factory, expected_rows);
        let bad_factory = |e: faiss::error::Error| DenseError::Factory {
            factory: factory.clone(),
            message: message(&e),
        };
        let index =
            index_factory(dim as u32, &factory, MetricType::InnerProduct).map_err(bad_factory)?;
        let space = ParameterSpace::new().map_err(bad_factory)?;
        for (parameter, value) in PARAMETERS {
            // An index without the parameter refuses it; there is no call that lists what it has.
            let _ = space.set_index_parameter(&index, parameter, value);
        }
        let ids_path = dir.join(format!("{name}.ids"));
        let failed = |source| DenseError::File {
            path: ids_path.clone(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let ids = BufWriter::new(File::create(&ids_path).map_err(failed)?);
        let index_path = dir.join(format!("{name}.faiss"));
        Ok(Self {
            index,
            factory,
            dim,
            expected_rows,
            index_path,
            ids_path,
            ids,
        })
    }

    /// Nothing when the index needs no training; else n, where rows 0, n, 2n, … are to be given to
    /// [`DenseWriter::train`] before the first is added.
    pub fn training_stride(&self) -> Option<usize> {
        let needed = !self.index.is_trained() && self.expected_rows > 0;
        needed.then(|| self.expected_rows.div_ceil(TRAINING_ROWS))
    }

    /// Trains the index on `vectors`, row-major.
    pub fn train(&mut self, vectors: &[f32]) -> Result<(), DenseError> {
        let rows = self.rows_of(vectors)?;
        let vectors = unit(vectors, self.dim);
        self.index
            .train(&vectors)
            .map_err(|e| DenseError::Training {
                factory: self.factory.clone(),
                rows,
                message: message(&e),
            })
    }

    /// Adds a batch: `vectors` has a row per id, in the same order.
    pub fn add(&mut self, ids: &[&str], vectors: &[f32]) -> Result<(), DenseError> {
        let rows = self.rows_of(vectors)?;
        if rows != ids.len() {
            return Err(DenseError::Unaligned {
                path: self.ids_path.clone(),
                ids: ids.len(),
                rows,
            });
        }
        if rows == 0 {
            return Ok(());
        }
        if let Some(id) = ids.iter().find(|id| id.contains('\n')) {
            return Err(DenseError::LineBreak {
                id: (*id).to_owned(),
            });
        }
        if !self.index.is_trained() {
            return Err(DenseError::Untrained {
                factory: self.factory.clone(),
            });
        }
        let vectors = unit(vectors, self.dim);
        self.index.add(&vectors).map_err(|e| DenseError::Factory {
            factory: self.factory.clone(),
            message: message(&e),
        })?;
        for id in ids {
            writeln!(self.ids, "{id}").map_err(|source| DenseError::File {
                path: self.ids_path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Writes both files.
    pub fn finish(mut self) -> Result<DenseSummary, DenseError> {
        self.ids.flush().map_err(|source| DenseError::File {
            path: self.ids_path.clone(),
            source,
        })?;
        write_index(&self.index, utf8(&self.index_path)?).map_err(|e| DenseError::Index {
            path: self.index_path.clone(),
            message: message(&e),
        })?;
        let rows = self.index.ntotal();
        // Before the file is read again: an index may be most of the memory there is.
        drop(self.index);
        read_back(&self.index_path, rows)?;
        Ok(DenseSummary {
            rows,
            factory: self.factory,
        })
    }

    fn rows_of(&self, vectors: &[f32]) -> Result<usize, DenseError> {
        let rows = vectors.len().checked_div(self.dim).unwrap_or(0);
        if rows * self.dim != vectors.len() {
            return Err(DenseError::Dimension {
                path: self.index_path.clone(),
                found: vectors.len(),
                expected: self.dim,
            });
        }
        Ok(rows)
    }
}

/// FAISS only prints when a file's last bytes find no space, and goes on.
fn read_back(path: &Path, rows: u64) -> Result<(), DenseError> {
    match read_index(utf8(path)?) {
        Ok(index) if index.ntotal() == rows => Ok(()),
        _ => Err(DenseError::File {
            path: path.to_owned(),
            source: io::Error::from_raw_os_error(libc::ENOSPC),
        }),
    }
}

/// A row and its inner product with the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DenseHit {
    pub row: usize,
    pub score: f32,
}

/// A dense index open for search.
pub struct DenseIndex {
    /// The binding asks for exclusive access to search; FAISS is parallel inside.
    index: Mutex<IndexImpl>,
    ids: Ids,
    dim: usize,
    path: PathBuf,
}

impl DenseIndex {
    /// Opens an index and the ids of its rows, which must be as many.
    pub fn open(index_path: &Path, ids_path: &Path) -> Result<Self, DenseError> {
        // FAISS's own message for a missing file names a line of its source.
        File::open(index_path).map_err(|source| DenseError::File {
            path: index_path.to_owned(),
            source,
        })?;
        let index = read_index(utf8(index_path)?).map_err(|e| DenseError::Index {
            path: index_path.to_owned(),
            message: message(&e),
        })?;
        let ids = Ids::read(ids_path).map_err(|source| DenseError::File {
            path: ids_path.to_owned(),
            source,
        })?;
        let rows = index.ntotal() as usize;
        if rows != ids.len() {
            return Err(DenseError::Unaligned {
                path: ids_path.to_owned(),
                ids: ids.len(),
                rows,
            });
        }
        let dim = index.d() as usize;
        Ok(Self {
            index: Mutex::new(index),
            ids,
            dim,
            path: index_path.to_owned(),
        })
    }

    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The best `k` rows, score descending; of equal scores the lower row first. Fewer when there are fewer.
    pub fn search(&self, vector: &[f32], k: usize) -> Result<Vec<DenseHit>, DenseError> {
        if vector.len() != self.dim {
            let path = self.path.clone();
            return Err(DenseError::Dimension {
                path,
                found: vector.len(),
                expected: self.dim,
            });
        }
        let rows = self.ids.len();
        let k = k.min(rows);
        if k == 0 {
            return Ok(Vec::new());
        }
        // FAISS returns any of the rows that are tied for the last place. Once there is a lower score below, it has returned all.
        let mut depth = rows.min(k + 1);
        loop {
            let mut hits = self.nearest(vector, depth)?;
            let is_tied = hits.len() == depth && hits[depth - 1].score == hits[k - 1].score;
            if depth == rows || !is_tied {
                hits.truncate(k);
                return Ok(hits);
            }
            depth = rows.min(depth * 2);
        }
    }

    /// The best `k` rows, as [`DenseIndex::search`] orders them.
    fn nearest(&self, vector: &[f32], k: usize) -> Result<Vec<DenseHit>, DenseError> {
        let found = self
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .search(&unit(vector, self.dim), k);
        let found = found.map_err(|e| DenseError::Index {
            path: self.path.clone(),
            message: message(&e),
        })?;
        let pairs = found.labels.iter().zip(found.distances);
        let mut hits: Vec<DenseHit> = pairs
            .filter_map(|(label, score)| {
                Some(DenseHit {
                    row: label.get()? as usize,
                    score,
                })
            })
            .collect();
        hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        Ok(hits)
    }

    /// The inner product of `vector` with a row, as far as the index keeps it (exactly in Flat and HNSW); nothing
    /// where it cannot be had, as in inverted lists.
    pub fn score(&self, vector: &[f32], row: usize) -> Option<f32> {
        if row >= self.ids.len() || vector.len() != self.dim {
            return None;
        }
        let mut kept = vec![0.0; self.dim];
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.reconstruct(Idx::new(row as u64), &mut kept).ok()?;
        let vector = unit(vector, self.dim);
        Some(vector.iter().zip(kept).map(|(a, b)| a * b).sum())
    }
}

fn utf8(path: &Path) -> Result<&str, DenseError> {
    path.to_str().ok_or_else(|| DenseError::File {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "FAISS needs a path in UTF-8"),
    })
}

/// FAISS's message without the place in its source.
fn message(error: &faiss::error::Error) -> String {
    let text = error.to_string();
    let said = text
        .rsplit_once(": ")
        .filter(|_| text.contains(".cpp:"))
        .map(|(_, said)| said.trim().to_owned());
    said.filter(|said| !said.is_empty()).unwrap_or(text)
}

#[derive(Debug, thiserror::Error)]
pub enum DenseError {
    #[error(
        "`dense.factory`: FAISS does not take `{factory}` for vectors by inner product: {message}"
    )]
    Factory { factory: String, message: String },
    #[error(
        "`dense.factory`: `{factory}` cannot be trained on {rows} vectors: {message}; use `auto` or fewer lists"
    )]
    Training {
        factory: String,
        rows: usize,
        message: String,
    },
    #[error("`dense.factory`: `{factory}` must be trained before vectors are added")]
    Untrained { factory: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {message}", path.display())]
    Index { path: PathBuf, message: String },
    #[error("{}: {ids} ids for {rows} vectors; build the index again", path.display())]
    Unaligned {
        path: PathBuf,
        ids: usize,
        rows: usize,
    },
    #[error("{}: {found} numbers where vectors of {expected} were expected; is it another model's?", path.display())]
    Dimension {
        path: PathBuf,
        found: usize,
        expected: usize,
    },
    #[error("id `{}` has a line break in it, which the ids of an index cannot have", id.escape_debug())]
    LineBreak { id: String },
}

#[cfg(test)]
mod tests;
