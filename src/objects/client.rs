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
const VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// Those that hold the path of a file with a secret.
const PATHS: [&str; 5] = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
];

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
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
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
        let variables = variables();
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
        };
        clients.insert(bucket.to_owned(), client.clone());
        Ok(client)
    }

    /// Tries again while it may be the network or the server, if it has ever answered.
    pub async fn patiently<T, F: Future<Output = Result<T, ObjectError>>>(
        &self,
        mut work: impl FnMut() -> F,
    ) -> Result<T, ObjectError> {
        let begun = Instant::now();
        loop {
            let result = work().await;
            if result.is_ok() {
                self.has_answered.store(true, Ordering::Relaxed);
            }
            match result {
                Err(error)
                    if error.may_pass
                        && begun.elapsed() < PATIENCE
                        && self.has_answered.load(Ordering::Relaxed) =>
                {
                    tracing::warn!("{error}; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }
}

/// One that is empty is not set.
fn variables() -> Vec<(String, String)> {
    let is_wanted = |name: &str| VARIABLES.iter().any(|v| name.starts_with(v));
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| is_wanted(name) && !value.trim().is_empty())
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
