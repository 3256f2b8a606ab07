//! What a corpus holds: one reading of it, cut where that needs no generator, and its documents' keys looked up in the
//! published index.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array},
    datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type},
};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use rayon::prelude::*;

use crate::{
    corpus::CorpusScan,
    engine::{
        EngineError,
        build::stages,
        functions::{cap, cut},
        ingest,
        join::Joins,
        models::title_tokens,
        stage::{self, Stage},
    },
    expand::sketch::Sketch,
    intent::question_count,
    job::{
        Job,
        spec::{self, ChunkMethod},
    },
    model::{Embed, ModelError, TextKind},
    store::{Dataset, dataset::PartWriter, schema::KEY_BYTES},
    text,
};

/// A chunk's usual best cosine to an intent, which decides how long the paper's objective makes chunks.
const USUAL_RELEVANCE: f32 = 0.5;

const FIGURES: usize = 8;

/// What documents count for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    pub documents: u64,
    /// Of text.
    pub bytes: u64,
    /// In tokens of the embedder.
    pub tokens: u64,
    /// Of the documents that the generator reads.
    pub intent_tokens: u64,
    pub intents: u64,
    pub chunks: u64,
    pub chunk_tokens: u64,
    /// Those, their titles' and the model's own with every chunk.
    pub embedded_tokens: u64,
}

impl Count {
    const NAMES: [&str; FIGURES] = [
        "documents",
        "bytes",
        "tokens",
        "intent_tokens",
        "intents",
        "chunks",
        "chunk_tokens",
        "embedded_tokens",
    ];

    fn figures(self) -> [u64; FIGURES] {
        [
            self.documents,
            self.bytes,
            self.tokens,
            self.intent_tokens,
            self.intents,
            self.chunks,
            self.chunk_tokens,
            self.embedded_tokens,
        ]
    }

    fn of(figures: [u64; FIGURES]) -> Self {
        let [
            documents,
            bytes,
            tokens,
            intent_tokens,
            intents,
            chunks,
            chunk_tokens,
            embedded_tokens,
        ] = figures;
        Self {
            documents,
            bytes,
            tokens,
            intent_tokens,
            intents,
            chunks,
            chunk_tokens,
            embedded_tokens,
        }
    }
}

/// Documents whose first stage finds its result in the published index, and the rows they have there.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Known {
    pub documents: u64,
    pub chunks: u64,
    pub queries: u64,
}

/// A corpus: what is known of it, what is not, and the whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    pub known: Known,
    pub new: Count,
    pub all: Count,
    pub rejected: u64,
    /// By which its topics are told from another's.
    pub sketch: Sketch,
}

/// Reads the corpus once. What each document counts for goes to a file in the folder `scratch`, so that memory does
/// not grow; its keys are then joined with those of the generation `published`.
pub async fn count(
    job: &Job,
    ctx: &SessionContext,
    scan: &CorpusScan,
    embedder: &dyn Embed,
    (scratch, published): (&Path, Option<&Path>),
) -> Result<Counted, EngineError> {
    let joins = Joins::new(ctx, scratch, "counting the corpus")?;
    let path = joins.path("figures");
    let mut writer = PartWriter::scratch(&path, schema())?;
    let (mut rejected, mut sketch) = (0, Sketch::default());
    let first = stages(job).into_iter().next().unwrap_or(Stage::Chunks);
    let mut batches = std::pin::pin!(scan.stream().await?);
    let own = own_tokens(embedder)?;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        rejected += batch.rejected.len() as u64;
        let documents = ingest::documents_batch(&batch.documents, &path)?;
        let keys = stage::keys_of(first, ctx, documents.clone()).await?;
        let mut columns = vec![keys];
        let texts = documents
            .column_by_name("text")
            .map(|c| c.as_string::<i32>());
        let texts = texts.into_iter().flatten().flatten();
        texts.for_each(|text| sketch.add(text));
        columns.extend(figures(job, &documents, (embedder, own))?);
        let rows = RecordBatch::try_new(schema(), columns);
        writer.write(&rows.map_err(EngineError::batch(&path))?)?;
    }
    writer.finish()?;
    joins.register("figures", &path).await?;
    let all = sums(&joins, "figures").await?;
    let mut counted = Counted {
        all,
        new: all,
        rejected,
        sketch,
        ..Counted::default()
    };
    if let Some(published) = published {
        (counted.known, counted.new) = known(first, job, &joins, published).await?;
    }
    Ok(counted)
}

