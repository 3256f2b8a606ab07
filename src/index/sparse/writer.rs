//! Building a sparse index in bounded memory.

use std::path::{Path, PathBuf};

use tantivy::directory::MmapDirectory;
use tantivy::indexer::merge_indices;
use tantivy::schema::Schema;
use tantivy::{Index, SingleSegmentIndexWriter, TantivyDocument};
use tempfile::TempDir;

use super::{SparseDocument, SparseError, SparseSummary, in_dir, schema};
use crate::index::analyzer;
use crate::job::spec::SparseLanguage;

/// A part is written to disk once its postings take this much memory.
pub(super) const PART_BYTES: usize = 64 << 20;

/// Writes a sparse index. Memory is bounded: parts of 64 MiB of postings are written as segments of their own and
/// merged, in order, at the end.
pub struct SparseWriter {
    dir: PathBuf,
    schema: Schema,
    parts_dir: TempDir,
    parts: Vec<Index>,
    current: SingleSegmentIndexWriter,
    part_bytes: usize,
    documents: u64,
}

impl SparseWriter {
    /// Starts an index in the folder `dir`, which is created and must be empty. Parts are kept beside it meanwhile.
    pub fn create(dir: &Path, language: SparseLanguage) -> Result<Self, SparseError> {
        Self::with_part_bytes(dir, language, PART_BYTES)
    }

    pub(super) fn with_part_bytes(
        dir: &Path,
        language: SparseLanguage,
        part_bytes: usize,
    ) -> Result<Self, SparseError> {
        let file = |source| SparseError::File {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(file)?;
        if std::fs::read_dir(dir).map_err(file)?.next().is_some() {
            return Err(SparseError::NotEmpty {
                path: dir.to_owned(),
            });
        }
        let beside = dir.parent().unwrap_or(dir);
        let parts_dir = tempfile::Builder::new()
            .prefix(".sparse-")
            .tempdir_in(beside)
            .map_err(file)?;
        let schema = schema(language);
        let current = new_part(dir, &schema, &parts_dir, 0)?;
        Ok(Self {
            dir: dir.to_owned(),
            schema,
            parts_dir,
            parts: Vec::new(),
            current,
            part_bytes,
            documents: 0,
        })
    }

    /// Adds the next chunk.
    pub fn add(&mut self, chunk: SparseDocument<'_>) -> Result<(), SparseError> {
        if self.current.mem_usage() > self.part_bytes {
            let next = new_part(
                &self.dir,
                &self.schema,
                &self.parts_dir,
                self.parts.len() + 1,
            )?;
            let full = std::mem::replace(&mut self.current, next);
            self.parts.push(full.finalize().map_err(in_dir(&self.dir))?);
        }
        let ids = [("chunk_id", chunk.chunk_id), ("doc_id", chunk.doc_id)];
        let texts = [("text", chunk.text)]
            .into_iter()
            .chain(chunk.title.map(|title| ("title", title)));
        let queries = chunk.queries.iter().map(|query| ("queries", *query));
        let mut document = TantivyDocument::new();
        for (name, value) in ids.into_iter().chain(texts).chain(queries) {
            document.add_text(
                self.schema.get_field(name).map_err(in_dir(&self.dir))?,
                value,
            );
        }
        self.current
            .add_document(document)
            .map_err(in_dir(&self.dir))?;
        self.documents += 1;
        Ok(())
    }

    /// Writes the one segment and `meta.json`.
    pub fn finish(self) -> Result<SparseSummary, SparseError> {
        let Self {
            dir,
            parts_dir,
            mut parts,
            current,
            documents,
            ..
        } = self;
        parts.push(current.finalize().map_err(in_dir(&dir))?);
        let target = MmapDirectory::open(&dir).map_err(|e| in_dir(&dir)(e.into()))?;
        merge_indices(&parts, target).map_err(in_dir(&dir))?;
        drop(parts);
        let file = |source| SparseError::File {
            path: dir.clone(),
            source,
        };
        parts_dir.close().map_err(file)?;
        share_meta(&dir).map_err(file)?;
        Ok(SparseSummary { documents })
    }
}

/// Tantivy writes its `.json` files for their owner alone; a published index is read by others too, so they get
/// the permissions of the segment's files.
fn share_meta(dir: &Path) -> std::io::Result<()> {
    let files = std::fs::read_dir(dir)?.map(|file| file.map(|file| file.path()));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let (meta, segment): (Vec<_>, Vec<_>) = files
        .into_iter()
        .partition(|path| path.extension().is_some_and(|e| e == "json"));
    if let Some(ordinary) = segment.first() {
        let permissions = std::fs::metadata(ordinary)?.permissions();
        for path in meta {
            std::fs::set_permissions(path, permissions.clone())?;
        }
    }
    Ok(())
}

fn new_part(
    dir: &Path,
    schema: &Schema,
    parts_dir: &TempDir,
    number: usize,
) -> Result<SingleSegmentIndexWriter, SparseError> {
    let path = parts_dir.path().join(number.to_string());
    std::fs::create_dir(&path).map_err(|source| SparseError::File {
        path: path.clone(),
        source,
    })?;
    let directory = MmapDirectory::open(&path).map_err(|e| in_dir(dir)(e.into()))?;
    Index::builder()
        .schema(schema.clone())
        .tokenizers(analyzer::tokenizers())
        .single_segment_index_writer(directory, PART_BYTES)
        .map_err(in_dir(dir))
}
