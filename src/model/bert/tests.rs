use std::path::PathBuf;

use candle_core::{DType, Tensor};
use tempfile::TempDir;

use super::*;
use crate::job::spec::{Pooling, Precision};
use crate::model::tiny;

fn settings() -> spec::Embedder {
    toml::from_str("model = 'tiny'").unwrap()
}

fn load_with(folder: &Path, settings: &spec::Embedder) -> Result<BertEmbedder, ModelError> {
    let identity = ModelIdentity {
        name: "tiny".into(),
        architecture: "bert".into(),
        files: vec![],
    };
    BertEmbedder::load(folder, identity, settings, &Device::Cpu)
}

fn load(folder: &Path) -> BertEmbedder {
    load_with(folder, &settings()).unwrap()
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    tiny::embedder(folder.path(), "");
    folder
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| x as f64 * y as f64)
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn texts() -> Vec<String> {
    (0..40)
        .map(|i| "what is the water system of a city? ".repeat(i % 7) + &i.to_string())
        .collect()
}

#[test]
fn a_vector_does_not_depend_on_its_batch() {
    let folder = folder();
    let embedder = load_with(
        folder.path(),
        &spec::Embedder {
            batch_tokens: Some(300),
            ..settings()
        },
    )
    .unwrap();
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let all = embedder.embed(&texts, TextKind::Document).unwrap();
    assert_eq!(all.vectors.rows(), texts.len());
    for (i, text) in texts.iter().enumerate() {
        let alone = embedder.embed(&[text], TextKind::Document).unwrap();
        assert_eq!(all.vectors.row(i), alone.vectors.row(0), "text {i}");
    }
    assert!(
        cosine(all.vectors.row(1), all.vectors.row(2)) < 0.99,
        "different texts should differ"
    );
}

#[test]
fn vectors_have_length_one_unless_the_job_says_otherwise() {
    let folder = folder();
    let length = |e: &BertEmbedder| {
        let v = e.embed(&["water"], TextKind::Query).unwrap().vectors;
        v.values.iter().map(|x| x * x).sum::<f32>().sqrt()
    };
    assert!((length(&load(folder.path())) - 1.0).abs() < 1e-6);
    let raw = load_with(
        folder.path(),
        &spec::Embedder {
            normalize: Some(false),
            ..settings()
        },
    )
    .unwrap();
    assert!((length(&raw) - 1.0).abs() > 0.1);
}

#[test]
fn names_may_start_with_bert() {
    let (plain, prefixed) = (folder(), TempDir::new().unwrap());
    tiny::embedder(prefixed.path(), "bert.");
    let embed = |folder: &TempDir| {
        load(folder.path())
            .embed(&["a law"], TextKind::Query)
            .unwrap()
            .vectors
    };
    assert_eq!(embed(&plain), embed(&prefixed));
}

#[test]
fn long_texts_are_cut_and_counted() {
    let folder = folder();
    let embedder = load(folder.path());
    assert_eq!(embedder.max_text_tokens(), 126);
    let (fits, long) = (
        "water ".repeat(126),
        "water ".repeat(126) + "cell cell cell",
    );
    let out = embedder
        .embed(&[&long, &fits, ""], TextKind::Document)
        .unwrap();
    assert_eq!(out.truncated, [3, 0, 0]);
    assert_eq!(out.tokens, [128, 128, 2]);
    assert!(cosine(out.vectors.row(0), out.vectors.row(1)) > 0.999999);
    assert_eq!(embedder.token_offsets(&long).unwrap().len(), 129);
    assert_eq!(
        embedder.token_offsets("Water, law").unwrap(),
        [(0, 5), (5, 6), (7, 10)]
    );
}

