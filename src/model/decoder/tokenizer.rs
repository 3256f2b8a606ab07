//! The tokenizer in a GGUF file: byte pairs as GPT-2 has them, or SentencePiece's.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer};

use super::files::Files;
use super::gguf::Gguf;
use crate::model::ModelError;
use crate::model::tokenizer::TokenBytes;

/// SentencePiece's stand-in for a space.
const SPACE: char = '▁';

/// The tokenizer, and what its tokens stand for.
pub fn read(gguf: &mut Gguf) -> Result<(Tokenizer, TokenBytes), ModelError> {
    match gguf.string("tokenizer.ggml.model")? {
        "gpt2" => {
            name_splitting(gguf)?;
            let tokenizer = gguf.byte_pair_tokenizer()?;
            let bytes = TokenBytes::byte_level(&tokenizer);
            Ok((tokenizer, bytes))
        }
        "llama" => sentence_piece(gguf),
        other => Err(gguf.error(format!(
            "its tokenizer is of the kind {other}, which is not supported; use a server (models.generator.server)"
        ))),
    }
}

/// Gives the way in which text is split the name that candle has for it. It takes names that it does not know for
/// GPT-2's, and would read other tokens than the model was trained on.
fn name_splitting(gguf: &mut Gguf) -> Result<(), ModelError> {
    const KEY: &str = "tokenizer.ggml.pre";
    if gguf.get(KEY).is_none() {
        return Ok(());
    }
    let name = match gguf.string(KEY)? {
        "qwen2" | "deepseek-r1-qwen" => "qwen2",
        "llama3" | "llama-v3" | "llama-bpe" | "smaug-bpe" => "llama3",
        "default" | "gpt-2" | "gpt2" => "gpt2",
        other => {
            return Err(gguf.error(format!(
                "its tokenizer splits text in the way {other} ({KEY}), which is not supported; use a server \
                 (models.generator.server)"
            )));
        }
    };
    gguf.set(KEY, Value::String(name.into()));
    if name == "llama3" {
        gguf.set("tokenizer.ggml.ignore_merges", Value::Bool(true));
    }
    Ok(())
}

/// What GGUF says a token is (`llama_token_type`).
const NORMAL: i32 = 1;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// SentencePiece's byte pairs (Llama 2, Gemma): neighbours join whose text is a token, those of the highest score first.
fn sentence_piece(gguf: &Gguf) -> Result<(Tokenizer, TokenBytes), ModelError> {
    let tokens = gguf.list("tokenizer.ggml.tokens", |v| v.to_string().cloned())?;
    let scores = gguf.list("tokenizer.ggml.scores", Value::to_f32)?;
    let types = gguf.list("tokenizer.ggml.token_type", Value::to_i32)?;
    if scores.len() != tokens.len() || types.len() != tokens.len() {
        return Err(gguf.error("it has more tokens than scores or types; fetch it again".into()));
    }
    let prefixed = match gguf.get("tokenizer.ggml.add_space_prefix") {
        Some(Value::Bool(prefixed)) => *prefixed,
        _ => true,
    };
    let build = || -> tokenizers::Result<Tokenizer> {
        let vocabulary = (0..).zip(&tokens).map(|(id, token)| (token.clone(), id));
        let mut model = BPE::builder()
            .vocab_and_merges(
                vocabulary.collect::<Vocab>(),
                merges(&tokens, &scores, &types),
            )
            .byte_fallback(true)
            .fuse_unk(true);
        if let Some(unknown) = types.iter().position(|&kind| kind == 2) {
            model = model.unk_token(tokens[unknown].clone());
        }
        let mut tokenizer = Tokenizer::new(model.build()?);
        let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
        if prefixed {
            normalizers.push(Prepend::new(SPACE.into()).into());
        }
        normalizers.push(Replace::new(" ", SPACE.to_string())?.into());
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers)))?;
        tokenizer.with_decoder(Some(Decoders::new(vec![
            Replace::new(SPACE.to_string(), " ")?.into(),
            ByteFallback::new().into(),
            Fuse::new().into(),
        ])));
        let special = |kind: i32| kind != NORMAL && kind != BYTE;
        let added = tokens
            .iter()
            .zip(&types)
            .filter(|(_, kind)| special(**kind));
        let added: Vec<AddedToken> = added
            .map(|(token, &kind)| {
                AddedToken::from(token.clone(), kind != USER_DEFINED).normalized(false)
            })
            .collect();
        tokenizer.add_tokens(added)?;
        Ok(tokenizer)
    };
    let tokenizer =
        build().map_err(|e| gguf.error(format!("its tokenizer cannot be used: {e}")))?;
    let bytes = tokens
        .iter()
        .zip(&types)
        .map(|(token, &kind)| bytes(token, kind));
    Ok((tokenizer, TokenBytes::new(bytes)))
}

/// Every pair of tokens that make a third, best first.
fn merges(tokens: &[String], scores: &[f32], types: &[i32]) -> Vec<(String, String)> {
    let known: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .map(|(id, t)| (&t[..], id))
        .collect();
    let mut merges = Vec::new();
    for (id, token) in tokens
        .iter()
        .enumerate()
        .filter(|&(id, _)| types[id] == NORMAL)
    {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&l), Some(&r)) = (known.get(left), known.get(right)) {
                merges.push((scores[id], l, r));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let texts = merges
        .into_iter()
        .map(|(_, l, r)| (tokens[l].clone(), tokens[r].clone()));
    texts.collect()
}

/// What a token stands for; control tokens stand for nothing.
fn bytes(token: &str, kind: i32) -> Vec<u8> {
    match kind {
        NORMAL | USER_DEFINED => token.replace(SPACE, " ").into_bytes(),
        BYTE => {
            let digits = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            byte.into_iter().collect()
        }
        _ => Vec::new(),
    }
}
