//! The models as `benches/models.py` asks for them: one JSON request a line on stdin, one JSON answer a line on stdout.
//!
//!     cargo bench --bench models -- decoder MODEL.gguf SETTINGS
//!     cargo bench --bench models -- embedder FOLDER SETTINGS
//!
//! SETTINGS are keys of the job's `models.generator` or `models.embedder`, as JSON, and `device`, by itself `"cpu"`.

mod support;

use std::{
    io::{BufRead, Write},
    path::Path,
    time::Instant,
};

use candle_core::Device;
use intendex::{
    expand::{
        prompt,
        queries::{self, Chunk},
        scores::{Pair, Scorer},
    },
    job::spec,
    model::{
        Embed, Generate, Message, ModelIdentity, Prompt, Role, Sampling, Score, TextKind,
        bert::BertEmbedder, decoder::Decoder, device,
    },
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = support::arguments();
    let [kind, model, settings] = &arguments[..] else {
        // `cargo bench` runs every benchmark; this one needs a partner.
        return eprintln!("models: run by `make bench-models`");
    };
    let answer: Box<dyn Fn(&Value) -> Value> = match kind.as_str() {
        "decoder" => {
            let decoder = decoder(model, settings);
            Box::new(move |request| decode(&decoder, request))
        }
        _ => {
            let embedder = embedder(model, settings);
            Box::new(move |request| embed(&embedder, request))
        }
    };
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.expect("stdin")).expect("a request");
        let mut answer = answer(&request);
        answer["peak_mib"] = json!(support::peak_mib());
        println!("{answer}");
        std::io::stdout().flush().expect("stdout");
    }
}

fn identity(name: &str) -> ModelIdentity {
    ModelIdentity {
        name: name.into(),
        architecture: "bench".into(),
        files: Vec::new(),
    }
}

fn settings<T: DeserializeOwned>(model: &str, settings: &str) -> (T, Device) {
    let mut settings: Value = serde_json::from_str(settings).expect("JSON");
    settings["model"] = json!(model);
    let device = settings.as_object_mut().expect("keys").remove("device");
    let device = device.as_ref().and_then(Value::as_str).unwrap_or("cpu");
    let device = device::device(device).expect("a device");
    (serde_json::from_value(settings).expect("settings"), device)
}

fn decoder(path: &str, keys: &str) -> Decoder {
    let (settings, device) = settings(path, keys);
    Decoder::load(Path::new(path), identity(path), &settings, &device).expect("a model")
}

fn embedder(folder: &str, keys: &str) -> BertEmbedder {
    let (settings, device) = settings(folder, keys);
    BertEmbedder::load(Path::new(folder), identity(folder), &settings, &device).expect("a model")
}

fn decode(decoder: &Decoder, request: &Value) -> Value {
    match request["task"].as_str() {
        // What the peer is given to read: the prompts of `work`.
        Some("prompts") => {
            let prompts: Vec<Value> = strings(&request["passages"])
                .map(|p| json!(prompt::question(p, &[]).messages))
                .collect();
            json!({ "prompts": prompts })
        }
        Some("prefill") => {
            let request = [(user(request), sampling(1, 0.0, 1.0, 1))];
            let (seconds, _) = timed(|| decoder.generate(&request));
            json!({ "seconds": seconds })
        }
        Some("generate") => generate(decoder, request),
        Some("score") => {
            let texts = strings(&request["texts"]).map(Into::into).collect();
            let scores = decoder.score(&[(user(request), texts)]);
            let scores = scores.into_iter().next().expect("one").expect("scores");
            let sums: Vec<f64> = scores.iter().map(|s| s.sum).collect();
            let tokens: Vec<usize> = scores.iter().map(|s| s.tokens).collect();
            json!({ "sums": sums, "tokens": tokens })
        }
        Some("given") => given(decoder, request),
        _ => work(decoder, request),
    }
}

/// As the queries stage works, on shapes that are given: of each prompt `n` texts of `max_tokens` tokens, and the scores of
/// its `texts`, after it and after the prompt `empty`.
fn given(decoder: &Decoder, request: &Value) -> Value {
    let texts: Vec<Vec<String>> = request["texts"]
        .as_array()
        .expect("texts")
        .iter()
        .map(|of_prompt| strings(of_prompt).map(String::from).collect())
        .collect();
    let prompts = request["prompts"].as_array().expect("prompts");
    let prompts: Vec<Prompt> = prompts.iter().map(messages).collect();
    let empty = messages(&request["empty"]);
    let number = |key: &str| request[key].as_f64().unwrap_or_default();
    let (n, most) = (number("n") as usize, number("max_tokens") as usize);
    let settings = sampling(
        n,
        number("temperature") as f32,
        number("top_p") as f32,
        most,
    );
    let (mut generating, mut scoring, mut tokens) = (0.0, 0.0, 0);
    let at_once = decoder.requests_at_once();
    for (prompts, texts) in prompts.chunks(at_once).zip(texts.chunks(at_once)) {
        let requests: Vec<_> = prompts
            .iter()
            .map(|p| (p.clone(), settings.clone()))
            .collect();
        let (seconds, answers) = timed(|| decoder.generate(&requests));
        generating += seconds;
        let answers = answers
            .into_iter()
            .flat_map(|answer| answer.expect("texts"));
        tokens += answers.map(|completion| completion.tokens).sum::<usize>();
        let given = prompts.iter().zip(texts);
        let mut requests: Vec<_> = given.map(|(p, t)| (p.clone(), t.clone())).collect();
        requests.extend(texts.iter().map(|t| (empty.clone(), t.clone())));
        let (seconds, scores) = timed(|| decoder.score(&requests));
        scoring += seconds;
        scores.into_iter().for_each(|s| drop(s.expect("scores")));
    }
    json!({ "seconds": generating + scoring, "generating": generating, "scoring": scoring, "tokens": tokens })
}

