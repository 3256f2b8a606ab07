//! Files that cannot be read, and a real one.

use super::*;

/// A file made from the tiny model, and what loading it says.
fn refusal(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    tiny::generator(&path, GgmlDType::F32);
    std::fs::write(&path, change(std::fs::read(&path).unwrap())).unwrap();
    let message = load(&path).err().unwrap().to_string();
    assert!(
        message.starts_with(&path.display().to_string()),
        "{message}"
    );
    message
}

fn replace(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes
        .windows(from.len())
        .position(|w| w == from.as_bytes())
        .unwrap();
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

#[test]
fn broken_files_are_refused_with_a_remedy() {
    assert!(refusal(|_| vec![]).contains("empty; fetch it again"));
    assert!(refusal(|_| b"<html>not found</html>".to_vec()).contains("not a GGUF file"));
    assert!(refusal(|b| b[..200].to_vec()).contains("truncated"));
    assert!(refusal(|b| b[..b.len() / 2].to_vec()).contains("truncated: tensor"));
    assert!(
        refusal(|b| replace(&b, "blk.1.ffn_up.weight", "blk.1.ffn_UP.weight"))
            .contains("blk.1.ffn_up.weight is missing")
    );
    let other = refusal(|b| {
        replace(
            &b,
            "architecture\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0qwen2",
            "architecture\u{8}\0\0\0\u{5}\0\0\0\0\0\0\0mamba",
        )
    });
    assert!(
        other.contains("architecture mamba is not supported; use a model of llama, qwen2"),
        "{other}"
    );
    assert!(
        refusal(|b| replace(&b, "chat_template", "CHAT_template")).contains("instruction-tuned")
    );
}

#[test]
fn more_context_than_the_model_has_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.gguf");
    tiny::generator(&path, GgmlDType::F32);
    let settings = spec::Generator {
        context_tokens: Some(4096),
        ..settings()
    };
    let message = Decoder::load(&path, identity(), &settings, &Device::Cpu)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("context_tokens is 4096") && message.contains("2048"),
        "{message}"
    );
}

fn real(name: &str) -> Option<Decoder> {
    let path = std::env::var("INTENDEX_MODELS")
        .ok()
        .map(|root| PathBuf::from(root).join(name).join("model.gguf"));
    match path.filter(|path| path.is_file()) {
        Some(path) => Some(load(&path).unwrap()),
        None => {
            crate::skipped(&format!(
                "INTENDEX_MODELS names no folder with {name}/model.gguf"
            ));
            None
        }
    }
}

#[test]
fn a_real_model_answers_and_prefers_the_right_question() {
    let Some(decoder) = real("qwen2.5-coder-1.5b") else {
        return;
    };
    let ask = |text: &str| Prompt {
        messages: vec![Message {
            role: Role::User,
            content: text.into(),
        }],
    };
    let greedy = Sampling {
        max_tokens: 16,
        ..sampling(1, 0.0, 0)
    };
    let answer = unwrap(decoder.generate(&[(
        ask("What is the capital of France? Answer in one word."),
        greedy,
    )]));
    assert!(answer[0][0].text.contains("Paris"), "{answer:?}");
    let passage = ask(
        "Passage: Bees make honey from the nectar of flowers.\nWrite a question that the passage answers.",
    );
    let texts = vec![
        "How do bees make honey?".to_string(),
        "How is the price of steel set?".to_string(),
    ];
    let scores = unwrap(decoder.score(&[(passage, texts)])).remove(0);
    assert!(
        scores[0].per_token() > scores[1].per_token() + 1.0,
        "{scores:?}"
    );
}
