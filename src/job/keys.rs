//! The keys a job may have, read from its JSON Schema: finds every unknown, missing or mistyped key at once.

use serde_json::Value as Json;
use toml::Value as Toml;

use super::{Problem, schema::job_schema};

/// A place in the schema: the job itself, a section, or one key.
#[derive(Debug, Clone, Copy)]
pub struct Node(&'static Json);

impl Node {
    pub fn root() -> Self {
        Self(job_schema())
    }

    /// The key `name` of this table, if the schema has it.
    pub fn child(self, name: &str) -> Option<Node> {
        self.0["properties"].get(name).map(|n| Node(n).resolved())
    }

    pub fn names(self) -> Vec<&'static str> {
        match self.0["properties"].as_object() {
            Some(properties) => properties.keys().map(String::as_str).collect(),
            None => Vec::new(),
        }
    }

    /// Whether a value of JSON type `kind` fits here.
    pub fn takes(self, kind: &str) -> bool {
        match &self.0["type"] {
            Json::String(only) => only == kind,
            Json::Array(several) => several.iter().any(|k| k == kind),
            _ if kind == "string" && !self.choices().is_empty() => true,
            _ => self.options().any(|option| option.takes(kind)),
        }
    }

    /// What a value here may be, where that is one of several types.
    fn options(self) -> impl Iterator<Item = Node> {
        self.0["anyOf"].as_array().into_iter().flatten().map(Node)
    }

    /// Follows a reference, and an `anyOf` with null (an optional section), to what it stands for.
    fn resolved(self) -> Node {
        if let Some(reference) = self.0["$ref"].as_str() {
            let pointer = reference.trim_start_matches('#');
            return job_schema().pointer(pointer).map_or(self, Node);
        }
        let options = self.0["anyOf"].as_array();
        match options.and_then(|o| o.iter().find(|o| o["type"] != "null")) {
            Some(option) => Node(option).resolved(),
            None => self,
        }
    }

    /// The words an enumeration takes.
    fn choices(self) -> Vec<&'static str> {
        let own = self.0["enum"].as_array().into_iter().flatten();
        let constant = self.0.get("const").into_iter();
        let mut words: Vec<_> = own.chain(constant).filter_map(Json::as_str).collect();
        for option in self.0["oneOf"].as_array().into_iter().flatten() {
            words.extend(Node(option).choices());
        }
        words
    }

    fn expected(self) -> String {
        let kinds = [
            ("string", "a string"),
            ("integer", "an integer"),
            ("number", "a number"),
            ("boolean", "true or false"),
            ("array", "an array"),
            ("object", "a table"),
        ];
        let taken = kinds.into_iter().filter(|(kind, _)| self.takes(kind));
        let names: Vec<&str> = taken.map(|(_, name)| name).collect();
        names.join(" or ")
    }
}

/// Compares a job with the schema.
pub fn check(value: &Toml, problems: &mut Vec<Problem>) {
    walk(Node::root(), value, "", problems);
}

fn walk(node: Node, value: &Toml, key: &str, problems: &mut Vec<Problem>) {
    if !fits(node, value) {
        let message = format!("must be {}, not {}", node.expected(), kind(value));
        return problems.push(Problem::new(key, message));
    }
    match value {
        Toml::Table(table) => walk_table(node, table, key, problems),
        Toml::Array(items) => {
            let item = Node(&node.0["items"]).resolved();
            for (i, value) in items.iter().enumerate() {
                walk(item, value, &format!("{key}[{i}]"), problems);
            }
        }
        Toml::Integer(n) if *n < 0 && node.0["minimum"] == 0 => {
            problems.push(Problem::new(key, "must not be negative"));
        }
        Toml::String(word) => {
            let choices = node.choices();
            if !choices.is_empty() && !choices.contains(&word.as_str()) {
                let message = format!("must be one of {}", choices.join(", "));
                problems.push(Problem::new(key, message));
            }
        }
        _ => {}
    }
}

fn walk_table(node: Node, table: &toml::Table, key: &str, problems: &mut Vec<Problem>) {
    for (name, value) in table {
        match node.child(name) {
            Some(child) => walk(child, value, &join(key, name), problems),
            None => problems.push(Problem::new(join(key, name), unknown(node, name))),
        }
    }
    for name in node.0["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if !table.contains_key(name) {
            problems.push(Problem::new(join(key, name), "is missing"));
        }
    }
}

/// Whether a value has a type that the schema allows here.
pub fn fits(node: Node, value: &Toml) -> bool {
    match value {
        Toml::String(_) => node.takes("string"),
        Toml::Integer(_) => node.takes("integer") || node.takes("number"),
        Toml::Float(_) => node.takes("number"),
        Toml::Boolean(_) => node.takes("boolean"),
        Toml::Array(_) => node.takes("array"),
        Toml::Table(_) => node.takes("object"),
        Toml::Datetime(_) => false,
    }
}

fn kind(value: &Toml) -> &'static str {
    match value {
        Toml::String(_) => "a string",
        Toml::Integer(_) => "an integer",
        Toml::Float(_) => "a number",
        Toml::Boolean(_) => "a boolean",
        Toml::Array(_) => "an array",
        Toml::Table(_) => "a table",
        Toml::Datetime(_) => "a date",
    }
}

/// What to say of a key that the table at `node` does not have.
pub fn unknown(node: Node, name: &str) -> String {
    let names = node.names();
    match nearest(name, &names) {
        Some(near) => format!("is not a known key; did you mean `{near}`?"),
        None if names.is_empty() => "is not a known key; its parent is not a table".into(),
        None => format!("is not a known key; known here: {}", names.join(", ")),
    }
}

/// The name most like `name`, if one is like it at all.
pub fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let score = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    names
        .iter()
        .map(|other| (score(other), *other))
        .filter(|(score, _)| *score >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

/// The dotted path of `name` below `key`.
pub fn join(key: &str, name: &str) -> String {
    if key.is_empty() {
        name.to_string()
    } else {
        format!("{key}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::job::spec::ChunkMethod;

    #[test]
    fn every_leaf_of_the_schema_says_what_it_takes() {
        fn descend(node: Node, key: &str) {
            assert!(!node.expected().is_empty(), "{key}: {}", node.0);
            for name in node.names() {
                descend(node.child(name).unwrap(), &join(key, name));
            }
        }
        descend(Node::root(), "");
    }

    #[test]
    fn enumerations_are_read_from_the_schema() {
        let chunk = Node::root().child("chunk").unwrap();
        let method = chunk.child("method").unwrap();
        assert_eq!(
            method.choices(),
            ChunkMethod::value_variants()
                .iter()
                .map(|method| method.name())
                .collect::<Vec<_>>()
        );
    }
}