fn messages(messages: &Value) -> Prompt {
    let messages = serde_json::from_value(messages.clone());
    Prompt {
        messages: messages.expect("messages"),
    }
}

/// Continues one prompt `n` times; the prompt's reading is not timed.
fn generate(decoder: &Decoder, request: &Value) -> Value {
    let number = |key: &str| request[key].as_f64().unwrap_or_default();
    let sampling = |most| {
        sampling(
            number("n") as usize,
            number("temperature") as f32,
            number("top_p") as f32,
            most,
        )
    };
    decoder.generate(&[(user(request), sampling(1))]);
    let requests = [(user(request), sampling(number("max_tokens") as usize))];
    let (seconds, answers) = timed(|| decoder.generate(&requests));
    let completions = answers.into_iter().next().expect("one").expect("a text");
    let tokens: usize = completions.iter().map(|c| c.tokens - 1).sum();
    json!({ "seconds": seconds, "tokens": tokens, "text": completions[0].text })
}

/// The questions of the passages, and their scores, as the queries stage makes them.
fn work(decoder: &Decoder, request: &Value) -> Value {
    let settings = spec::Expand {
        queries: request["n"].as_u64().expect("n") as usize,
        lists: request["lists"].as_u64().unwrap_or(0) as usize,
        extra_scores: vec![spec::Scored::Gain],
        ..spec::Expand::default()
    };
    let passages: Vec<&str> = strings(&request["passages"]).collect();
    let chunks: Vec<Chunk> = passages
        .iter()
        .enumerate()
        .map(|(seed, text)| Chunk {
            title: None,
            text,
            intents: Vec::new(),
            keywords: Vec::new(),
            seed: seed as u64,
        })
        .collect();
    let scorer = Scorer {
        settings: &settings,
        generator: decoder,
        scorer: Some(decoder),
        cross_encoder: None,
    };
    // A prompt's samples and its scores one after the other, as its keys are remembered for a while.
    let (seconds, written) = timed(|| {
        let groups = chunks.chunks(decoder.requests_at_once());
        let group = |chunks: &[Chunk]| {
            let written = queries::write(chunks, &settings, decoder, &|| {});
            let written: Vec<_> = written.into_iter().map(|w| w.expect("questions")).collect();
            let pairs = chunks.iter().zip(&written).flat_map(|(chunk, written)| {
                let pair = |query| Pair {
                    title: None,
                    text: chunk.text,
                    query,
                };
                written.queries.iter().map(move |q| pair(q.text.as_str()))
            });
            let scores = scorer.score(&pairs.collect::<Vec<_>>(), &|_| {});
            assert!(scores.iter().all(Result::is_ok));
            written
        };
        groups.flat_map(group).collect::<Vec<_>>()
    });
    let sampled: usize = written.iter().map(|w| w.tokens).sum();
    let questions: Vec<Vec<&str>> = written
        .iter()
        .take(3)
        .map(|w| w.queries.iter().map(|q| &q.text[..]).collect())
        .collect();
    json!({ "seconds": seconds, "sampled": sampled, "questions": questions })
}

fn embed(embedder: &BertEmbedder, request: &Value) -> Value {
    let texts: Vec<&str> = strings(&request["texts"]).collect();
    let (seconds, embedded) = timed(|| embedder.embed(&texts, TextKind::Document));
    let vectors = embedded.expect("vectors").vectors;
    let kept = request["keep"].as_u64().map_or(texts.len(), |n| n as usize);
    let values = &vectors.values[..vectors.dim * kept.min(texts.len())];
    json!({ "seconds": seconds, "dim": vectors.dim, "vectors": values })
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

fn user(request: &Value) -> Prompt {
    let message = |role, key: &str| Message {
        role,
        content: request[key].as_str().unwrap_or_default().into(),
    };
    Prompt {
        messages: vec![message(Role::System, "system"), message(Role::User, "user")],
    }
}

fn sampling(n: usize, temperature: f32, top_p: f32, max_tokens: usize) -> Sampling {
    Sampling {
        n,
        temperature,
        top_p,
        max_tokens,
        stop: Vec::new(),
        seed: 1,
    }
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}