fn schema() -> SchemaRef {
    let mut fields = vec![Field::new(
        "key",
        DataType::FixedSizeBinary(KEY_BYTES),
        false,
    )];
    fields.extend(Count::NAMES.map(|name| Field::new(name, DataType::UInt64, false)));
    Arc::new(Schema::new(fields))
}

/// The figures of each document, a column each.
fn figures(
    job: &Job,
    documents: &RecordBatch,
    embedder: (&dyn Embed, usize),
) -> Result<Vec<ArrayRef>, EngineError> {
    let column = |name: &str| {
        documents
            .column_by_name(name)
            .expect("a column of the documents dataset")
    };
    let titles = column("title").as_string::<i32>();
    let texts = column("text").as_string::<i32>();
    let given = job.corpus.intents.as_ref().map(|_| column("intents"));
    let count = |i| {
        let given = given.and_then(|column| given_at(column, i));
        let title = titles.is_valid(i).then(|| titles.value(i));
        count_document(job, (title, texts.value(i)), given, embedder).map(Count::figures)
    };
    let rows: Vec<[u64; FIGURES]> = (0..documents.num_rows())
        .into_par_iter()
        .map(count)
        .collect::<Result<_, ModelError>>()?;
    let column = |c: usize| Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r[c]))) as _;
    Ok((0..FIGURES).map(column).collect())
}

async fn sums(joins: &Joins, rows: &str) -> Result<Count, EngineError> {
    let columns = Count::NAMES
        .map(|name| format!("CAST(coalesce(sum({name}), 0) AS BIGINT UNSIGNED)"))
        .join(", ");
    let sums = numbers(joins, &format!("SELECT {columns} FROM {rows}")).await?;
    let mut figures = [0; FIGURES];
    figures.copy_from_slice(&sums);
    Ok(Count::of(figures))
}

async fn rows(joins: &Joins, of: &str) -> Result<u64, EngineError> {
    let sql = format!("SELECT CAST(count(*) AS BIGINT UNSIGNED) FROM {of}");
    Ok(numbers(joins, &sql).await?[0])
}

/// The only row of a statement.
async fn numbers(joins: &Joins, sql: &str) -> Result<Vec<u64>, EngineError> {
    let batches: Vec<RecordBatch> = joins
        .stream(sql)
        .await?
        .try_collect()
        .await
        .map_err(joins.failed())?;
    let row = batches
        .iter()
        .find(|b| b.num_rows() > 0)
        .expect("an aggregate has a row");
    let number = |column: &ArrayRef| column.as_primitive::<UInt64Type>().value(0);
    Ok(row.columns().iter().map(number).collect())
}

