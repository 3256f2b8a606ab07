//! `--set a.b=c`: one key of the job file, given on the command line.

use toml::Value;

use super::Problem;
use super::keys::{Node, fits, join, unknown};

/// Puts one `key=value` into the job. The key must exist in the schema; the value is read as TOML if that
/// fits the key, else taken as a string, so that quotes are not needed.
pub fn apply(table: &mut toml::Table, assignment: &str) -> Result<(), Problem> {
    let (path, text) = assignment.split_once('=').ok_or_else(|| {
        Problem::new(
            assignment,
            "given to --set is not an assignment; write `--set a.b=value`",
        )
    })?;
    let names: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    let mut node = Node::root();
    let mut key = String::new();
    for name in &names {
        key = join(&key, name);
        node = match node.child(name) {
            Some(child) => child,
            None => return Err(Problem::new(key, unknown(node, name))),
        };
    }
    insert(table, &names, parse(node, text.trim()), &key)
}

fn parse(node: Node, text: &str) -> Value {
    let parsed = toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("v"));
    match parsed {
        Some(value) if fits(node, &value) || !node.takes("string") => value,
        _ => Value::String(text.to_string()),
    }
}

fn insert(table: &mut toml::Table, names: &[&str], value: Value, key: &str) -> Result<(), Problem> {
    let Some((first, rest)) = names.split_first() else {
        return Ok(());
    };
    if rest.is_empty() {
        table.insert(first.to_string(), value);
        return Ok(());
    }
    let section = table
        .entry(first.to_string())
        .or_insert_with(|| Value::Table(toml::Table::new()));
    match section.as_table_mut() {
        Some(section) => insert(section, rest, value, key),
        None => Err(Problem::new(
            key,
            format!("cannot be set: `{first}` is not a table in the file"),
        )),
    }
}
