//! The families of models against llama.cpp, token by token.

use std::collections::HashMap;

use candle_core::{DType, Tensor};

use super::*;
use crate::model::source;

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
    let folder = TempDir::new().unwrap();
    for (family, text) in REFERENCE {
        let path = folder.path().join(format!("{family}.gguf"));
        tiny::generator_of(&path, family, GgmlDType::F32);
        assert_eq!((family, &answer(&load(&path).unwrap())[..]), (family, text));
    }
}

fn answer(decoder: &Decoder) -> String {
    let greedy = Sampling {
        n: 1,
        temperature: 0.0,
        top_p: 1.0,
        max_tokens: 24,
        stop: vec![],
        seed: 0,
    };
    let mut answers = unwrap(decoder.generate(&[(asked(), greedy)]));
    answers.remove(0).remove(0).text
}

#[test]
fn safetensors_answer_like_gguf() {
    for (family, text) in REFERENCE {
        for dtype in [DType::F32, DType::BF16] {
            let folder = TempDir::new().unwrap();
            let gguf = folder.path().join("model.gguf");
            tiny::generator_of(&gguf, family, GgmlDType::F32);
            safetensors(&gguf, family, folder.path(), dtype);
            let mut settings = settings();
            settings.model = folder.path().display().to_string();
            let found = source::generator(&settings, true);
            assert_eq!(found.unwrap().path, gguf, "GGUF goes first");
            std::fs::remove_file(&gguf).unwrap();
            let found = source::generator(&settings, true).unwrap();
            assert_eq!(found.path, folder.path());
            let names = found.identity.files.iter().map(|f| f.name.as_str());
            let expected = [
                "config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ];
            assert_eq!(names.collect::<Vec<_>>(), expected);
            let answer = answer(&load(folder.path()).unwrap());
            match dtype {
                DType::F32 => assert_eq!((family, &answer[..]), (family, text)),
                _ => assert_eq!(answer.get(..8), text.get(..8), "{family} in bf16"),
            }
            if family == "qwen2" {
                std::fs::remove_file(folder.path().join(expected[1])).unwrap();
                let message = source::generator(&settings, true).unwrap_err().to_string();
                assert!(
                    message.contains("model-00001-of-00002.safetensors: is missing"),
                    "{message}"
                );
            }
        }
    }
}

/// Writes what a GGUF file of the tiny model holds as transformers would, in two shards.
fn safetensors(gguf: &Path, family: &str, folder: &Path, dtype: DType) {
    let mut files = Gguf::open(gguf, &Device::Cpu).unwrap();
    let a = files.architecture().unwrap();
    let language = files.language().unwrap();
    language
        .tokenizer
        .save(folder.join("tokenizer.json"), false)
        .unwrap();
    let write = |name: &str, value: serde_json::Value| {
        std::fs::write(folder.join(name), value.to_string()).unwrap()
    };
    write(
        "tokenizer_config.json",
        serde_json::json!({
            "chat_template": [{ "name": "default", "template": language.chat_template }],
            "bos_token": { "content": language.bos }, "eos_token": language.eos,
        }),
    );
    let gemma = family == "gemma3";
    write(
        "config.json",
        serde_json::json!({
            "model_type": if gemma { "gemma3_text" } else { family },
            "hidden_size": a.shape.hidden, "intermediate_size": a.shape.feed_forward,
            "num_hidden_layers": a.shape.layers, "num_attention_heads": a.shape.heads,
            "num_key_value_heads": a.shape.kv_heads, "head_dim": a.shape.head_dim,
            "vocab_size": a.shape.vocabulary, "max_position_embeddings": a.context,
            "rms_norm_eps": a.epsilon, "rope_theta": a.rope.base, "rope_scaling": null,
            "sliding_window": a.window.map(|w| w.tokens), "query_pre_attn_scalar": a.shape.head_dim,
            "eos_token_id": language.ends,
        }),
    );
    let mut file = std::fs::File::open(gguf).unwrap();
    let content = candle_core::quantized::gguf_file::Content::read(&mut file).unwrap();
    let mut shards = [HashMap::new(), HashMap::new()];
    let mut places = serde_json::Map::new();
    for name in content.tensor_infos.keys() {
        let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap();
        let mut tensor = tensor.dequantize(&Device::Cpu).unwrap();
        if family == "llama" && (name.contains("attn_q.") || name.contains("attn_k.")) {
            let order = linear::halves(tensor.dim(0).unwrap(), a.shape.head_dim);
            let order = Tensor::new(order, &Device::Cpu).unwrap();
            tensor = tensor.index_select(&order, 0).unwrap();
        }
        if gemma && name.ends_with("norm.weight") {
            tensor = (tensor - 1.0).unwrap();
        }
        let theirs = theirs(name, gemma);
        let shard = usize::from(theirs.contains("layers.1."));
        let file = format!("model-0000{}-of-00002.safetensors", shard + 1);
        places.insert(theirs.clone(), file.into());
        shards[shard].insert(theirs, tensor.to_dtype(dtype).unwrap());
    }
    for (i, shard) in shards.iter().enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", i + 1);
        candle_core::safetensors::save(shard, folder.join(file)).unwrap();
    }
    write(
        "model.safetensors.index.json",
        serde_json::json!({ "weight_map": places }),
    );
}

