//! What went wrong on object storage, without secrets.

use std::error::Error;

/// Longest message of a server that is shown, in characters.
const LONGEST: usize = 400;

/// A variable's value of so many characters may be a secret.
const SECRET: usize = 8;

/// Servers that are asked for a machine's role where nothing else is known.
const METADATA: [&str; 2] = ["169.254.169.254", "metadata.google.internal"];

/// Answers that no storage gives.
const MISUNDERSTOOD: [&str; 2] = ["Got invalid list response", "ill-formed document"];

/// Said of an address without TLS.
const PLAIN: &str = "URL scheme is not allowed";

/// A status of 400 that is no refusal: the bytes came too slowly.
const SLOW: &str = "RequestTimeout";

/// A request that failed for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {message}{}", remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default())]
pub struct ObjectError {
    pub address: String,
    pub message: String,
    remedy: Option<String>,
    /// It may have been the network or the server.
    pub may_pass: bool,
    /// The server says that there is no such thing.
    pub is_absence: bool,
}

/// What is to be looked at where something is wrong on a service.
struct Service {
    credentials: &'static str,
    server: &'static str,
    plain: &'static str,
}

impl Service {
    fn of(address: &str) -> Self {
        match address.split_once("://") {
            Some(("gs", _)) => Self {
                credentials: "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, the path of a key file",
                server: "GOOGLE_BASE_URL",
                plain: "GOOGLE_ALLOW_HTTP",
            },
            Some(("az", _)) => Self {
                credentials: "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
                server: "AZURE_STORAGE_ENDPOINT",
                plain: "AZURE_ALLOW_HTTP",
            },
            _ => Self {
                credentials: "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
                server: "AWS_ENDPOINT_URL",
                plain: "AWS_ALLOW_HTTP",
            },
        }
    }
}

/// What a failure is, as far as somebody can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Absence,
    /// Nothing gives this machine credentials.
    Stranger,
    Refusal,
    Change,
    /// Of the network or the server; it may pass.
    Failure,
    /// The server does not know how, or is none of this service.
    Inability,
    /// The server is without TLS, which nobody has allowed.
    Plain,
    Other,
}

impl Kind {
    /// Some clients do not say of every answer what it was: then the message has its status.
    fn of(error: &object_store::Error, text: &str) -> Self {
        use object_store::Error as Fault;
        if METADATA.iter().any(|server| text.contains(server)) {
            return Kind::Stranger;
        }
        match error {
            Fault::NotFound { .. } => Kind::Absence,
            Fault::PermissionDenied { .. } | Fault::Unauthenticated { .. } => Kind::Refusal,
            Fault::Precondition { .. } => Kind::Change,
            Fault::Generic { .. } => match status(text) {
                Some(404) => Kind::Absence,
                Some(400 | 401 | 403) if !text.contains(SLOW) => Kind::Refusal,
                Some(501) => Kind::Inability,
                _ if MISUNDERSTOOD.iter().any(|words| text.contains(words)) => Kind::Inability,
                _ if text.contains(PLAIN) => Kind::Plain,
                _ => Kind::Failure,
            },
            _ => Kind::Other,
        }
    }
}

impl ObjectError {
    pub fn new(address: &str, error: &object_store::Error) -> Self {
        let Service {
            credentials,
            server,
            plain,
        } = Service::of(address);
        let text = shown(&whole(error));
        let kind = Kind::of(error, &text);
        let remedy = match kind {
            Kind::Absence => {
                format!("check the name of the bucket and the path, and {server} where it is set")
            }
            Kind::Stranger => format!("set {credentials}"),
            Kind::Refusal => {
                format!("check {credentials} in the environment, and what they may do there")
            }
            Kind::Change => "run the command again".to_owned(),
            Kind::Failure => format!(
                "check the network, {credentials}, and {server} where it is set; run again, a build continues where it stopped"
            ),
            Kind::Inability => {
                format!("check {server}: what answers there is no storage, or not of this service")
            }
            Kind::Plain => format!(
                "set {plain}=true for a server without TLS, at an address that begins with http://"
            ),
            Kind::Other => String::new(),
        };
        let message = match kind {
            Kind::Absence => "not there".to_owned(),
            Kind::Stranger => {
                "there are no credentials in the environment, and this machine's role gave none"
                    .to_owned()
            }
            Kind::Change => "changed while it was being read".to_owned(),
            _ => text,
        };
        Self {
            address: address.to_owned(),
            message,
            remedy: Some(remedy).filter(|remedy| !remedy.is_empty()),
            // A machine with a role may get no answer for a while.
            may_pass: matches!(kind, Kind::Failure | Kind::Stranger),
            is_absence: kind == Kind::Absence,
        }
    }

