//! The families of models against llama.cpp, token by token.

use super::*;

/// What llama.cpp (llama-cpp-python 0.3.36) answers greedily for the tiny models: what
/// `benches/peers/llama.py` continues the request in [`asked`] with, given the files that this test writes.
const REFERENCE: [(&str, &str); 4] = [
    (
        "llama",
        "? with and for year law effect? with and for year cause use cell what the effect work the effect work to effect",
    ),
    (
        "qwen2",
        " change how change energy\n work an and to a? time system time system what what what what how change energy\n change",
    ),
    (
        "qwen3",
        " why year with year with year with cause an effect when when when when when when when when cell and law with cause does",
    ),
    (
        "gemma3",
        " method city city when year of when when a method does does does use with use with change how with change change change with",
    ),
];

fn asked() -> Prompt {
    let content = "a city and a cell: how does the model change the method".into();
    Prompt {
        messages: vec![Message {
            role: Role::User,
            content,
        }],
    }
}

#[test]
fn greedy_text_is_llama_cpps() {
    let mut answers = Vec::new();
    let folder = TempDir::new().unwrap();
    for (family, _) in REFERENCE {
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
        answers.push((family, answer[0][0].text.clone()));
    }
    assert_eq!(
        answers,
        REFERENCE.map(|(family, text)| (family, text.to_owned()))
    );
}
