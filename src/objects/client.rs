//! The client of a bucket, made from the variables of the services' own tools; and how patient it is.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use object_store::{ObjectStore, parse_url_opts};
use url::Url;

use super::ObjectError;

/// How long a request may take: one that carries a part of a file over a slow line takes long.
const REQUEST: &str = "300 seconds";

/// How long a request is tried again beyond what `object_store` does: its ten times may be over in seconds.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_secs(2);

/// What the variables of the services' tools begin with.
const VARIABLES: [(&str, &str); 3] = [("s3", "AWS_"), ("gs", "GOOGLE_"), ("az", "AZURE_")];

/// Those that hold the path of a file with a secret.
const PATHS: [&str; 5] = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
];

/// The one that may hold several lines.
const KEY: &str = "GOOGLE_SERVICE_ACCOUNT_KEY";

/// Those that hold the address of a server.
const SERVERS: [&str; 6] = [
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "GOOGLE_BASE_URL",
    "AZURE_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
];

#[derive(Clone)]
pub struct Client {
    pub store: Arc<dyn ObjectStore>,
    /// Whether a request has succeeded: then the address and the credentials are right, and a failure may pass.
    has_answered: Arc<AtomicBool>,
    pub is_patient: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A store shows its keys.
        f.write_str("a client")
    }
}

impl Client {
    /// Of a bucket such as `s3://name`. There is one, whoever asks: it keeps connections.
    pub fn of(bucket: &str) -> Result<Self, ObjectError> {
        static CLIENTS: Mutex<Option<HashMap<String, Client>>> = Mutex::new(None);
        let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
        let clients = clients.get_or_insert_default();
        if let Some(client) = clients.get(bucket) {
            return Ok(client.clone());
        }
        let url = Url::parse(bucket).map_err(|e| ObjectError::told(bucket, e.to_string()))?;
        let variables = variables(url.scheme());
        for (name, value) in &variables {
            check(name, value).map_err(|wrong| ObjectError::told(bucket, wrong))?;
        }
        let patient = ("timeout".to_owned(), REQUEST.to_owned());
        let options = std::iter::once(patient).chain(variables.clone());
        let made = parse_url_opts(&url, options);
        let (store, _) = made.map_err(|e| ObjectError::of_client(bucket, &e, &variables))?;
        let client = Self {
            store: store.into(),
            has_answered: Arc::default(),
            is_patient: true,
        };
        clients.insert(bucket.to_owned(), client.clone());
        Ok(client)
    }

    /// Tries again while it may be the network or the server, if it has ever answered.
    pub async fn patiently<T, F: Future<Output = Result<T, ObjectError>>>(
        &self,
        mut work: impl FnMut() -> F,
    ) -> Result<T, ObjectError> {
        let mut first_failure = None;
        loop {
            let result = work().await;
            if result.is_ok() {
                self.has_answered.store(true, Ordering::Relaxed);
            }
            match result {
                Err(error) if error.may_pass && self.waits_since(&mut first_failure) => {
                    tracing::warn!("{}: {}; trying again", error.address, error.message);
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    fn waits_since(&self, first_failure: &mut Option<Instant>) -> bool {
        let since = first_failure.get_or_insert_with(Instant::now);
        self.is_patient && self.has_answered.load(Ordering::Relaxed) && since.elapsed() < PATIENCE
    }
}

/// Those of the service that addresses with this scheme are of. One that is empty is not set; the end of a line behind it, as of a
/// file with a secret, is none of it.
fn variables(scheme: &str) -> Vec<(String, String)> {
    let own = VARIABLES.iter().filter(|(own, _)| *own == scheme);
    let own: Vec<&str> = own.map(|(_, prefix)| *prefix).collect();
    let is_wanted = |name: &str| own.iter().any(|prefix| name.starts_with(prefix));
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .map(|(name, value)| (name, value.trim().to_owned()))
        .filter(|(name, value)| is_wanted(name) && !value.is_empty())
        .collect()
}

/// Says what is wrong with a variable that `object_store` would repeat in its message, or panic at.
fn check(name: &str, value: &str) -> Result<(), String> {
    if PATHS.contains(&name) && value.contains(['{', '\n', '"']) {
        let key = match name.starts_with("GOOGLE_") {
            true => "; a key itself goes into GOOGLE_SERVICE_ACCOUNT_KEY",
            false => "",
        };
        return Err(format!(
            "the variable {name} must be the path of a file, and is not{key}"
        ));
    }
    if name != KEY && value.contains(char::is_control) {
        return Err(format!("the variable {name} holds a control character"));
    }
    if SERVERS.contains(&name) {
        let url = Url::parse(value).ok();
        let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let url = url.ok_or_else(|| {
            format!("the variable {name} must be an address such as https://host:port, and is not")
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!(
                "the variable {name} holds a user or password; credentials have variables of their own"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_variable_is_said_without_it() {
        let wrong = [
            (
                "GOOGLE_APPLICATION_CREDENTIALS",
                "{\"client_secret\": \"SECRET\"}",
            ),
            ("GOOGLE_SERVICE_ACCOUNT", "-----BEGIN\nSECRET"),
            ("GOOGLE_BASE_URL", "SECRET:8000"),
            ("AWS_ENDPOINT_URL", "http://SECRET:SECRET@host"),
            ("AWS_SESSION_TOKEN", "SECRET\nSECRET"),
        ];
        for (name, value) in wrong {
            let said = check(name, value).unwrap_err();
            assert!(said.contains(name) && !said.contains("SECRET"), "{said}");
        }
        for (name, value) in [
            ("GOOGLE_SERVICE_ACCOUNT", "/etc/key.json"),
            (
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                "{\"private_key\": \"-----\\n\"}",
            ),
            ("AZURE_STORAGE_ENDPOINT", "https://a.blob.core.windows.net"),
        ] {
            assert_eq!(check(name, value), Ok(()));
        }
    }
}
