//! The map stages as DataFusion functions: `intents(title, text, given)`, `chunk(title, text, intents)`,
//! `keywords(text)`, `queries(title, text, intents, keywords)`, `score(title, text, query)`, `embed(title, text)`,
//! `embed_query(text)`.
//!
//! Each is a pure function over the columns of a record batch. A row that fails carries its error in its result and
//! leaves the batch's other rows alone. The same functions serve the local engine, other executors and SQL.

mod chunk;
mod embed;
mod intents;
mod keywords;
pub mod outcome;
mod queries;
mod score;

pub use chunk::{cap, cut};
pub use embed::TEXTS_AT_ONCE;
pub use score::CANNOT_SCORE;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, StringArray},
    compute::{cast, filter, interleave, is_null},
    datatypes::DataType,
    error::ArrowError,
};
use datafusion::{
    common::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
        Volatility,
    },
    prelude::SessionContext,
};

use crate::{
    expand::topics::Topics,
    job::{Job, Progress},
    model::ModelError,
    store::schema::KEY_BYTES,
};

use super::{
    fingerprint::{self, Fingerprints, Key},
    models::Models,
};
use outcome::Outcome;

/// A map stage: columns in, one column of results out, as many rows.
pub trait MapStage: Send + Sync {
    /// Name in SQL.
    fn name(&self) -> &'static str;
    fn fingerprint(&self) -> &str;
    fn arguments(&self) -> Vec<DataType>;
    /// Type of a row's value.
    fn value(&self) -> DataType;
    /// What row `i` is computed from, besides the stage's fingerprint.
    fn key(&self, arguments: &[ArrayRef], i: usize) -> Key;
    /// Computes all rows: what each cost or why it failed, and the values.
    fn run(
        &self,
        arguments: &[ArrayRef],
        keys: &[Key],
    ) -> Result<(Vec<Outcome>, ArrayRef), ArrowError>;
}

/// Name of the function that the corpus's topics decide.
pub const KEYWORDS: &str = "keywords";

/// Registers every stage whose models the job has. Keywords are those of a corpus without topics, until
/// [`register_keywords`] is called with them.
pub fn register(
    ctx: &SessionContext,
    job: &Job,
    fingerprints: &Fingerprints,
    models: &Models,
    progress: Arc<dyn Progress>,
) {
    let settings = Settings {
        job,
        fingerprints,
        models,
        progress,
    };
    let all = settings.all(&Topics::default());
    all.into_iter()
        .for_each(|stage| settings.register(ctx, stage));
}

/// Every stage whose models the job has.
#[cfg(feature = "cluster")]
pub fn all(
    job: &Job,
    fingerprints: &Fingerprints,
    models: &Models,
    progress: Arc<dyn Progress>,
    topics: &Topics,
) -> Vec<Arc<dyn MapStage>> {
    let settings = Settings {
        job,
        fingerprints,
        models,
        progress,
    };
    settings.all(topics)
}

/// Registers `keywords` anew, with the topics of the corpus.
pub fn register_keywords(
    ctx: &SessionContext,
    job: &Job,
    fingerprints: &Fingerprints,
    models: &Models,
    progress: Arc<dyn Progress>,
    topics: &Topics,
) {
    let settings = Settings {
        job,
        fingerprints,
        models,
        progress,
    };
    settings.register(ctx, Arc::new(keywords::Keywords::new(&settings, topics)));
}

/// What the stages are made from.
struct Settings<'a> {
    job: &'a Job,
    fingerprints: &'a Fingerprints,
    models: &'a Models,
    progress: Arc<dyn Progress>,
}

impl Settings<'_> {
    fn all(&self, topics: &Topics) -> Vec<Arc<dyn MapStage>> {
        let mut stages: Vec<Arc<dyn MapStage>> = vec![
            Arc::new(intents::Intents::new(self)),
            Arc::new(chunk::Chunks::new(self)),
            Arc::new(embed::EmbedDocument::new(self)),
            Arc::new(embed::EmbedQuery::new(self)),
            Arc::new(keywords::Keywords::new(self, topics)),
        ];
        if self.models.has_generator() {
            stages.push(Arc::new(queries::Queries::new(self)));
            stages.push(Arc::new(score::Score::new(self)));
        }
        stages
    }

    fn register(&self, ctx: &SessionContext, stage: Arc<dyn MapStage>) {
        let progress = self.progress.clone();
        ctx.register_udf(ScalarUDF::from(MapFunction::new(stage.clone(), progress)));
        ctx.register_udf(ScalarUDF::from(KeyFunction::new(stage)));
    }
}

/// A map stage as DataFusion calls it. A last argument beyond the stage's own is a column of earlier results: rows
/// that have one keep it, and the stage computes the others.
pub struct MapFunction {
    stage: Arc<dyn MapStage>,
    progress: Arc<dyn Progress>,
    signature: Signature,
}

impl MapFunction {
    pub fn new(stage: Arc<dyn MapStage>, progress: Arc<dyn Progress>) -> Self {
        let own = stage.arguments().len();
        let signature = Signature::one_of(
            vec![TypeSignature::Any(own), TypeSignature::Any(own + 1)],
            Volatility::Immutable,
        );
        Self {
            stage,
            progress,
            signature,
        }
    }

    #[cfg(feature = "cluster")]
    pub fn stage(&self) -> &dyn MapStage {
        &*self.stage
    }

    fn compute(&self, arguments: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
        let rows = arguments.first().map_or(0, |a| a.len());
        let keys: Vec<Key> = (0..rows).map(|i| self.stage.key(arguments, i)).collect();
        let (outcomes, values) = self.stage.run(arguments, &keys)?;
        outcome::column(&keys, &outcomes, values)
    }

