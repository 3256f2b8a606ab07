//! Tiny random models with real file formats, so that tests run the whole pipeline without downloads.
//!
//! Both are functions of their seed only. They know nothing, but the generator writes words and question marks, and
//! the embedder puts texts with the same words near each other.
#![allow(dead_code)]

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

const WORDS: &[&str] = &[
    "what", "how", "why", "when", "does", "is", "the", "a", "an", "of", "in", "to", "for", "and",
    "with", "water", "system", "method", "result", "cell", "energy", "model", "city", "law",
    "cause", "effect", "use", "work", "time", "year", "people", "change",
];
const CHAT: &str = "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\
                    {%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
const HIDDEN: usize = 256;
const FEED_FORWARD: usize = 512;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const LAYERS: usize = 2;

/// Random numbers in the order they are asked for.
struct Random(ChaCha8Rng);

impl Random {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform with the given standard deviation.
    fn tensor(&mut self, shape: &[usize], deviation: f32) -> Tensor {
        let width = deviation * 3f32.sqrt();
        let values: Vec<f32> = (0..shape.iter().product())
            .map(|_| self.0.random_range(-width..width))
            .collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }
}

/// Writes a two-layer Qwen2 GGUF with a byte-level vocabulary; its matrices are of type `dtype` (F32, Q4K, …), the
/// output matrix of type Q6K where `dtype` is Q4K, as in published Q4_K_M files.
pub fn generator(path: &Path, dtype: GgmlDType) {
    generator_of(path, "qwen2", dtype);
}

