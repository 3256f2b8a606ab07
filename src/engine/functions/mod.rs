//! The map stages as DataFusion functions: `intents(title, text, given)`, `chunk(title, text, intents)`,
//! `queries(title, text, intents)`, `embed(title, text)`, `embed_query(text)`, `score(query, text)`.
//!
//! Each is a pure function over the columns of a record batch. A row that fails carries its error in its result and
//! leaves the batch's other rows alone. The same functions serve the local engine, other executors and SQL.

mod chunk;
mod embed;
mod intents;
pub mod outcome;
mod queries;
mod score;

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, StringArray},
    compute::cast,
    datatypes::DataType,
    error::ArrowError,
};
use datafusion::{
    common::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
    prelude::SessionContext,
};

use crate::{
    job::{Job, Progress},
    model::ModelError,
};

use super::{fingerprint::Fingerprints, models::Models};

/// A map stage: columns in, one column of results out, as many rows.
pub trait MapStage: Send + Sync {
    /// Name in SQL.
    fn name(&self) -> &'static str;
    /// Parameters, code version and model files; two stages of the same name and fingerprint are the same function.
    fn fingerprint(&self) -> &str;
    /// The types its arguments are cast to.
    fn arguments(&self) -> Vec<DataType>;
    fn returns(&self) -> DataType;
    fn run(&self, arguments: &[ArrayRef]) -> Result<ArrayRef, ArrowError>;
}

/// Registers every stage whose models the job has.
pub fn register(
    ctx: &SessionContext,
    job: &Job,
    fingerprints: &Fingerprints,
    models: &Models,
    progress: Arc<dyn Progress>,
) {
    let mut stages: Vec<Arc<dyn MapStage>> = vec![
        Arc::new(intents::Intents::new(
            job,
            fingerprints,
            models,
            progress.clone(),
        )),
        Arc::new(chunk::Chunks::new(
            job,
            fingerprints,
            models,
            progress.clone(),
        )),
        Arc::new(embed::EmbedDocument::new(
            job,
            fingerprints,
            models,
            progress.clone(),
        )),
        Arc::new(embed::EmbedQuery::new(
            job,
            fingerprints,
            models,
            progress.clone(),
        )),
    ];
    if models.has_generator() {
        stages.push(Arc::new(queries::Queries::new(
            job,
            fingerprints,
            models,
            progress,
        )));
        stages.push(Arc::new(score::ScoreQuery::new(job, fingerprints, models)));
    }
    for stage in stages {
        ctx.register_udf(ScalarUDF::from(MapFunction::new(stage)));
    }
}

/// A map stage as DataFusion calls it.
struct MapFunction {
    stage: Arc<dyn MapStage>,
    signature: Signature,
}

impl fmt::Debug for MapFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.stage.name(), self.stage.fingerprint())
    }
}

impl MapFunction {
    fn new(stage: Arc<dyn MapStage>) -> Self {
        let signature = Signature::any(stage.arguments().len(), Volatility::Immutable);
        Self { stage, signature }
    }
}

impl PartialEq for MapFunction {
    fn eq(&self, other: &Self) -> bool {
        self.stage.name() == other.stage.name()
            && self.stage.fingerprint() == other.stage.fingerprint()
    }
}

impl Eq for MapFunction {}

impl Hash for MapFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stage.name().hash(state);
        self.stage.fingerprint().hash(state);
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
        Ok(self.stage.returns())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut columns = Vec::with_capacity(args.args.len());
        for (value, wanted) in args.args.iter().zip(self.stage.arguments()) {
            let column = value.to_array(args.number_rows)?;
            columns.push(cast(&column, &wanted)?);
        }
        let result = self.stage.run(&columns).map_err(DataFusionError::from)?;
        Ok(ColumnarValue::Array(result))
    }
}

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

/// Row `i` of a string column, None where null.
fn text_at(column: &StringArray, i: usize) -> Option<&str> {
    use arrow::array::Array;
    column.is_valid(i).then(|| column.value(i))
}

/// Row `i` of a column of lists of strings; nulls and null lists are empty.
fn texts_at(column: &ArrayRef, i: usize) -> Vec<String> {
    use arrow::array::Array;
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
