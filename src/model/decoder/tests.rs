use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use candle_core::quantized::GgmlDType;
use tempfile::TempDir;

use super::attention::{Cache, Part, Sees};
use super::sample::log_probability;
use super::*;
use crate::model::{Generate, Message, Role, Sampling, Score, tiny};

mod families;
mod files;

fn settings() -> spec::Generator {
    toml::from_str("model = 'tiny'").unwrap()
}

fn identity() -> ModelIdentity {
    ModelIdentity {
        name: "tiny".into(),
        architecture: "qwen2".into(),
        files: vec![],
    }
}

fn load(path: &Path) -> Result<Decoder, ModelError> {
    Decoder::load(path, identity(), &settings(), &Device::Cpu)
}

pub(super) fn tiny(dtype: GgmlDType) -> Decoder {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    tiny::generator(&path, dtype);
    load(&path).unwrap()
}

fn prompt(text: &str) -> Prompt {
    let message = |role, content: &str| Message {
        role,
        content: content.into(),
    };
    let system = "You write questions that people would ask and that the passage answers, one per line, and nothing else.";
    Prompt {
        messages: vec![message(Role::System, system), message(Role::User, text)],
    }
}

fn sampling(n: usize, temperature: f32, seed: u64) -> Sampling {
    Sampling {
        n,
        temperature,
        top_p: 0.95,
        max_tokens: 12,
        stop: vec!["\n".into()],
        seed,
    }
}

pub(super) fn requests() -> Vec<(Prompt, Sampling)> {
    let passages = [
        "the water system of a city",
        "energy",
        "how people change the law, and why",
        "cell cell cell",
        "x",
    ];
    passages
        .iter()
        .enumerate()
        .map(|(i, p)| (prompt(p), sampling(1 + i % 4, 0.9, i as u64)))
        .collect()
}

fn unwrap<T>(results: Vec<Result<T, ModelError>>) -> Vec<T> {
    results.into_iter().map(Result::unwrap).collect()
}

/// Logits at every position of `tokens`, read at once and without any cache.
fn naive(decoder: &Decoder, tokens: &[u32]) -> Vec<Vec<f32>> {
    let model = &decoder.model;
    let shape = model.shape;
    let none = [shape.layers, shape.kv_heads, 0, shape.head_dim];
    let none = Cache::zeros(&none, &Device::Cpu).unwrap();
    let part = Part {
        tokens: tokens.len(),
        sees: Sees::Text { prefix: &none },
    };
    let output = model.forward(tokens, &[part]);
    model.logits(&output.unwrap()).unwrap().to_vec2().unwrap()
}

#[test]
fn special_tokens_are_single_ids() {
    let decoder = tiny(GgmlDType::F32);
    let ids = decoder
        .tokenizer
        .encode("<|im_start|>user\n", false)
        .unwrap()
        .get_ids()
        .to_vec();
    assert_eq!(
        ids[0],
        decoder.tokenizer.token_to_id("<|im_start|>").unwrap()
    );
    assert_eq!(ids.len(), 1 + "user\n".len());
}