#[test]
fn the_models_own_files_set_pooling_prefixes_and_limits() {
    let folder = folder();
    let path = folder.path();
    let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
    std::fs::create_dir(path.join("1_Pooling")).unwrap();
    write(
        "1_Pooling/config.json",
        r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#,
    );
    write(
        "modules.json",
        r#"[{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"}]"#,
    );
    write("sentence_bert_config.json", r#"{"max_seq_length": 10}"#);
    write(
        "config_sentence_transformers.json",
        r#"{"prompts": {"query": "why: ", "document": "the: "}}"#,
    );
    let embedder = load(path);
    assert_eq!(embedder.options.pooling, Pooling::Cls);
    assert!(!embedder.options.normalize);
    assert_eq!(embedder.max_text_tokens(), 10 - 4);
    let query = embedder.embed(&["law"], TextKind::Query).unwrap().vectors;
    let document = embedder
        .embed(&["law"], TextKind::Document)
        .unwrap()
        .vectors;
    assert_ne!(query, document);
    let job = spec::Embedder {
        pooling: Some(Pooling::Mean),
        normalize: Some(true),
        query_prefix: Some(String::new()),
        document_prefix: Some(String::new()),
        max_tokens: Some(20),
        ..settings()
    };
    let overridden = load_with(path, &job).unwrap();
    assert_eq!(overridden.max_text_tokens(), 18);
    let plain = load(self::folder().path());
    let embed = |e: &BertEmbedder, kind| e.embed(&["law"], kind).unwrap().vectors;
    assert_eq!(
        embed(&overridden, TextKind::Query),
        embed(&plain, TextKind::Document)
    );
}

fn refusal(change: impl FnOnce(&Path)) -> String {
    let folder = folder();
    change(folder.path());
    load_with(folder.path(), &settings())
        .err()
        .unwrap()
        .to_string()
}

fn rewrite(file: PathBuf, from: &str, to: &str) {
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from));
    std::fs::write(file, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn broken_folders_are_refused_with_file_and_key() {
    let config = |from: &'static str, to: &'static str| {
        refusal(|p| rewrite(p.join("config.json"), from, to))
    };
    assert!(config("\"bert\"", "\"roberta\"").contains("config.json: model_type is roberta"));
    assert!(
        config("\"num_hidden_layers\":2", "\"num_hidden_layers\":3").contains("encoder.layer.2")
    );
    assert!(config("\"intermediate_size\":128,", "").contains("intermediate_size"));
    assert!(config("\"hidden_act\":\"gelu\"", "\"hidden_act\":\"swish\"").contains("swish"));
    assert!(config("\"hidden_size\":64", "\"hidden_size\":32").contains("but config.json says"));
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let message = refusal(|p| std::fs::remove_file(p.join(name)).unwrap());
        assert!(message.contains(&format!("{name}: not found")), "{message}");
        let message = refusal(|p| {
            let bytes = std::fs::read(p.join(name)).unwrap();
            std::fs::write(p.join(name), &bytes[..bytes.len() / 2]).unwrap();
        });
        assert!(
            message.contains(name) && message.contains("fetch"),
            "{message}"
        );
    }
}

#[test]
fn a_vector_that_is_not_finite_names_its_text() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let words = tensors
        .get_mut("embeddings.word_embeddings.weight")
        .unwrap();
    let mut rows = words.to_vec2::<f32>().unwrap();
    let id = load(folder.path())
        .reader
        .tokenizer
        .token_to_id("law")
        .unwrap();
    rows[id as usize][0] = f32::NAN;
    *words = Tensor::new(rows, &Device::Cpu).unwrap();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let message = load(folder.path())
        .embed(&["water", "city", "the law"], TextKind::Document)
        .unwrap_err()
        .to_string();
    assert!(message.contains("text 2 of 3 is not finite"), "{message}");
}

#[test]
fn minilm_matches_its_reference() {
    #[derive(serde::Deserialize)]
    struct Golden {
        texts: Vec<String>,
        vectors: Vec<Vec<f32>>,
    }
    let folder = std::env::var("INTENDEX_MODELS")
        .map(|root| PathBuf::from(root).join("minilm"))
        .unwrap_or_default();
    if !folder.is_dir() {
        return crate::skipped("INTENDEX_MODELS names no folder with minilm/");
    }
    let golden: Golden =
        serde_json::from_str(include_str!("../../../tests/data/minilm_golden.json")).unwrap();
    let texts: Vec<&str> = golden.texts.iter().map(String::as_str).collect();
    let settings = spec::Embedder {
        max_tokens: Some(512),
        ..settings()
    };
    let embedder = load_with(&folder, &settings).unwrap();
    let out = embedder.embed(&texts, TextKind::Document).unwrap();
    assert_eq!(out.truncated, [0, 0, 0, 0, 210]);
    for (i, expected) in golden.vectors.iter().enumerate() {
        let cosine = cosine(out.vectors.row(i), expected);
        assert!(cosine > 0.99999, "text {i}: {cosine}");
    }
}

#[test]
fn a_real_models_vectors_have_the_same_bits_in_any_batch() {
    let folder = std::env::var("INTENDEX_MODELS").map(|models| Path::new(&models).join("minilm"));
    let Some(folder) = folder.ok().filter(|folder| folder.is_dir()) else {
        return crate::skipped("INTENDEX_MODELS names no folder with minilm");
    };
    let embedder = load(&folder);
    let texts: Vec<&str> = [
        "",
        "x",
        "two words",
        "what does the water system cost in the dry season?",
    ]
    .into_iter()
    .cycle()
    .take(40)
    .collect();
    let all = embedder.embed(&texts, TextKind::Query).unwrap();
    for n in [1, 2, 3, 17] {
        for (g, group) in texts.chunks(n).enumerate() {
            let part = embedder.embed(group, TextKind::Query).unwrap();
            for i in 0..group.len() {
                assert_eq!(
                    part.vectors.row(i),
                    all.vectors.row(g * n + i),
                    "groups of {n}"
                );
            }
        }
    }
}

