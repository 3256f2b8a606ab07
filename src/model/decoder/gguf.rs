//! A GGUF file, checked before it is read: a truncated or foreign file ends in a message, never in a panic.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::quantized::{QTensor, tokenizer::TokenizerFromGguf};
use candle_core::{Device, Tensor};
use tokenizers::Tokenizer;

use super::architecture::{Architecture, Family};
use super::files::{Files, Language};
use super::linear::{Matrix, halves, take_rows};
use super::tokenizer;
use crate::model::ModelError;

/// An open GGUF file: its metadata, and its tensors on demand.
pub struct Gguf {
    path: PathBuf,
    reader: BufReader<File>,
    content: Content,
    device: Device,
}

impl Gguf {
    /// Opens the file and checks that every tensor it declares lies inside it.
    pub fn open(path: &Path, device: &Device) -> Result<Self, ModelError> {
        let fail = |message: String| ModelError::File {
            path: path.into(),
            message,
        };
        let file = File::open(path).map_err(|e| fail(format!("cannot be opened: {e}")))?;
        let length = file.metadata().map_err(|e| fail(e.to_string()))?.len();
        if length == 0 {
            return Err(fail("the file is empty; fetch it again".into()));
        }
        let mut reader = BufReader::new(file);
        let content = Content::read(&mut reader).map_err(|e| {
            fail(format!(
                "not a GGUF file, or a truncated one ({e}); fetch it again"
            ))
        })?;
        let gguf = Self {
            path: path.into(),
            reader,
            content,
            device: device.clone(),
        };
        gguf.check_extent(length)?;
        Ok(gguf)
    }

    fn check_extent(&self, length: u64) -> Result<(), ModelError> {
        let mut names: Vec<&String> = self.content.tensor_infos.keys().collect();
        names.sort();
        for name in names {
            let info = &self.content.tensor_infos[name];
            let block = info.ggml_dtype.block_size() as u64;
            let end = info
                .shape
                .dims()
                .iter()
                .try_fold(1u64, |n, &d| n.checked_mul(d as u64))
                .and_then(|n| (n / block).checked_mul(info.ggml_dtype.type_size() as u64))
                .and_then(|bytes| bytes.checked_add(info.offset))
                .and_then(|end| end.checked_add(self.content.tensor_data_offset));
            if end.is_none_or(|end| end > length) {
                return Err(self.error(format!(
                    "truncated: tensor {name} ends beyond the file's {length} bytes; fetch the file again"
                )));
            }
        }
        Ok(())
    }

    /// The value of a metadata key, if the file has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    fn require(&self, key: &str) -> Result<&Value, ModelError> {
        self.get(key).ok_or_else(|| {
            self.error(format!(
                "metadata key {key} is missing; use another conversion"
            ))
        })
    }

    pub fn string(&self, key: &str) -> Result<&str, ModelError> {
        let value = self.require(key)?.to_string();
        value
            .map(String::as_str)
            .map_err(|e| self.error(format!("metadata key {key}: {e}")))
    }

    pub fn count(&self, key: &str) -> Result<usize, ModelError> {
        let value = self.require(key)?.to_u32();
        value
            .map(|v| v as usize)
            .map_err(|e| self.error(format!("metadata key {key}: {e}")))
    }

    pub fn float(&self, key: &str) -> Result<f32, ModelError> {
        self.require(key)?
            .to_f32()
            .map_err(|e| self.error(format!("metadata key {key}: {e}")))
    }

    /// The tensor `name`, which must have the given shape (rows first).
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<QTensor, ModelError> {
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Err(self.error(format!(
                "tensor {name} is missing; use another conversion of the model"
            )));
        };
        if info.shape.dims() != shape {
            let found = info.shape.dims().to_vec();
            return Err(self.error(format!("tensor {name} is {found:?}, expected {shape:?}")));
        }
        let read = self.content.tensor(&mut self.reader, name, &self.device);
        read.map_err(|e| self.error(format!("tensor {name} cannot be read: {e}")))
    }

    /// Replaces a metadata key's value, or adds it.
    pub fn set(&mut self, key: &str, value: Value) {
        self.content.metadata.insert(key.into(), value);
    }

    /// What candle makes of the tokenizer in the file.
    pub fn byte_pair_tokenizer(&self) -> Result<Tokenizer, ModelError> {
        Tokenizer::from_gguf(&self.content)
            .map_err(|e| self.error(format!("its tokenizer cannot be used: {e}")))
    }

    /// The values of a metadata list.
    pub fn list<T>(
        &self,
        key: &str,
        value: impl Fn(&Value) -> candle_core::Result<T>,
    ) -> Result<Vec<T>, ModelError> {
        let values = self.require(key)?.to_vec();
        let values = values.and_then(|values| values.iter().map(value).collect());
        values.map_err(|e| self.error(format!("metadata key {key}: {e}")))
    }
}

