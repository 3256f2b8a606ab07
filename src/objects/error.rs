//! What went wrong on object storage, without secrets.

use std::error::Error;

/// Longest message of a server that is shown, in characters.
const LONGEST: usize = 400;

/// A request that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {message}{}", remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default())]
pub struct ObjectError {
    pub address: String,
    pub message: String,
    remedy: Option<&'static str>,
    /// It may have been the network or the server.
    pub may_pass: bool,
}

impl ObjectError {
    pub fn new(address: &str, error: &object_store::Error) -> Self {
        use object_store::Error as Fault;
        let (message, remedy) = match error {
            Fault::NotFound { .. } => (
                "not there".to_owned(),
                Some(
                    "check the name of the bucket and the path, and AWS_ENDPOINT_URL where it is not Amazon's",
                ),
            ),
            Fault::PermissionDenied { .. } | Fault::Unauthenticated { .. } => (
                shown(error),
                Some(
                    "check the credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
                     GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and its key) and what they may do there",
                ),
            ),
            Fault::Precondition { .. } => (
                "changed while it was being read".to_owned(),
                Some("run the command again"),
            ),
            Fault::Generic { .. } => (
                shown(error),
                Some(
                    "check the credentials, AWS_REGION or AWS_ENDPOINT_URL in the environment; run again, a build continues where it \
                     stopped",
                ),
            ),
            _ => (shown(error), None),
        };
        Self {
            address: address.to_owned(),
            message,
            remedy,
            may_pass: matches!(error, Fault::Generic { .. }),
        }
    }

    /// What no server said.
    pub fn told(address: &str, message: impl Into<String>) -> Self {
        Self {
            address: address.to_owned(),
            message: message.into(),
            remedy: None,
            may_pass: false,
        }
    }
}

/// The innermost cause says the most, but some say nothing alone. Queries of addresses may be signatures, and a server's answer may
/// repeat a token.
fn shown(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    let text = without_answer(&text);
    let words = text
        .split_whitespace()
        .map(|word| match word.split_once('?') {
            Some((address, _)) if address.contains("://") => address,
            _ => word,
        });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Of an XML answer only its code and its message.
fn without_answer(text: &str) -> String {
    let Some(start) = text.find("<?xml").or_else(|| text.find("<Error>")) else {
        return text.to_owned();
    };
    let of = |tag: &str| {
        let (_, from) = text.split_once(&format!("<{tag}>"))?;
        Some(from.split_once('<')?.0)
    };
    let parts = [Some(&text[..start]), of("Code"), of("Message")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_answers_are_not_shown() {
        let source = "status 400 Bad Request: <?xml version=\"1.0\"?><Error><Code>ExpiredToken</Code>\
                      <Message>The token has expired.</Message><Token-0>SECRET</Token-0></Error>";
        let error = object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        };
        let shown = ObjectError::new("s3://b/x", &error).to_string();
        let told = "ExpiredToken The token has expired.";
        assert!(!shown.contains("SECRET") && shown.contains(told), "{shown}");
    }

    #[test]
    fn signatures_in_addresses_are_not_shown() {
        let source = "Error performing GET https://a.blob.core.windows.net/c/x?sv=2&sig=SECRET in 3s\n  after 10 retries";
        let error = object_store::Error::Generic {
            store: "MicrosoftAzure",
            source: source.into(),
        };
        let shown = ObjectError::new("az://c/x", &error).to_string();
        assert!(
            !shown.contains("SECRET") && shown.contains("windows.net/c/x in 3s after"),
            "{shown}"
        );
    }
}