#[test]
fn greedy_is_the_argmax_of_a_forward_pass_over_everything() {
    let decoder = tiny(GgmlDType::F32);
    let prompt = prompt("the effect of time on water");
    let text = unwrap(decoder.generate(&[(
        prompt.clone(),
        Sampling {
            stop: vec![],
            ..sampling(1, 0.0, 0)
        },
    )]));
    let mut tokens = decoder.encode(&prompt, 0).unwrap();
    let start = tokens.len();
    let mut expected = text::Text::default();
    while tokens.len() - start < 12 {
        let logits = naive(&decoder, &tokens).pop().unwrap();
        let best = (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap() as u32;
        if decoder.vocabulary.ends.contains(&best) {
            break;
        }
        expected.push(decoder.vocabulary.bytes.get(best), &[]);
        tokens.push(best);
    }
    assert_eq!(text[0][0].text, expected.finish());
    assert_eq!(text[0][0].tokens, tokens.len() - start);
    assert!(
        text[0][0].tokens > 2,
        "the tiny generator should write something: {:?}",
        text[0][0]
    );
}

#[test]
fn a_score_is_the_sum_of_the_tokens_log_probabilities() {
    let decoder = tiny(GgmlDType::F32);
    let prompt = prompt("the law of the city");
    let texts = [
        " what is the law?",
        "",
        " why",
        " how does a city change the law of water?",
    ]
    .map(String::from);
    let scores = unwrap(decoder.score(&[(prompt.clone(), texts.to_vec())])).remove(0);
    let start = decoder.encode(&prompt, 0).unwrap();
    for (text, score) in texts.iter().zip(scores) {
        let own = decoder
            .tokenizer
            .encode(text.as_str(), false)
            .unwrap()
            .get_ids()
            .to_vec();
        let all = [&start[..], &own].concat();
        let logits = naive(&decoder, &all);
        let expected: f64 = own
            .iter()
            .enumerate()
            .map(|(i, &token)| log_probability(&logits[start.len() + i - 1], token).unwrap())
            .sum();
        assert_eq!(score.tokens, own.len());
        assert!(
            (score.sum - expected).abs() < 1e-3,
            "{text:?}: {} instead of {expected}",
            score.sum
        );
    }
}

#[test]
fn a_request_does_not_depend_on_its_batch() {
    for dtype in [GgmlDType::Q4K, GgmlDType::F32] {
        let requests = requests();
        let together = unwrap(tiny(dtype).generate(&requests));
        for (request, completions) in requests.iter().zip(&together) {
            let alone = unwrap(tiny(dtype).generate(std::slice::from_ref(request))).remove(0);
            assert_eq!(&alone, completions, "{dtype:?}");
            assert_eq!(alone.len(), request.1.n);
        }
    }
}

#[test]
fn a_prompt_read_before_changes_nothing() {
    let texts: Vec<String> = vec![" what is the water?".into(), " why".into()];
    let score = |decoder: &Decoder, text: &str| {
        unwrap(decoder.score(&[(prompt(text), texts.clone())])).remove(0)
    };
    for (dtype, tolerance) in [(GgmlDType::Q4K, 0.0), (GgmlDType::F32, 1e-4)] {
        let warm = tiny(dtype);
        unwrap(warm.generate(&requests()));
        for passage in [
            "energy",
            "",
            "energy and the law",
            "the water system of a city",
        ] {
            let cold = score(&tiny(dtype), passage);
            for (a, b) in score(&warm, passage).iter().zip(&cold) {
                assert!(
                    (a.sum - b.sum).abs() <= tolerance,
                    "{dtype:?} {passage}: {} or {}",
                    a.sum,
                    b.sum
                );
            }
        }
    }
}

#[test]
fn the_cache_forgets_the_oldest_prompts() {
    let decoder = tiny(GgmlDType::F32);
    let mut prefixes = Prefixes::new(100);
    let mut get = |prompt: Vec<u32>| prefixes.get(&decoder.model, &[&prompt]).unwrap().remove(0);
    let (first, second) = (get(vec![1; 60]), get(vec![2; 30]));
    assert!(Arc::ptr_eq(&first, &get(vec![1; 60])));
    get(vec![3; 30]);
    assert!(Arc::ptr_eq(&first, &get(vec![1; 60])));
    assert!(!Arc::ptr_eq(&second, &get(vec![2; 30])));
}

#[test]
fn prompts_read_together_are_as_read_alone() {
    let decoder = tiny(GgmlDType::Q4K);
    let model = &decoder.model;
    // One needs several passes, one ends within another's, one begins with what has been read.
    let prompts: [Vec<u32>; 4] = [700, 40, 33, 600].map(|n| (0..n).map(|i| i * i % 90).collect());
    let alone = |prompt: &[u32]| Prefix::read(model, &[(prompt, None)]).unwrap().remove(0);
    let known = Arc::new(alone(&prompts[1]));
    let wanted = prompts.iter().enumerate();
    let wanted = wanted.map(|(i, prompt)| (&prompt[..], (i == 3).then(|| known.clone())));
    let together = Prefix::read(model, &wanted.collect::<Vec<_>>()).unwrap();
    for (prompt, read) in prompts.iter().zip(together) {
        let alone = alone(prompt);
        let values = |x: &candle_core::Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&read.last), values(&alone.last));
        assert_eq!(values(&read.keys.k), values(&alone.keys.k));
        assert_eq!(values(&read.keys.v), values(&alone.keys.v));
    }
}

#[test]
fn seeds_and_only_seeds_change_what_is_drawn() {
    let decoder = tiny(GgmlDType::F32);
    let draw =
        |seed| unwrap(decoder.generate(&[(prompt("time"), sampling(4, 1.0, seed))])).remove(0);
    assert_eq!(draw(5), draw(5));
    assert_ne!(draw(5), draw(6));
    let texts = draw(5);
    assert!(
        texts.iter().any(|t| t != &texts[0]),
        "continuations should differ: {texts:?}"
    );
}

#[test]
fn stops_and_limits() {
    let decoder = tiny(GgmlDType::F32);
    let run = |s: Sampling| unwrap(decoder.generate(&[(prompt("water"), s)])).remove(0);
    let all = run(Sampling {
        stop: vec![],
        ..sampling(1, 0.0, 0)
    })
    .remove(0);
    let stop = all.text.trim().split(' ').nth(1).unwrap().to_string();
    let cut = run(Sampling {
        stop: vec![stop.clone()],
        ..sampling(1, 0.0, 0)
    })
    .remove(0);
    assert_eq!(cut.text, all.text.split(&stop).next().unwrap());
    assert!(cut.finished);
    let short = run(Sampling {
        max_tokens: 1,
        stop: vec![],
        ..sampling(3, 0.0, 0)
    });
    assert!(
        short
            .iter()
            .all(|c| c.tokens == 1 && !c.finished && all.text.starts_with(&c.text)),
        "{short:?}"
    );
    assert!(
        run(Sampling {
            max_tokens: 0,
            ..sampling(2, 0.5, 0)
        })
        .iter()
        .all(|c| c.text.is_empty() && !c.finished)
    );
    assert!(run(sampling(0, 0.5, 0)).is_empty());
    assert!(decoder.generate(&[]).is_empty());
}