impl Files for Gguf {
    fn error(&self, message: String) -> ModelError {
        ModelError::File {
            path: self.path.clone(),
            message,
        }
    }

    fn architecture(&self) -> Result<Architecture, ModelError> {
        Architecture::read(self)
    }

    fn language(&mut self) -> Result<Language, ModelError> {
        let (tokenizer, bytes) = tokenizer::read(self)?;
        let template = self.string("tokenizer.chat_template").map(String::from);
        let chat_template = template.map_err(|_| {
            self.error("it has no tokenizer.chat_template; use an instruction-tuned model".into())
        })?;
        let id = |key: &str| match self.get(key) {
            Some(_) => self.count(key).map(|id| Some(id as u32)),
            None => Ok(None),
        };
        let (bos, eos) = (
            id("tokenizer.ggml.bos_token_id")?,
            id("tokenizer.ggml.eos_token_id")?,
        );
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id));
        Ok(Language {
            bos: token(bos).unwrap_or_default(),
            eos: token(eos).unwrap_or_default(),
            tokenizer,
            bytes,
            ends: eos.into_iter().collect(),
            chat_template,
        })
    }

    fn has_tensor(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    fn matrix(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
        head: Option<usize>,
    ) -> Result<Matrix, ModelError> {
        let mut tensor = self.tensor(name, &[out, input])?;
        let interleaved = self.interleaved(head);
        let build = || {
            if let Some(head) = interleaved {
                tensor = take_rows(&tensor, &halves(out, head))?;
            }
            Matrix::new(tensor)
        };
        build().map_err(|e| self.error(format!("tensor {name}: {e}")))
    }

    fn vector(
        &mut self,
        name: &str,
        length: usize,
        head: Option<usize>,
    ) -> Result<Tensor, ModelError> {
        let tensor = self.tensor(name, &[length])?;
        let interleaved = self.interleaved(head);
        let build = || {
            let tensor = tensor.dequantize(&self.device)?;
            match interleaved {
                Some(head) => {
                    let order = Tensor::from_vec(halves(length, head), length, &self.device)?;
                    tensor.index_select(&order, 0)
                }
                None => Ok(tensor),
            }
        };
        build().map_err(|e: candle_core::Error| {
            self.error(format!("tensor {name} cannot be read: {e}"))
        })
    }

    fn rope_factors(
        &mut self,
        architecture: &Architecture,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        const NAME: &str = "rope_freqs.weight";
        if !self.has_tensor(NAME) {
            return Ok(None);
        }
        let factors = self.vector(NAME, architecture.shape.head_dim / 2, None)?;
        let factors = factors.to_vec1().map_err(|e| self.error(e.to_string()))?;
        Ok(Some(factors))
    }
}

impl Gguf {
    /// Conversions of Llama have the two halves of each head interleaved.
    fn interleaved(&self, head: Option<usize>) -> Option<usize> {
        let name = self.string("general.architecture");
        head.filter(|_| name.is_ok_and(|name| name == Family::Llama.name()))
    }
}