/// What numpy computes of the same sequences (`tests/bert_reference.py`).
#[derive(serde::Deserialize)]
struct Reference {
    means: Vec<Vec<f32>>,
    #[serde(default)]
    terms: Vec<std::collections::BTreeMap<u32, f32>>,
    #[serde(default)]
    scores: Vec<f32>,
}

fn reference(folder: &Path, inputs: &[Input]) -> Option<Reference> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let Ok(python) = std::env::var("INTENDEX_PEERS_PYTHON") else {
        crate::skipped("INTENDEX_PEERS_PYTHON names no Python with numpy");
        return None;
    };
    let mut child = Command::new(python)
        .arg("tests/bert_reference.py")
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sequences: Vec<_> = inputs.iter().map(Input::sequence).collect();
    let sequences = sequences
        .iter()
        .map(|s| serde_json::json!({ "ids": s.ids, "second": s.second }));
    let request = serde_json::Value::from_iter(sequences);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(request.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn identity() -> ModelIdentity {
    ModelIdentity {
        name: "tiny".into(),
        architecture: "bert".into(),
        files: vec![],
    }
}

fn are_close(a: &[f32], b: &[f32], most: f32) {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    let apart = apart.fold(0.0, f32::max);
    assert!(apart < most, "{apart} apart");
}

/// Vectors by the CPU's pass and by tensors, as other devices compute them, against numpy.
fn embedder_is_its_reference(folder: &Path) {
    let job = spec::Embedder {
        normalize: Some(false),
        ..settings()
    };
    let embedder = load_with(folder, &job).unwrap();
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let inputs = embedder.inputs(&texts, TextKind::Document).unwrap();
    let Some(reference) = reference(folder, &inputs) else {
        return;
    };
    let cpu = embedder.embed(&texts, TextKind::Document).unwrap().vectors;
    let sequences: Vec<_> = inputs.iter().map(Input::sequence).collect();
    let output = embedder.encoder.by_tensors(&sequences).unwrap();
    let tensors = encoder::pool_by_tensors(&output, &sequences, Pooling::Mean).unwrap();
    let expected = reference.means.concat();
    are_close(&cpu.values, &expected, 2e-5);
    are_close(&tensors, &expected, 2e-5);
    let first = encoder::pool_by_tensors(&output, &sequences, Pooling::Cls).unwrap();
    are_close(
        &first,
        &cpu::pool(&output, &sequences, Pooling::Cls).unwrap(),
        1e-6,
    );
}

#[test]
fn bert_is_its_reference() {
    embedder_is_its_reference(folder().path());
}

#[test]
fn nomic_bert_is_its_reference() {
    let folder = folder();
    tiny::nomic(folder.path());
    embedder_is_its_reference(folder.path());
    let config = folder.path().join("config.json");
    rewrite(config, "\"swiglu\"", "\"gelu\"");
    let message = load_with(folder.path(), &settings()).err().unwrap();
    let message = message.to_string();
    assert!(
        message.contains("activation_function = \"gelu\""),
        "{message}"
    );
}

#[test]
fn half_precision_by_tensors_is_near() {
    let folder = folder();
    let embedder = load(folder.path());
    let inputs = embedder
        .inputs(&["what is the law of a city?", "water"], TextKind::Query)
        .unwrap();
    let sequences: Vec<_> = inputs.iter().map(Input::sequence).collect();
    let vectors = |dtype| {
        let config = Config::read(folder.path()).unwrap();
        let mut weights = Weights::in_dtype(folder.path(), dtype);
        let encoder = Encoder::load(&mut weights, &config, &Device::Cpu).unwrap();
        let output = encoder.by_tensors(&sequences).unwrap();
        assert_eq!(output.dtype(), DType::F32);
        encoder::pool_by_tensors(&output, &sequences, Pooling::Mean).unwrap()
    };
    let full = vectors(DType::F32);
    for (dtype, least) in [(DType::F16, 0.99999), (DType::BF16, 0.999)] {
        let half = vectors(dtype);
        for (a, b) in full.chunks(embedder.dim).zip(half.chunks(embedder.dim)) {
            assert!(cosine(a, b) > least, "{dtype:?}: {}", cosine(a, b));
        }
    }
}

#[test]
fn sparse_weights_are_their_reference_and_do_not_depend_on_the_batch() {
    let folder = folder();
    tiny::heads(folder.path());
    let weigher = TermWeigher::load(folder.path(), identity(), &Device::Cpu).unwrap();
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    weights_are_their_reference(folder.path(), &weigher, &texts, 1e-5);
    let all = weigher.weigh(&texts).unwrap();
    for (text, terms) in texts.iter().zip(&all) {
        assert_eq!(weigher.weigh(&[text]).unwrap()[0], *terms);
    }
    let long = weigher.weigh(&["water ".repeat(200).as_str()]).unwrap();
    assert_eq!((long[0].tokens, long[0].truncated), (128, 74));

    let plain = self::folder();
    let error = TermWeigher::load(plain.path(), identity(), &Device::Cpu);
    let message = error.err().unwrap().to_string();
    assert!(message.contains("masked-language-model head"), "{message}");
}

fn weights_are_their_reference(folder: &Path, weigher: &TermWeigher, texts: &[&str], most: f32) {
    let reader = Reader::open(folder, &Config::read(folder).unwrap(), 128).unwrap();
    let inputs = reader.read(texts.iter().map(|&t| t.into()).collect());
    let Some(reference) = reference(folder, &inputs.unwrap()) else {
        return;
    };
    for (weighed, expected) in weigher.weigh(texts).unwrap().iter().zip(reference.terms) {
        assert!(!expected.is_empty());
        let found = weighed.terms.iter().map(|t| (t.token, t.weight));
        let found = std::collections::BTreeMap::from_iter(found);
        for token in found.keys().chain(expected.keys()) {
            let weight = |terms: &std::collections::BTreeMap<u32, f32>| {
                terms.get(token).copied().unwrap_or_default()
            };
            let (a, b) = (weight(&found), weight(&expected));
            assert!((a - b).abs() < most, "token {token}: {a}, numpy has {b}");
        }
    }
}

#[test]
fn splade_matches_its_reference() {
    let folder = std::env::var("INTENDEX_MODELS").map(|m| Path::new(&m).join("splade-tiny"));
    let Some(folder) = folder.ok().filter(|folder| folder.is_dir()) else {
        return crate::skipped("INTENDEX_MODELS names no folder with splade-tiny");
    };
    let weigher = TermWeigher::load(&folder, identity(), &Device::Cpu).unwrap();
    let texts = [
        "What is the capital of France?",
        "Rotary position embeddings rotate queries and keys by an angle that grows with the position.",
        "",
    ];
    weights_are_their_reference(&folder, &weigher, &texts, 1e-3);
}

#[test]
fn cross_encoder_scores_are_their_reference_and_do_not_depend_on_the_batch() {
    let folder = folder();
    tiny::heads(folder.path());
    let encoder = CrossEncoder::load(folder.path(), identity(), &Device::Cpu).unwrap();
    let texts = texts();
    let pairs: Vec<(&str, &str)> = texts
        .iter()
        .map(|text| ("why is the law?", &text[..]))
        .collect();
    let scores = encoder.score(&pairs).unwrap();
    for (&pair, &score) in pairs.iter().zip(&scores) {
        assert_eq!(encoder.score(&[pair]).unwrap(), [score]);
    }
    let reader = Reader::open(folder.path(), &Config::read(folder.path()).unwrap(), 128).unwrap();
    let inputs = reader.read(pairs.iter().map(|&pair| pair.into()).collect());
    let inputs = inputs.unwrap();
    assert_eq!(inputs[0].sequence().second, 7);
    let Some(reference) = reference(folder.path(), &inputs) else {
        return;
    };
    are_close(&scores, &reference.scores, 1e-5);
}

#[test]
fn eight_bits_stay_near_and_do_not_depend_on_the_batch() {
    let int8 = spec::Embedder {
        precision: Some(Precision::Int8),
        ..settings()
    };
    let (tiny, real) = (folder(), std::env::var("INTENDEX_MODELS"));
    let real = real.map(|m| Path::new(&m).join("minilm"));
    let mut folders = vec![tiny.path().to_owned()];
    match real.ok().filter(|folder| folder.is_dir()) {
        Some(folder) => folders.push(folder),
        None => crate::skipped("INTENDEX_MODELS names no folder with minilm"),
    }
    for folder in folders {
        let (full, eight) = (load(&folder), load_with(&folder, &int8).unwrap());
        let texts = texts();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let embed =
            |e: &BertEmbedder, texts: &[&str]| e.embed(texts, TextKind::Document).unwrap().vectors;
        let (full, all) = (embed(&full, &texts), embed(&eight, &texts));
        for (i, text) in texts.iter().enumerate() {
            let cosine = cosine(full.row(i), all.row(i));
            assert!(cosine > 0.999, "{}: {cosine}", folder.display());
            assert_eq!(embed(&eight, &[text]).values, all.row(i));
        }
    }
    let half = spec::Embedder {
        precision: Some(Precision::F16),
        ..settings()
    };
    let message = load_with(tiny.path(), &half).err().unwrap().to_string();
    assert!(message.contains("\"f32\" or \"int8\""), "{message}");
}