/// The same for a model of `llama`, `qwen2`, `qwen3` or `gemma3`; the last sees 8 positions in its local layers.
pub fn generator_of(path: &Path, family: &str, dtype: GgmlDType) {
    let (mut tokens, merges) = vocabulary();
    if family == "gemma3" {
        tokens = sentence_piece(tokens);
    }
    let types: Vec<Value> = tokens
        .iter()
        .map(|token| match token {
            t if t.starts_with("<|") => 3,
            t if t.starts_with("<0x") => 6,
            t if t == "<unk>" => 2,
            _ => 1,
        })
        .map(Value::I32)
        .collect();
    let scores = (0..tokens.len()).map(|i| Value::F32(-(i as f32)));
    let id = |token: &str| Value::U32(tokens.iter().position(|t| t == token).unwrap() as u32);
    let strings = |list: &[String]| Value::Array(list.iter().cloned().map(Value::String).collect());
    let sizes = [
        ("block_count", Value::U32(layers(family) as u32)),
        ("context_length", Value::U32(2048)),
        ("embedding_length", Value::U32(HIDDEN as u32)),
        ("feed_forward_length", Value::U32(FEED_FORWARD as u32)),
        ("attention.head_count", Value::U32(HEADS as u32)),
        ("attention.head_count_kv", Value::U32(KV_HEADS as u32)),
        ("attention.key_length", Value::U32(head_dim(family) as u32)),
        (
            "attention.value_length",
            Value::U32(head_dim(family) as u32),
        ),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-6)),
        ("rope.freq_base", Value::F32(1e6)),
        ("attention.sliding_window", Value::U32(8)),
    ];
    let sizes = sizes
        .into_iter()
        .filter(|(key, _)| family == "gemma3" || *key != "attention.sliding_window");
    let architecture = (
        "general.architecture".to_owned(),
        Value::String(family.into()),
    );
    let mut metadata = vec![architecture];
    metadata.extend(sizes.map(|(key, value)| (format!("{family}.{key}"), value)));
    let rest = [
        (
            "tokenizer.ggml.model",
            Value::String(if family == "gemma3" { "llama" } else { "gpt2" }.into()),
        ),
        ("tokenizer.ggml.scores", Value::Array(scores.collect())),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
        ("tokenizer.ggml.pre", Value::String("qwen2".into())),
        ("tokenizer.ggml.tokens", strings(&tokens)),
        ("tokenizer.ggml.token_type", Value::Array(types)),
        ("tokenizer.ggml.merges", strings(&merges)),
        ("tokenizer.ggml.eos_token_id", id("<|im_end|>")),
        ("tokenizer.ggml.bos_token_id", id("<|endoftext|>")),
        ("tokenizer.chat_template", Value::String(CHAT.into())),
    ];
    metadata.extend(rest.map(|(key, value)| (key.to_owned(), value)));
    let tensors = generator_tensors(&tokens, family, dtype);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(k, v)| (k.as_str(), v)).collect();
    gguf_file::write(&mut File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

/// Gemma 3 has a layer that sees everything after five that do not.
fn layers(family: &str) -> usize {
    if family == "gemma3" { 7 } else { LAYERS }
}

/// Of some families it is not the hidden size divided by the heads.
fn head_dim(family: &str) -> usize {
    if ["qwen3", "gemma3"].contains(&family) {
        32
    } else {
        HIDDEN / HEADS
    }
}

fn generator_tensors(tokens: &[String], family: &str, dtype: GgmlDType) -> Vec<(String, QTensor)> {
    let mut random = Random::new(1);
    let mut tensors = Vec::new();
    let mut add = |name: String, tensor: Tensor, dtype| {
        tensors.push((name, QTensor::quantize(&tensor, dtype).unwrap()))
    };
    let (wide, kv) = (HEADS * head_dim(family), KV_HEADS * head_dim(family));
    let ones = |n: usize| Tensor::ones(n, candle_core::DType::F32, &Device::Cpu).unwrap();
    let mut norms = vec!["attn_norm", "ffn_norm"];
    if family == "gemma3" {
        norms.extend(["post_attention_norm", "post_ffw_norm"]);
    }
    for i in 0..layers(family) {
        for (name, out, input) in [
            ("attn_q", wide, HIDDEN),
            ("attn_k", kv, HIDDEN),
            ("attn_v", kv, HIDDEN),
            ("attn_output", HIDDEN, wide),
            ("ffn_gate", FEED_FORWARD, HIDDEN),
            ("ffn_up", FEED_FORWARD, HIDDEN),
            ("ffn_down", HIDDEN, FEED_FORWARD),
        ] {
            add(
                format!("blk.{i}.{name}.weight"),
                random.tensor(&[out, input], (input as f32).powf(-0.5)),
                dtype,
            );
            if family == "qwen2" && ["attn_q", "attn_k", "attn_v"].contains(&name) {
                add(
                    format!("blk.{i}.{name}.bias"),
                    random.tensor(&[out], 0.5),
                    GgmlDType::F32,
                );
            }
        }
        for norm in &norms {
            add(
                format!("blk.{i}.{norm}.weight"),
                ones(HIDDEN),
                GgmlDType::F32,
            );
        }
        if ["qwen3", "gemma3"].contains(&family) {
            for norm in ["attn_q_norm", "attn_k_norm"] {
                let weight = (random.tensor(&[head_dim(family)], 0.1) + 1.0).unwrap();
                add(format!("blk.{i}.{norm}.weight"), weight, GgmlDType::F32);
            }
        }
    }
    add("output_norm.weight".into(), ones(HIDDEN), GgmlDType::F32);
    // Gemma's are scaled by the root of their size when they are read.
    let size = match family {
        "gemma3" => (HIDDEN as f32).powf(-0.5),
        _ => 1.0,
    };
    add(
        "token_embd.weight".into(),
        random.tensor(&[tokens.len(), HIDDEN], size),
        dtype,
    );
    // Bytes and halves of words have no weights, so that what is drawn is nearly always a word.
    let scale: Vec<f32> = tokens
        .iter()
        .map(|t| match t.as_str() {
            "Ċ" | "<0x0A>" | "?" | "<|im_end|>" => 0.25,
            t if t
                .strip_prefix(['Ġ', '▁'])
                .is_some_and(|word| WORDS.contains(&word)) =>
            {
                0.25
            }
            _ => 0.0,
        })
        .collect();
    let scale = Tensor::from_vec(scale, (tokens.len(), 1), &Device::Cpu).unwrap();
    let output = random
        .tensor(&[tokens.len(), HIDDEN], 1.0)
        .broadcast_mul(&scale)
        .unwrap();
    add(
        "output.weight".into(),
        output,
        if dtype == GgmlDType::Q4K {
            GgmlDType::Q6K
        } else {
            dtype
        },
    );
    tensors
}

/// Bytes, the prefixes of the words, the words, and special tokens; and the merges that build the words. The number of
/// tokens is a multiple of 16, as in published vocabularies.
fn vocabulary() -> (Vec<String>, Vec<String>) {
    let mut next = 256;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|b| {
            if matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
                char::from(b)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap()
            }
        })
        .map(String::from)
        .collect();
    let (mut merges, mut seen) = (Vec::new(), BTreeSet::new());
    for word in WORDS {
        let chars: Vec<char> = format!("Ġ{word}").chars().collect();
        for n in 2..=chars.len() {
            let whole: String = chars[..n].iter().collect();
            if seen.insert(whole.clone()) {
                let (left, right): (String, char) = (chars[..n - 1].iter().collect(), chars[n - 1]);
                merges.push(format!("{left} {right}"));
                tokens.push(whole);
            }
        }
    }
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from));
    while !tokens.len().is_multiple_of(16) {
        tokens.push(format!("<|unused_{}|>", tokens.len()));
    }
    (tokens, merges)
}