    /// That a client cannot be made from variables of the environment. What it says of a key may be the key.
    pub fn of_client(
        address: &str,
        error: &object_store::Error,
        variables: &[(String, String)],
    ) -> Self {
        let Service { credentials, .. } = Service::of(address);
        let mut text = whole(error);
        let mut secrets: Vec<_> = variables.iter().filter(|v| v.1.len() >= SECRET).collect();
        // One may be the beginning of another.
        secrets.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        for (name, value) in secrets {
            text = text.replace(value, &format!("${name}"));
        }
        let speaks_of_keys = ["decode", "pem file", "illegal section", "RSA key"]
            .iter()
            .any(|words| text.contains(words));
        let message = match speaks_of_keys {
            true => "a key in the environment, or in the file that it names, is none that the service gives out".to_owned(),
            false => shown(&text),
        };
        Self {
            remedy: Some(format!(
                "check the service's variables in the environment: {credentials}, and those that begin like them"
            )),
            ..Self::told(address, message)
        }
    }

    /// What no server said.
    pub fn told(address: &str, message: impl Into<String>) -> Self {
        Self {
            address: address.to_owned(),
            message: message.into(),
            remedy: None,
            may_pass: false,
            is_absence: false,
        }
    }
}

/// An error and its causes: the innermost says the most, but some say nothing alone.
fn whole(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// Queries of addresses may be signatures, and a server's answer may repeat a token.
fn shown(text: &str) -> String {
    let text = without_answer(text);
    let words = text
        .split_whitespace()
        .map(|word| match word.split_once('?') {
            Some((address, _)) if address.contains("://") => address,
            _ => word,
        })
        .map(without_user);
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// An address without a name and a password.
fn without_user(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => word.to_owned(),
    }
}

/// The status that a server answered with, where the message tells it.
fn status(text: &str) -> Option<u16> {
    let (_, behind) = text.split_once("status code: ")?;
    behind.get(..3)?.parse().ok()
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
                      <Message>The token has expired.</Message><Token-0>HIDDEN</Token-0></Error>";
        let error = object_store::Error::Generic {
            store: "S3",
            source: source.into(),
        };
        let shown = ObjectError::new("s3://b/x", &error).to_string();
        let told = "ExpiredToken The token has expired.";
        assert!(!shown.contains("HIDDEN") && shown.contains(told), "{shown}");
    }

    #[test]
    fn keys_in_the_environment_are_not_shown() {
        let of = |text: &str| object_store::Error::Generic {
            store: "GCS",
            source: text.to_owned().into(),
        };
        let variables = [(
            "GOOGLE_SERVICE_ACCOUNT".to_owned(),
            "SECRET-PATH".to_owned(),
        )];
        for (text, told) in [
            (
                "Unable to open service account file from SECRET-PATH: gone",
                "$GOOGLE_SERVICE_ACCOUNT: gone",
            ),
            (
                "Unable to decode service account file: invalid type: string \"SECRET\"",
                "none that the service gives out",
            ),
            (
                "Error reading pem file: illegal section start: [83, 69]",
                "none that the service gives out",
            ),
        ] {
            let said = ObjectError::of_client("gs://b", &of(text), &variables).to_string();
            assert!(
                said.contains(told) && said.contains("variables in the environment: GOOGLE_"),
                "{said}"
            );
            let is_secret = ["SECRET-PATH", "\"SECRET", "[83"]
                .iter()
                .any(|s| said.contains(s));
            assert!(!is_secret, "{said}");
        }
        let said =
            ObjectError::new("gs://b", &of("GET http://me:SECRET@host/b failed")).to_string();
        assert!(!said.contains("SECRET"), "{said}");
    }

    /// Google's client says so of every answer to a listing.
    #[test]
    fn answers_that_stay_are_told_from_those_that_pass() {
        let of = |text: &str| {
            let error = object_store::Error::Generic {
                store: "GCS",
                source: text.to_owned().into(),
            };
            ObjectError::new("gs://b/x", &error)
        };
        let of_status =
            |status: &str| of(&format!("Server returned non-2xx status code: {status}: "));
        assert!(of_status("404 Not Found").is_absence);
        for (text, passes) in [
            ("404 Not Found", false),
            ("401 Unauthorized", false),
            ("503 Busy", true),
        ] {
            assert_eq!(of_status(text).may_pass, passes, "{text}");
        }
        assert!(of_status("400 Bad Request <Code>RequestTimeout</Code>").may_pass);
        assert!(of("connection refused").may_pass);
        for answer in [
            "failed",
            "Server returned non-2xx status code: 404 Not Found: ",
        ] {
            let none = of(&format!("GET http://169.254.169.254/latest/ {answer}"));
            assert!(
                !none.is_absence && none.to_string().contains("no credentials"),
                "{none}"
            );
        }
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
