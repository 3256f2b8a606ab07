//! `corpus.filter`: a SQL expression over the corpus's own columns, and what is said of one that cannot be used.

use arrow::datatypes::{DataType, Schema};
use datafusion::common::SchemaError;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::ExprSchemable;
use datafusion::sql::sqlparser::parser::ParserError;

use super::CorpusError;
use super::error::one_line;
use crate::job::nearest;

/// A filter, and the columns of the corpus it is for.
#[derive(Clone, Copy)]
pub struct Filter<'a> {
    pub text: &'a str,
    pub columns: &'a Schema,
}

impl Filter<'_> {
    /// The rows that it keeps.
    pub fn apply(self, rows: DataFrame) -> Result<DataFrame, CorpusError> {
        let refusal = |error| self.refusal(error);
        let expression = rows.parse_sql_expr(self.text).map_err(refusal)?;
        let found = expression.get_type(rows.schema()).map_err(refusal)?;
        if found != DataType::Boolean {
            let message = format!("it is {found}, but must be true or false for each row");
            return Err(self.unusable(message));
        }
        rows.filter(expression).map_err(refusal)
    }

    /// What to say of an error of DataFusion's that this filter may have caused, as one of ours it carries did not.
    pub fn refusal(self, error: DataFusionError) -> CorpusError {
        let message = self.explain(error.find_root());
        match CorpusError::from(error) {
            CorpusError::Query(_) => self.unusable(message),
            own => own,
        }
    }

    fn unusable(self, message: String) -> CorpusError {
        CorpusError::Filter {
            filter: self.text.into(),
            message,
            columns: self.names().join(", "),
        }
    }

    fn names(&self) -> Vec<&str> {
        let fields = self.columns.fields().iter();
        fields.map(|field| field.name().as_str()).collect()
    }

    fn explain(self, error: &DataFusionError) -> String {
        match error {
            DataFusionError::SQL(error, _) => match error.as_ref() {
                ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
                    format!("it is not a SQL expression ({})", one_line(message))
                }
                ParserError::RecursionLimitExceeded => "it is nested too deeply".into(),
            },
            DataFusionError::SchemaError(error, _) => match error.as_ref() {
                SchemaError::FieldNotFound { field, .. } => self.no_column(&field.name),
                other => one_line(other),
            },
            other => one_line(&other.message()),
        }
    }

    /// SQL's own traps first: double quotes are for columns, and names without them are read in lower case.
    fn no_column(self, name: &str) -> String {
        let names = self.names();
        let same = names.iter().find(|known| known.eq_ignore_ascii_case(name));
        let hint = match (same, nearest(name, &names)) {
            (Some(known), _) => format!("; write \"{known}\", with the quotes"),
            (None, _) if self.text.contains(&format!("\"{name}\"")) => {
                format!("; if it is a value, write '{name}', with single quotes")
            }
            (None, Some(near)) => format!("; did you mean `{near}`?"),
            (None, None) => String::new(),
        };
        format!("there is no column `{name}`{hint}")
    }
}
