//! The JSON Schema of the job file, made from the types in `spec`.

use std::sync::LazyLock;

use serde_json::{Number, Value};

use super::spec::Job;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = schemars::schema_for!(Job).to_value();
    shorten_numbers(&mut schema);
    schema
});

/// The schema as `schemas/job.schema.json` holds it.
pub fn job_schema() -> &'static Value {
    &SCHEMA
}

/// Defaults are f32 and reach JSON as f64: 0.7 would read 0.699999988079071.
fn shorten_numbers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(shorten_numbers),
        Value::Object(fields) => fields.values_mut().for_each(shorten_numbers),
        Value::Number(n) if n.is_f64() => {
            let short = n
                .as_f64()
                .and_then(|x| (x as f32).to_string().parse().ok())
                .and_then(Number::from_f64);
            if let Some(short) = short {
                *n = short;
            }
        }
        _ => {}
    }
}
