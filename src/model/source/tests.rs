use std::{fs, sync::LazyLock};

use candle_core::quantized::GgmlDType;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::model::tiny;

fn embedder_settings(folder: &Path) -> spec::Embedder {
    serde_json::from_value(serde_json::json!({ "model": folder })).unwrap()
}

fn generator_settings(path: &Path) -> spec::Generator {
    serde_json::from_value(serde_json::json!({ "model": path })).unwrap()
}

/// Made once: a property test writes them many times.
static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tiny_embedder();
    fs::read(folder.path().join("model.safetensors")).unwrap()
});
static GGUF: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    tiny::generator(&folder.path().join("tiny.gguf"), GgmlDType::F32);
    fs::read(folder.path().join("tiny.gguf")).unwrap()
});

fn tiny_embedder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny::embedder(folder.path(), "");
    folder
}

fn tiny_generator() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    fs::write(&path, &*GGUF).unwrap();
    (folder, path)
}

/// What is said of a folder with these weights, and of this GGUF file.
fn with_files(weights: &[u8], gguf: &[u8]) -> [Result<ModelIdentity, ModelError>; 2] {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), r#"{"hidden_size": 64}"#).unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let path = folder.path().join("tiny.gguf");
    fs::write(&path, gguf).unwrap();
    [
        embedder(&embedder_settings(folder.path()), true).map(|source| source.identity),
        generator(&generator_settings(&path), true).map(|source| source.identity),
    ]
}

fn refusal(settings: &spec::Embedder) -> String {
    embedder(settings, true).unwrap_err().to_string()
}

#[test]
fn an_embedder_is_its_files() {
    let folder = tiny_embedder();
    let before = embedder(&embedder_settings(folder.path()), true).unwrap();
    assert_eq!(
        (before.dim, before.identity.architecture.as_str()),
        (64, "bert")
    );
    let names: Vec<&str> = before
        .identity
        .files
        .iter()
        .map(|f| f.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    let file = &before.identity.files[1];
    let bytes = fs::read(&file.path).unwrap();
    assert_eq!(file.blake3, blake3::hash(&bytes).to_hex().to_string());
    assert_eq!(file.bytes, bytes.len() as u64);

    fs::write(folder.path().join("modules.json"), "[]").unwrap();
    let after = embedder(&embedder_settings(folder.path()), true).unwrap();
    assert_ne!(
        before.identity, after.identity,
        "how vectors are pooled is part of the model"
    );
}

#[test]
fn a_generator_is_a_file_or_the_only_one_of_a_folder() {
    let (folder, path) = tiny_generator();
    let source = generator(&generator_settings(&path), true).unwrap();
    assert_eq!(source.identity.architecture, "qwen2");
    assert_eq!(
        generator(&generator_settings(folder.path()), true)
            .unwrap()
            .path,
        path
    );

    fs::copy(&path, folder.path().join("other.gguf")).unwrap();
    let mut settings = generator_settings(folder.path());
    let message = generator(&settings, true).unwrap_err().to_string();
    assert!(message.contains("models.generator.file"), "{message}");
    settings.file = Some("other.gguf".into());
    assert!(
        generator(&settings, true)
            .unwrap()
            .path
            .ends_with("other.gguf")
    );
}

#[test]
fn folders_that_are_no_embedder_say_why() {
    let folder = tiny_embedder();
    let weights = folder.path().join("model.safetensors");
    fs::rename(&weights, folder.path().join("pytorch_model.bin")).unwrap();
    let message = refusal(&embedder_settings(folder.path()));
    assert!(
        message.contains("model.safetensors") && message.contains("convert it"),
        "{message}"
    );

    fs::write(&weights, "").unwrap();
    assert!(refusal(&embedder_settings(folder.path())).contains("is empty"));
    let message = refusal(&embedder_settings(&folder.path().join("config.json")));
    assert!(
        message.contains("config.json: an embedder or cross-encoder is a folder"),
        "{message}"
    );
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(refusal(&embedder_settings(folder.path())).contains("tokenizer.json: is missing"));
}

#[test]
fn hub_ids_need_a_commit() {
    let mut settings = embedder_settings(Path::new("acme/no-such-folder"));
    for revision in [None, Some("main"), Some("c9745ed")] {
        settings.revision = revision.map(str::to_owned);
        let message = refusal(&settings);
        assert!(message.contains("commit hash"), "{message}");
        assert!(
            message.contains(revision.unwrap_or("it has none")),
            "{message}"
        );
    }
    for path in ["/no/such", "./acme/model", "no-such", "acme/model.gguf"] {
        assert!(refusal(&embedder_settings(Path::new(path))).contains("no such file or folder"));
    }
}

#[test]
fn files_that_are_longer_or_shorter_than_their_header_says() {
    let folder = tiny_embedder();
    let weights = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    bytes.push(0);
    fs::write(&weights, &bytes).unwrap();
    let message = refusal(&embedder_settings(folder.path()));
    assert!(
        message.contains(&format!("has {} bytes", bytes.len())),
        "{message}"
    );

    let mut html = b"<!DOCTYPE html><title>not found</title>".to_vec();
    html.resize(4096, b' ');
    fs::write(&weights, &html).unwrap();
    assert!(refusal(&embedder_settings(folder.path())).contains("no safetensors file"));

    let (_folder, path) = tiny_generator();
    fs::write(&path, &html).unwrap();
    let message = generator(&generator_settings(&path), true)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("tiny.gguf") && message.contains("no GGUF file"),
        "{message}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_truncation_is_noticed(share in 0.0..1.0f64) {
        // GGUF pads its end by up to 31 bytes.
        let part = |bytes: &[u8]| bytes[..(share * (bytes.len() - 31) as f64) as usize].to_vec();
        let said = with_files(&part(&WEIGHTS), &part(&GGUF));
        prop_assert!(said.iter().all(Result::is_err), "{said:?}");
    }

    #[test]
    fn a_corrupt_header_is_an_error_and_no_panic(at in 0usize..6000, byte: u8) {
        let corrupt = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes[at] = byte;
            bytes
        };
        let _ = with_files(&corrupt(&WEIGHTS), &corrupt(&GGUF));
    }
}

#[test]
fn whole_files_are_taken() {
    assert!(with_files(&WEIGHTS, &GGUF).iter().all(Result::is_ok));
}
