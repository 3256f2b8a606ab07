//! The families of models against llama.cpp, token by token.

use super::*;

/// What llama.cpp (llama-cpp-python 0.3.36) answers greedily for the tiny models: the output of
/// `benches/peers/llama.py` for the request in [`asked`], with the files that this test writes.
const REFERENCE: [(&str, &str); 4] = [
    ("llama", ""),
    ("qwen2", ""),
    ("qwen3", ""),
    ("gemma3", ""),
];

fn asked() -> Prompt {
    let content = "how does water change a city over time, and what is the effect of energy on people".into();
    Prompt {
        messages: vec![Message {
            role: Role::User,
            content,
        }],
    }
}

#[test]
fn greedy_text_is_llama_cpps() {
    let folder = TempDir::new().unwrap();
    for (family, expected) in REFERENCE {
        let path = folder.path().join(format!("{family}.gguf"));
        tiny::generator_of(&path, family, GgmlDType::F32);
        let greedy = Sampling {
            n: 1,
            temperature: 0.0,
            top_p: 1.0,
            max_tokens: 24,
            stop: vec![],
            seed: 0,
        };
        let answer = unwrap(load(&path).unwrap().generate(&[(asked(), greedy)]));
        assert_eq!(answer[0][0].text, expected, "{family}");
    }
}