fn theirs(name: &str, gemma: bool) -> String {
    let mut name = name.to_owned();
    let norm = if gemma {
        "pre_feedforward_layernorm"
    } else {
        "post_attention_layernorm"
    };
    for (ours, theirs) in [
        ("token_embd", "model.embed_tokens"),
        ("output_norm", "model.norm"),
        ("blk.", "model.layers."),
        ("post_attention_norm", "post_attention_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
        ("ffn_norm", norm),
        ("attn_norm", "input_layernorm"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
        ("attn_q.", "self_attn.q_proj."),
        ("attn_k.", "self_attn.k_proj."),
        ("attn_v.", "self_attn.v_proj."),
        ("attn_output", "self_attn.o_proj"),
        ("ffn_gate", "mlp.gate_proj"),
        ("ffn_up", "mlp.up_proj"),
        ("ffn_down", "mlp.down_proj"),
    ] {
        name = name.replace(ours, theirs);
    }
    match name.as_str() {
        "output.weight" => "lm_head.weight".into(),
        _ => name,
    }
}

#[test]
fn llama_3s_frequencies_are_stretched() {
    let folder = TempDir::new().unwrap();
    let gguf = folder.path().join("model.gguf");
    tiny::generator_of(&gguf, "llama", GgmlDType::F32);
    safetensors(&gguf, "llama", folder.path(), DType::F32);
    let path = folder.path().join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let scaling = r#""rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
                     "original_max_position_embeddings":8192}"#;
    std::fs::write(&path, config.replace(r#""rope_scaling":null"#, scaling)).unwrap();
    let mut files = Folder::open(folder.path(), &Device::Cpu).unwrap();
    let architecture = files.architecture().unwrap();
    let factors = files.rope_factors(&architecture).unwrap().unwrap();
    // As `_compute_llama3_parameters` of transformers 4.57 has them, for a head of 64 and a base of 1e6.
    assert_eq!(factors.len(), 32);
    assert!(factors[..14].iter().all(|&f| f == 1.0), "{factors:?}");
    assert!(factors[18..].iter().all(|&f| f == 8.0), "{factors:?}");
    assert!(factors[14..18].is_sorted(), "{factors:?}");
    std::fs::write(
        &path,
        config.replace(
            r#""rope_scaling":null"#,
            r#""rope_scaling":{"type":"yarn"}"#,
        ),
    )
    .unwrap();
    let message = Folder::open(folder.path(), &Device::Cpu)
        .and_then(|files| files.architecture().map(|_| ()))
        .unwrap_err()
        .to_string();
    assert!(message.contains("rope scaling of type yarn"), "{message}");
}
