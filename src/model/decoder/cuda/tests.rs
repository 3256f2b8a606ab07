//! The GPU against the CPU. Without a GPU these tests say that they were skipped.

use std::path::Path;

use candle_core::quantized::GgmlDType;
use rand::Rng;
use tempfile::TempDir;

use super::*;
use crate::job::spec;
use crate::model::decoder::{Decoder, sample};
use crate::model::{
    Generate, LogProb, Message, ModelIdentity, Prompt, Role, Sampling, Score, tiny,
};

fn gpu() -> Option<Device> {
    let device = crate::model::device::device("cuda:0");
    device
        .inspect_err(|e| eprintln!("SKIPPED, there is no GPU: {e}"))
        .ok()
}

fn load(path: &Path, device: &Device) -> Decoder {
    let identity = ModelIdentity {
        name: "tiny".into(),
        architecture: "tiny".into(),
        files: Vec::new(),
    };
    let settings: spec::Generator = toml::from_str("model = 'tiny'").unwrap();
    Decoder::load(path, identity, &settings, device).unwrap()
}

fn prompt(text: &str) -> Prompt {
    Prompt {
        messages: vec![Message {
            role: Role::User,
            content: text.into(),
        }],
    }
}

fn sampling(n: usize, temperature: f32, seed: u64) -> Sampling {
    Sampling {
        n,
        temperature,
        top_p: 0.9,
        max_tokens: 20,
        stop: Vec::new(),
        seed,
    }
}

/// Prompts of different lengths, some longer than a window and than a block of keys.
fn prompts() -> Vec<Prompt> {
    let long = "how does the water of the city change the law of energy and time? ".repeat(4);
    ["energy", "a city and a cell", &long, &format!("{long} why")]
        .map(prompt)
        .into()
}

fn texts() -> Vec<String> {
    [
        "what is the law?",
        "why",
        "how does a city change the water of a cell with time",
    ]
    .map(String::from)
    .into()
}

fn scores(decoder: &Decoder, texts: &[String]) -> Vec<LogProb> {
    let requests = prompts().into_iter().map(|prompt| (prompt, texts.to_vec()));
    let scores = decoder.score(&requests.collect::<Vec<_>>());
    scores
        .into_iter()
        .flat_map(|scores| scores.unwrap())
        .collect()
}

#[test]
fn scores_and_texts_are_those_of_the_cpu_but_for_rounding() {
    let Some(device) = gpu() else { return };
    let folder = TempDir::new().unwrap();
    for family in ["llama", "qwen2", "qwen3", "gemma3"] {
        let path = folder.path().join(format!("{family}.gguf"));
        tiny::generator_of(&path, family, GgmlDType::F32);
        let (cpu, gpu) = (load(&path, &Device::Cpu), load(&path, &device));
        for (a, b) in scores(&cpu, &texts()).iter().zip(scores(&gpu, &texts())) {
            // Of the tokens' logarithms, and of how far the logits reach.
            let most = 0.1 * (a.tokens as f64).sqrt() + 0.01 * a.sum.abs();
            let apart = (a.sum - b.sum).abs();
            assert!(
                a.tokens == b.tokens && apart < most,
                "{family}: {a:?} {b:?}"
            );
        }
        // A greedy text of the GPU's is about as probable to the CPU as its own.
        let greedy = |decoder: &Decoder| -> Vec<String> {
            let requests: Vec<_> = prompts()
                .into_iter()
                .map(|p| (p, sampling(1, 0.0, 0)))
                .collect();
            let answers = decoder.generate(&requests).into_iter();
            answers
                .map(|answer| answer.unwrap().remove(0).text)
                .collect()
        };
        let (own, theirs) = (greedy(&cpu), greedy(&gpu));
        for (i, prompt) in prompts().into_iter().enumerate() {
            let both = vec![own[i].clone(), theirs[i].clone()];
            let scored = cpu.score(&[(prompt, both)]).remove(0).unwrap();
            assert!(
                scored[1].per_token() > scored[0].per_token() - 0.1,
                "{family}: {own:?} {theirs:?} {scored:?}"
            );
        }
    }
}

#[test]
fn rows_do_not_depend_on_their_batch_and_leave_when_they_end() {
    let Some(device) = gpu() else { return };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    tiny::generator(&path, GgmlDType::F32);
    let decoder = load(&path, &device);
    let requests: Vec<_> = prompts()
        .into_iter()
        .enumerate()
        .map(|(i, prompt)| {
            let stop = vec!["e".into()];
            (
                prompt,
                Sampling {
                    stop,
                    ..sampling(1 + 3 * i, 1.0, i as u64)
                },
            )
        })
        .collect();
    let unwrap = |answers: Vec<std::result::Result<_, _>>| -> Vec<Vec<crate::model::Completion>> {
        answers.into_iter().map(|answer| answer.unwrap()).collect()
    };
    let together = unwrap(decoder.generate(&requests));
    assert_eq!(
        unwrap(decoder.generate(&requests)),
        together,
        "the same seeds"
    );
    let (mut same, mut all) = (0, 0);
    for (request, completions) in requests.iter().zip(&together) {
        let alone = unwrap(decoder.generate(std::slice::from_ref(request))).remove(0);
        assert_eq!(alone.len(), request.1.n);
        all += alone.len();
        same += alone
            .iter()
            .zip(completions)
            .filter(|(a, b)| a == b)
            .count();
    }
    // Products of other sizes are rounded otherwise, which turns a draw now and then.
    assert!(same * 10 >= all * 9, "{same} of {all}");
    let lengths: Vec<usize> = together.iter().flatten().map(|c| c.tokens).collect();
    assert!(lengths.iter().any(|n| *n != lengths[0]), "{lengths:?}");
}

#[test]
fn draws_are_those_of_the_cpu() {
    let Some(device) = gpu() else { return };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    tiny::generator(&path, GgmlDType::F32);
    let decoder = load(&path, &device);
    let pass = decoder.model.gpu().unwrap();
    let (rows, width) = (4, 151_936);
    let mut rng = sample::rng(3, 0);
    let logits: Vec<f32> = (0..rows * width)
        .map(|i| rng.random::<f32>() * [12.0, 20.0, 30.0, 60.0][i / width])
        .collect();
    let on_device = Tensor::from_vec(logits.clone(), (rows, width), &device).unwrap();
    let (mut same, count) = (0, 400);
    for i in 0..count {
        let (row, temperature) = (i % rows, [0.0, 0.7, 1.0][i % 3]);
        let settings = Sampling {
            top_p: [0.5, 0.95, 1.0][i / 3 % 3],
            ..sampling(1, temperature, i as u64)
        };
        let own = &logits[row * width..][..width];
        let expected = sample::draw(own, &settings, &mut sample::rng(i as u64, 0)).unwrap();
        let draw = Draw {
            output: row as u32,
            temperature,
            top_p: settings.top_p,
            uniform: sample::rng(i as u64, 0).random(),
        };
        let found = pass.draw(&on_device, &[draw, draw]).unwrap();
        assert_eq!(found[0], found[1]);
        same += usize::from(found[0] == expected);
    }
    assert!(same * 100 >= count * 95, "{same} of {count}");
    let targets: Vec<(u32, u32)> = (0..rows as u32).map(|row| (row, 7 * row)).collect();
    let logs = pass.log_probabilities(&on_device, &targets).unwrap();
    for ((row, token), log) in targets.into_iter().zip(logs) {
        let own = &logits[row as usize * width..][..width];
        let expected = sample::log_probability(own, token).unwrap();
        assert!((log - expected).abs() < 1e-3, "{log} {expected}");
    }
}