/// The documents whose keys are published, with their rows there, and what the others count for.
async fn known(
    first: Stage,
    job: &Job,
    joins: &Joins,
    published: &Path,
) -> Result<(Known, Count), EngineError> {
    let at = |dataset: Dataset| published.join(dataset.folder());
    joins.register("outcomes", &at(first.outcomes())).await?;
    joins.register("chunks", &at(Dataset::Chunks)).await?;
    let figures = "SELECT * FROM figures";
    joins.sort("asked", figures, &["key"]).await?;
    joins.remove(&["figures"])?;
    let earlier = "SELECT key, id FROM outcomes";
    joins.sort("earlier", earlier, &["key", "id"]).await?;
    let new = "asked a LEFT ANTI JOIN earlier e ON a.key = e.key";
    let new = sums(joins, new).await?;
    let documents = "SELECT e.id FROM asked a JOIN (SELECT key, min(id) AS id FROM earlier GROUP BY key) e \
                     ON a.key = e.key";
    joins.sort("documents", documents, &["id"]).await?;
    joins.remove(&["asked", "earlier"])?;
    let ids = "SELECT doc_id, chunk_id FROM chunks";
    joins.sort("chunk_ids", ids, &["doc_id"]).await?;
    let chunks = "SELECT c.chunk_id FROM documents d JOIN chunk_ids c ON c.doc_id = d.id";
    joins.sort("known_chunks", chunks, &["chunk_id"]).await?;
    let mut known = Known {
        documents: rows(joins, "documents").await?,
        chunks: rows(joins, "known_chunks").await?,
        queries: 0,
    };
    joins.remove(&["documents", "chunk_ids"])?;
    let has_queries = Dataset::Queries.parts(published);
    if job.expand.enabled && has_queries.is_ok_and(|parts| !parts.is_empty()) {
        joins.register("queries", &at(Dataset::Queries)).await?;
        let ids = "SELECT chunk_id FROM queries";
        joins.sort("query_chunks", ids, &["chunk_id"]).await?;
        let queries = "known_chunks c JOIN query_chunks q ON q.chunk_id = c.chunk_id";
        known.queries = rows(joins, queries).await?;
    }
    Ok((known, new))
}

fn given_at(column: &ArrayRef, i: usize) -> Option<u64> {
    let lists = column.as_list_opt::<i32>()?;
    lists.is_valid(i).then(|| lists.value_length(i) as u64)
}

fn count_document(
    job: &Job,
    (title, text): (Option<&str>, &str),
    given: Option<u64>,
    (embedder, own): (&dyn Embed, usize),
) -> Result<Count, ModelError> {
    let sentences = text::analyse(text).sentences.len();
    let tokens = embedder.token_offsets(text)?.len() as u64;
    let long = text.chars().nth(job.intents.max_document_chars).is_some();
    let asked = given.is_none() && job.intents.enabled && job.corpus.intents.is_none() && !long;
    let intents = if asked {
        question_count(sentences) as u64
    } else {
        given.unwrap_or(0)
    };
    let (chunks, chunk_tokens) = match job.chunk.method {
        ChunkMethod::Intent if intents > 0 => (
            sentences.div_ceil(favoured_length(&job.chunk)) as u64,
            tokens,
        ),
        // Sentences are embedded by the build alone.
        method if method.reads_sentences() => {
            let cap = cap(&job.chunk, title, embedder)?.max(1);
            let target = job.chunk.target_tokens.min(cap);
            // No sentence is cut that fits.
            let most = sentences as u64 + tokens / cap as u64;
            (tokens.div_ceil(target as u64).min(most), tokens)
        }
        _ => match cut(&job.chunk, (title, text), &[], embedder) {
            Ok(cut) => (
                cut.chunks.len() as u64,
                cut.chunks.iter().map(|c| c.tokens as u64).sum(),
            ),
            // The build puts this document into quarantine, with the reason.
            Err(_) => (0, 0),
        },
    };
    Ok(Count {
        documents: 1,
        bytes: text.len() as u64,
        tokens,
        intent_tokens: if asked { tokens } else { 0 },
        intents,
        chunks,
        chunk_tokens,
        embedded_tokens: chunk_tokens + chunks * (title_tokens(title, embedder)? + own) as u64,
    })
}

/// Tokens that the model puts around every text: its special tokens and its prefix.
fn own_tokens(embedder: &dyn Embed) -> Result<usize, ModelError> {
    let text = "a";
    let embedded = embedder.embed(&[text], TextKind::Document)?;
    let own = embedder.token_offsets(text)?.len();
    Ok(embedded.tokens[0].saturating_sub(own))
}

/// Sentences n that maximise (R − λn² − β)/n, the objective per sentence.
fn favoured_length(settings: &spec::Chunk) -> usize {
    let surplus = (settings.beta - USUAL_RELEVANCE).max(0.0);
    let n = (surplus / settings.lambda.max(1e-6)).sqrt().round() as usize;
    n.clamp(1, settings.max_sentences)
}