#[test]
fn more_rows_than_fit_are_decoded_in_turn() {
    let decoder = tiny(GgmlDType::F32);
    let many: Vec<_> = (0..9)
        .map(|i| (prompt(&format!("city {i}")), sampling(8, 0.8, i)))
        .collect();
    let results = unwrap(decoder.generate(&many));
    assert!(results.iter().all(|r| r.len() == 8));
    assert_eq!(results[7], unwrap(decoder.generate(&many[7..8])).remove(0));
}

#[test]
fn a_prompt_that_does_not_fit_fails_alone() {
    let decoder = tiny(GgmlDType::F32);
    let requests = [
        (prompt("water"), sampling(1, 0.0, 0)),
        (prompt(&"water ".repeat(2000)), sampling(1, 0.0, 0)),
    ];
    let results = decoder.generate(&requests);
    assert!(results[0].is_ok());
    let message = results[1].as_ref().unwrap_err().to_string();
    assert!(
        message.contains("12 more do not fit its context of 2048"),
        "{message}"
    );
    let scores = decoder.score(&[
        (prompt(&"water ".repeat(2000)), vec!["a".into()]),
        (prompt("a"), vec!["a".into()]),
    ]);
    assert!(scores[0].is_err() && scores[1].is_ok());
}

/// Makes the embedding of a token of an F32 file infinite.
fn poison(path: &Path, token: u32) {
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let content = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
    let embeddings = &content.tensor_infos["token_embd.weight"];
    let row = (embeddings.shape.dims()[1] * size_of::<f32>()) as u64;
    let place = content.tensor_data_offset + embeddings.offset + u64::from(token) * row;
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(&f32::INFINITY.to_le_bytes()).unwrap();
}

#[test]
fn a_request_that_cannot_be_computed_fails_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    tiny::generator(&path, GgmlDType::F32);
    let sound = load(&path).unwrap();
    let (mut all, texts) = (requests(), vec![" why".to_string()]);
    let expected = unwrap(sound.generate(&all));
    let asked = |all: &[(Prompt, Sampling)]| {
        all.iter()
            .map(|r| (r.0.clone(), texts.clone()))
            .collect::<Vec<_>>()
    };
    let scores = unwrap(sound.score(&asked(&all)));
    poison(&path, sound.tokenizer.token_to_id("Z").unwrap());
    let poisoned = load(&path).unwrap();
    all.insert(2, (prompt("Z"), sampling(2, 0.9, 3)));
    let mut answers = poisoned.generate(&all);
    let message = answers.remove(2).unwrap_err().to_string();
    assert!(message.contains("not finite"), "{message}");
    assert_eq!(unwrap(answers), expected);
    let mut found = poisoned.score(&asked(&all));
    assert!(found.remove(2).is_err());
    for (found, expected) in unwrap(found).iter().zip(&scores) {
        assert!((found[0].sum - expected[0].sum).abs() < 1e-3);
    }
}

#[test]
fn token_offsets_tile_the_text() {
    let decoder = tiny(GgmlDType::F32);
    let text = "what is the law of water? Zürich";
    let offsets = decoder.token_offsets(text).unwrap();
    assert_eq!(offsets.first().unwrap().0, 0);
    assert_eq!(offsets.last().unwrap().1, text.len());
    assert!(
        offsets
            .iter()
            .all(|&(a, b)| text.is_char_boundary(a) && text.is_char_boundary(b))
    );
}

#[test]
fn a_shortlist_draws_frequent_tokens_and_the_prompts_own() {
    let folder = TempDir::new().unwrap();
    for dtype in [GgmlDType::F32, GgmlDType::Q4K] {
        let path = folder.path().join("model.gguf");
        tiny::generator(&path, dtype);
        let with = |shortlist| {
            let settings = spec::Generator {
                shortlist,
                ..settings()
            };
            Decoder::load(&path, identity(), &settings, &Device::Cpu).unwrap()
        };
        let (all, short) = (with(None), with(Some(300)));
        let whole = with(Some(all.model.shape.vocabulary));
        let answers = unwrap(all.generate(&requests()));
        assert_eq!(unwrap(whole.generate(&requests())), answers);
        let shorter = unwrap(short.generate(&requests()));
        assert_ne!(shorter, answers);
        for (request, together) in requests().into_iter().zip(&shorter) {
            let allowed = short.encode(&request.0, 0).unwrap();
            for completion in together {
                let tokens = short.tokenizer.encode(&completion.text[..], false).unwrap();
                let known = |id: &u32| *id < 300 || allowed.contains(id);
                assert!(tokens.get_ids().iter().all(known), "{}", completion.text);
            }
            let alone = short.generate(std::slice::from_ref(&request));
            assert_eq!(unwrap(alone)[0], *together);
        }
    }
}