/// The same vocabulary as SentencePiece writes it.
fn sentence_piece(tokens: Vec<String>) -> Vec<String> {
    let token = |(i, token): (usize, String)| match i {
        0x20 => "▁".into(),
        0x21..=0x7e => token,
        0..=0xff => format!("<0x{i:02X}>"),
        _ => token.replace('Ġ', "▁"),
    };
    let mut tokens: Vec<String> = tokens.into_iter().enumerate().map(token).collect();
    tokens.pop();
    tokens.push("<unk>".into());
    tokens
}

/// Writes a two-layer BERT (64 dimensions, WordPiece of single letters and the words above) into `folder`: config.json,
/// tokenizer.json and model.safetensors. `prefix` stands before the tensors' names: `bert.` or nothing.
pub fn embedder(folder: &Path, prefix: &str) {
    embedder_of(folder, prefix, 1);
}

/// The same model with other weights for every seed.
pub fn embedder_of(folder: &Path, prefix: &str, seed: u64) {
    let (hidden, feed_forward, layers, positions) = (64, 128, 2, 128);
    let mut vocabulary: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .map(String::from)
        .to_vec();
    vocabulary.extend(WORDS.iter().filter(|w| w.len() > 1).map(|w| w.to_string()));
    for c in ('a'..='z').chain('0'..='9') {
        vocabulary.extend([c.to_string(), format!("##{c}")]);
    }
    vocabulary.extend(".,;:?!()-'\"".chars().map(String::from));
    let config = json!({
        "model_type": "bert", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4,
        "intermediate_size": feed_forward, "max_position_embeddings": positions, "vocab_size": vocabulary.len(),
        "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    });
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(
        folder.join("tokenizer.json"),
        wordpiece(&vocabulary).to_string(),
    )
    .unwrap();

    let mut random = Random::new(seed);
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let mut add = |name: String, tensor: Tensor| tensors.insert(format!("{prefix}{name}"), tensor);
    add(
        "embeddings.word_embeddings.weight".into(),
        random.tensor(&[vocabulary.len(), hidden], 1.0),
    );
    add(
        "embeddings.position_embeddings.weight".into(),
        random.tensor(&[positions, hidden], 0.1),
    );
    add(
        "embeddings.token_type_embeddings.weight".into(),
        random.tensor(&[2, hidden], 0.1),
    );
    let mut norms = vec!["embeddings.LayerNorm".to_string()];
    for i in 0..layers {
        let layer = format!("encoder.layer.{i}");
        for (name, out, input) in [
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", feed_forward, hidden),
            ("output.dense", hidden, feed_forward),
        ] {
            add(
                format!("{layer}.{name}.weight"),
                random.tensor(&[out, input], (input as f32).powf(-0.5)),
            );
            add(format!("{layer}.{name}.bias"), random.tensor(&[out], 0.1));
        }
        norms.extend([
            format!("{layer}.attention.output.LayerNorm"),
            format!("{layer}.output.LayerNorm"),
        ]);
    }
    for norm in norms {
        add(
            format!("{norm}.weight"),
            (random.tensor(&[hidden], 0.1) + 1.0).unwrap(),
        );
        add(format!("{norm}.bias"), random.tensor(&[hidden], 0.1));
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}

/// Gives the BERT model in `folder` a masked-language-model head, which shares the word embeddings, and a classification
/// head of one class.
pub fn heads(folder: &Path) {
    let path = folder.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let (vocabulary, hidden) = tensors["embeddings.word_embeddings.weight"]
        .dims2()
        .unwrap();
    let mut random = Random::new(9);
    for (name, shape, size) in [
        (
            "cls.predictions.transform.dense.weight",
            vec![hidden, hidden],
            0.125,
        ),
        ("cls.predictions.transform.dense.bias", vec![hidden], 0.1),
        (
            "cls.predictions.transform.LayerNorm.gamma",
            vec![hidden],
            0.2,
        ),
        (
            "cls.predictions.transform.LayerNorm.beta",
            vec![hidden],
            0.1,
        ),
        ("cls.predictions.bias", vec![vocabulary], 0.5),
        ("pooler.dense.weight", vec![hidden, hidden], 0.125),
        ("pooler.dense.bias", vec![hidden], 0.1),
        ("classifier.weight", vec![1, hidden], 0.125),
        ("classifier.bias", vec![1], 0.1),
    ] {
        tensors.insert(name.into(), random.tensor(&shape, size));
    }
    candle_core::safetensors::save(&tensors, path).unwrap();
}

/// Makes a nomic-bert of the BERT model in `folder`, with random weights of its own where BERT has none.
pub fn nomic(folder: &Path) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let config: serde_json::Value = serde_json::from_str(&read("config.json")).unwrap();
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, wide, layers) = (
        size("hidden_size"),
        size("intermediate_size"),
        size("num_hidden_layers"),
    );
    let nomic = json!({
        "model_type": "nomic_bert", "n_embd": hidden, "n_layer": layers, "n_head": size("num_attention_heads"),
        "n_inner": wide, "n_positions": size("max_position_embeddings"), "vocab_size": size("vocab_size"),
        "type_vocab_size": 2, "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
        "activation_function": "swiglu", "prenorm": false, "qkv_proj_bias": false,
    });
    std::fs::write(folder.join("config.json"), nomic.to_string()).unwrap();
    let path = folder.join("model.safetensors");
    let mut bert = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let mut random = Random::new(5);
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let mut rename = |from: String, to: String| tensors.insert(to, bert.remove(&from).unwrap());
    for name in ["word", "token_type"] {
        let name = format!("embeddings.{name}_embeddings.weight");
        rename(name.clone(), name);
    }
    for part in ["weight", "bias"] {
        rename(
            format!("embeddings.LayerNorm.{part}"),
            format!("emb_ln.{part}"),
        );
        for i in 0..layers {
            let name = |norm: &str| format!("encoder.layer.{i}.{norm}.{part}");
            rename(
                name("attention.output.LayerNorm"),
                format!("encoder.layers.{i}.norm1.{part}"),
            );
            rename(
                name("output.LayerNorm"),
                format!("encoder.layers.{i}.norm2.{part}"),
            );
        }
    }
    for i in 0..layers {
        for (name, out, input) in [
            ("attn.Wqkv", 3 * hidden, hidden),
            ("attn.out_proj", hidden, hidden),
            ("mlp.fc11", wide, hidden),
            ("mlp.fc12", wide, hidden),
            ("mlp.fc2", hidden, wide),
        ] {
            let weight = random.tensor(&[out, input], (input as f32).powf(-0.5));
            tensors.insert(format!("encoder.layers.{i}.{name}.weight"), weight);
        }
    }
    candle_core::safetensors::save(&tensors, path).unwrap();
}

fn wordpiece(vocabulary: &[String]) -> serde_json::Value {
    let ids: serde_json::Map<String, serde_json::Value> = vocabulary
        .iter()
        .enumerate()
        .map(|(i, token)| (token.clone(), json!(i)))
        .collect();
    let special = |i: usize| {
        json!({"id": i, "content": vocabulary[i], "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": ids},
    })
}
