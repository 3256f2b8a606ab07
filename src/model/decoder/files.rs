//! What a decoder is read from, whatever the format. Tensors go by their names in GGUF.

use candle_core::Tensor;
use tokenizers::Tokenizer;

use super::architecture::Architecture;
use super::linear::Matrix;
use crate::model::ModelError;
use crate::model::tokenizer::TokenBytes;

/// An open model.
pub trait Files {
    /// An error that names the file.
    fn error(&self, message: String) -> ModelError;

    fn architecture(&self) -> Result<Architecture, ModelError>;

    fn language(&mut self) -> Result<Language, ModelError>;

    fn has_tensor(&self, name: &str) -> bool;

    /// The matrix `name`, `[out, input]`. Where `head` is given, its rows belong to heads of so many, whose two halves are
    /// rotated against each other.
    fn matrix(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
        head: Option<usize>,
    ) -> Result<Matrix, ModelError>;

    /// The one-dimensional tensor `name` in f32; `head` as for a matrix.
    fn vector(
        &mut self,
        name: &str,
        length: usize,
        head: Option<usize>,
    ) -> Result<Tensor, ModelError>;

    /// What each frequency of the rotary embedding is divided by besides, `head_dim / 2` of them.
    fn rope_factors(&mut self, architecture: &Architecture)
    -> Result<Option<Vec<f32>>, ModelError>;
}

/// How text becomes tokens, tokens text, and a conversation a prompt.
pub struct Language {
    pub tokenizer: Tokenizer,
    pub bytes: TokenBytes,
    /// Tokens that end an answer by the files' own account.
    pub ends: Vec<u32>,
    /// Jinja, as Hugging Face's transformers have it.
    pub chat_template: String,
    pub bos: String,
    pub eos: String,
}