    /// Computes the rows without an earlier result and puts them between those with one.
    fn complete(&self, arguments: &[ArrayRef], earlier: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let missing = is_null(earlier)?;
        self.progress.advance(missing.false_count() as u64);
        if missing.true_count() == 0 {
            return Ok(earlier.clone());
        }
        let wanted = arguments.iter().map(|a| filter(a, &missing));
        let computed = self.compute(&wanted.collect::<Result<Vec<_>, _>>()?)?;
        let mut next = 0..computed.len();
        let places: Vec<(usize, usize)> = (0..earlier.len())
            .map(|i| match missing.value(i).then(|| next.next()).flatten() {
                Some(row) => (1, row),
                None => (0, i),
            })
            .collect();
        interleave(&[earlier.as_ref(), computed.as_ref()], &places)
    }
}

impl ScalarUDFImpl for MapFunction {
    fn name(&self) -> &str {
        self.stage.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(outcome::data_type(self.stage.value()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let own = arguments(&*self.stage, &args)?;
        let result = match args.args.get(own.len()) {
            Some(earlier) => {
                let earlier = earlier.to_array(args.number_rows)?;
                let wanted = outcome::data_type(self.stage.value());
                self.complete(&own, &cast(&earlier, &wanted)?)
            }
            None => self.compute(&own),
        };
        Ok(ColumnarValue::Array(result.map_err(DataFusionError::from)?))
    }
}

/// `<stage>_key`: the keys of a stage's rows, without computing any.
struct KeyFunction {
    stage: Arc<dyn MapStage>,
    name: String,
    signature: Signature,
}

impl KeyFunction {
    fn new(stage: Arc<dyn MapStage>) -> Self {
        Self {
            name: format!("{}_key", stage.name()),
            signature: Signature::any(stage.arguments().len(), Volatility::Immutable),
            stage,
        }
    }
}

impl ScalarUDFImpl for KeyFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::FixedSizeBinary(KEY_BYTES))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let own = arguments(&*self.stage, &args)?;
        let keys = (0..args.number_rows).map(|i| self.stage.key(&own, i));
        let keys = outcome::key_column(keys).map_err(DataFusionError::from)?;
        Ok(ColumnarValue::Array(keys))
    }
}

/// The stage's own arguments as columns of its types.
fn arguments(stage: &dyn MapStage, args: &ScalarFunctionArgs) -> Result<Vec<ArrayRef>> {
    let mut columns = Vec::with_capacity(args.args.len());
    for (value, wanted) in args.args.iter().zip(stage.arguments()) {
        columns.push(cast(&value.to_array(args.number_rows)?, &wanted)?);
    }
    Ok(columns)
}

/// Functions are told apart by name and fingerprint.
macro_rules! identity {
    ($function:ty) => {
        impl fmt::Debug for $function {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "{}[{}]",
                    ScalarUDFImpl::name(self),
                    self.stage.fingerprint()
                )
            }
        }

        impl PartialEq for $function {
            fn eq(&self, other: &Self) -> bool {
                ScalarUDFImpl::name(self) == ScalarUDFImpl::name(other)
                    && self.stage.fingerprint() == other.stage.fingerprint()
            }
        }

        impl Eq for $function {}

        impl Hash for $function {
            fn hash<H: Hasher>(&self, state: &mut H) {
                ScalarUDFImpl::name(self).hash(state);
                self.stage.fingerprint().hash(state);
            }
        }
    };
}

identity!(MapFunction);
identity!(KeyFunction);

/// An error of the whole stage: a model that cannot be loaded or reached.
fn fatal(error: ModelError) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

/// Lets the rows' own errors stay in their rows; a server that is down ends the stage, so that a later run tries
/// again.
fn rows_apart<T>(
    rows: Vec<Result<T, ModelError>>,
) -> Result<Vec<Result<T, ModelError>>, ArrowError> {
    let down = |row: &Result<T, ModelError>| matches!(row, Err(ModelError::Unavailable { .. }));
    if !rows.iter().any(down) {
        return Ok(rows);
    }
    let first = rows.into_iter().find(down).and_then(Result::err);
    Err(fatal(first.expect("one was found")))
}

/// The first two columns: titles, which may be null, and texts.
fn titles_and_texts(arguments: &[ArrayRef]) -> [&StringArray; 2] {
    [arguments[0].as_string(), arguments[1].as_string()]
}

/// The key of row `i` of titles and texts, and of a list that belongs to it.
fn listed_key(fingerprint: &str, arguments: &[ArrayRef], i: usize, list: &[String]) -> Key {
    let [titles, texts] = titles_and_texts(arguments);
    let own = [text_at(titles, i), text_at(texts, i)];
    let list = list.iter().map(|text| Some(text.as_str()));
    fingerprint::key(fingerprint, own.into_iter().chain(list))
}

/// Row `i` of a string column, None where null.
fn text_at(column: &StringArray, i: usize) -> Option<&str> {
    column.is_valid(i).then(|| column.value(i))
}

/// Row `i` of a column of lists of strings; nulls and null lists are empty.
fn texts_at(column: &ArrayRef, i: usize) -> Vec<String> {
    let lists = column.as_list::<i32>();
    if lists.is_null(i) {
        return Vec::new();
    }
    let values = lists.value(i);
    values
        .as_string::<i32>()
        .iter()
        .flatten()
        .map(str::to_owned)
        .collect()
}

/// A column of strings from an iterator that does not know its length.
fn strings<'a>(values: impl Iterator<Item = &'a str>) -> StringArray {
    StringArray::from_iter_values(values.collect::<Vec<_>>())
}

fn list_of_texts() -> DataType {
    DataType::List(Arc::new(arrow::datatypes::Field::new(
        "item",
        DataType::Utf8,
        true,
    )))
}
