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
                told(error),
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
                told(error),
                Some(
                    "check the credentials, AWS_REGION or AWS_ENDPOINT_URL in the environment; run again, a build continues where it \
                     stopped",
                ),
            ),
            _ => (told(error), None),
        };
        Self {
            address: address.to_owned(),
            message,
            remedy,
        }
    }

    /// An address that cannot be one.
    pub fn address(address: &str, message: &str) -> Self {
        Self::told(address, message.to_owned())
    }

    pub fn told(address: &str, message: String) -> Self {
        Self {
            address: address.to_owned(),
            message,
            remedy: None,
        }
    }
}

/// The innermost cause says the most, but some say nothing alone; queries of addresses may be signatures.
fn told(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
