//! `${NAME}` and `${NAME:-default}` in a job's strings, replaced after the file is parsed, so that a value can
//! never become syntax. `$${` stands for a literal `${`.

use toml::Value;

use super::Problem;

/// Replaces references in every string below `value`, whose dotted path is `key`.
pub fn substitute(
    value: &mut Value,
    key: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) {
    match value {
        Value::String(text) => match expand(text, lookup) {
            Ok(expanded) => *text = expanded,
            Err(message) => problems.push(Problem::new(key, message)),
        },
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                substitute(item, &format!("{key}[{i}]"), lookup, problems);
            }
        }
        Value::Table(table) => {
            for (name, item) in table.iter_mut() {
                let key = super::keys::join(key, name);
                substitute(item, &key, lookup, problems);
            }
        }
        _ => {}
    }
}

fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let body = &rest[at + 2..];
        let end = body
            .find('}')
            .ok_or("has `${` without `}`; write `$${` for a literal `${`")?;
        out.push_str(&resolve(&body[..end], lookup)?);
        rest = &body[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn resolve(reference: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !is_name(name) {
        return Err(
            "has a `${…}` that is neither `${NAME}` nor `${NAME:-default}`; write `$${` for a literal `${`"
                .into(),
        );
    }
    match (lookup(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_string()),
        (None, None) => Err(format!(
            "needs the environment variable {name}, which is not set; set it or write `${{{name}:-default}}`"
        )),
    }
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/root".into()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOME}".into()),
            _ => None,
        }
    }

    #[test]
    fn references_defaults_and_escapes() {
        for (text, expected) in [
            ("plain $ text }", "plain $ text }"),
            ("${HOME}/x", "/root/x"),
            ("a${HOME}b${HOME}", "a/rootb/root"),
            ("${GONE:-d}", "d"),
            ("${GONE:-}", ""),
            ("${EMPTY:-d}", "d"),
            ("${EMPTY}", ""),
            ("$${HOME}", "${HOME}"),
            ("${NESTED}", "${HOME}"),
            ("é${HOME}é", "é/rooté"),
        ] {
            assert_eq!(expand(text, &vars).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_unset_variable_is_named() {
        let mut value = Value::try_from(vec!["${GONE}"]).unwrap();
        let mut problems = Vec::new();
        substitute(&mut value, "corpus.passthrough", &vars, &mut problems);
        assert_eq!(problems[0].key, "corpus.passthrough[0]");
        assert!(problems[0].message.contains("GONE"));
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in ["${", "${A", "${}", "${1A}", "${A-b}"] {
            assert!(expand(text, &vars).is_err(), "{text}");
        }
    }
}
