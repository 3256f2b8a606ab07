//! The tensors of a model's `model.safetensors`, checked against its configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use intendex_kernels::quant::{Kind, Quantized};

use super::config::Config;
use super::encoder::{Linear, Norm, Weight};
use crate::job::spec::Precision;
use crate::model::ModelError;

/// The tensors of a safetensors file, taken out by name.
pub struct Weights {
    path: PathBuf,
    tensors: HashMap<String, Tensor>,
    /// Before the names of the encoder's tensors; those of heads have none.
    prefix: &'static str,
    dtype: DType,
    /// Whether matrices of linear layers are rounded to 8 bits.
    int8: bool,
}

/// The type of the weights' numbers in memory. The error says that this precision is not for this device.
pub fn number_type(precision: Precision, device: &Device) -> Result<DType, ModelError> {
    match (precision, device.is_cpu()) {
        (Precision::F32, _) | (Precision::Int8, true) => Ok(DType::F32),
        (Precision::F16, false) => Ok(DType::F16),
        (Precision::Bf16, false) => Ok(DType::BF16),
        (precision, on_cpu) => {
            let (name, others) = match on_cpu {
                true => ("cpu", "\"f32\" or \"int8\""),
                false => ("cuda", "\"f32\", \"f16\" or \"bf16\""),
            };
            Err(ModelError::Device {
                name: name.into(),
                message: format!(
                    "{precision} is not for it; set models.embedder.precision to {others}"
                ),
            })
        }
    }
}

impl Weights {
    pub fn open(folder: &Path, precision: Precision, device: &Device) -> Result<Self, ModelError> {
        let path = folder.join("model.safetensors");
        let fail = |message: String| ModelError::File {
            path: path.clone(),
            message,
        };
        if !path.is_file() {
            return Err(fail(
                "not found; use a model published as safetensors, or convert it".into(),
            ));
        }
        let dtype = number_type(precision, device)?;
        let tensors = candle_core::safetensors::load(&path, device).map_err(|e| {
            fail(format!(
                "not a safetensors file, or a truncated one ({e}); fetch it again"
            ))
        })?;
        let prefix = if tensors.contains_key("bert.embeddings.word_embeddings.weight") {
            "bert."
        } else {
            ""
        };
        Ok(Self {
            path,
            tensors,
            prefix,
            dtype,
            int8: precision == Precision::Int8,
        })
    }

    /// In another type than the CPU's pass takes.
    #[cfg(test)]
    pub fn in_dtype(folder: &Path, dtype: DType) -> Self {
        let weights = Self::open(folder, Precision::F32, &Device::Cpu);
        Self {
            dtype,
            ..weights.unwrap()
        }
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// An error that names this file.
    pub fn error(&self, message: impl ToString) -> ModelError {
        ModelError::File {
            path: self.path.clone(),
            message: message.to_string(),
        }
    }

    /// Whether the file has a tensor of exactly this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of exactly this name.
    pub fn exact(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(self.error(format!(
                "tensor {name} is missing; is this the model its config.json describes?"
            )));
        };
        if tensor.dims() != shape {
            let found = tensor.dims();
            return Err(self.error(format!(
                "tensor {name} is {found:?}, but config.json says {shape:?}"
            )));
        }
        tensor
            .to_dtype(self.dtype)
            .map_err(|e| self.error(format!("tensor {name}: {e}")))
    }

    /// A tensor of the encoder.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        self.exact(&format!("{}{name}", self.prefix), shape)
    }

    /// A linear layer of the encoder, with its bias if `biased`.
    pub fn linear(
        &mut self,
        name: &str,
        out: usize,
        input: usize,
        biased: bool,
    ) -> Result<Linear, ModelError> {
        let weight = self.take(&format!("{name}.weight"), &[out, input])?;
        let bias = match biased {
            true => Some(self.take(&format!("{name}.bias"), &[out])?),
            false => None,
        };
        self.finish(weight, bias)
    }

    /// A linear layer in the precision asked for.
    pub fn finish(&self, weight: Tensor, bias: Option<Tensor>) -> Result<Linear, ModelError> {
        let weight = match self.int8 {
            true => Weight::Int8(int8(&weight).map_err(|e| self.error(e))?),
            false => Weight::Full(weight),
        };
        Ok(Linear { weight, bias })
    }

    /// A linear layer of a head, under its exact name and in full precision.
    pub fn head(&mut self, name: &str, out: usize, input: usize) -> Result<Linear, ModelError> {
        Ok(Linear {
            weight: Weight::Full(self.exact(&format!("{name}.weight"), &[out, input])?),
            bias: Some(self.exact(&format!("{name}.bias"), &[out])?),
        })
    }

    /// A norm of the encoder.
    pub fn norm(&mut self, name: &str, config: &Config) -> Result<Norm, ModelError> {
        self.exact_norm(&format!("{}{name}", self.prefix), config)
    }

    /// A norm under its exact name. Old files call its weight gamma and its bias beta.
    pub fn exact_norm(&mut self, name: &str, config: &Config) -> Result<Norm, ModelError> {
        let [weight, bias] = match self.has(&format!("{name}.gamma")) {
            true => ["gamma", "beta"],
            false => ["weight", "bias"],
        };
        Ok(Norm {
            weight: self.exact(&format!("{name}.{weight}"), &[config.hidden_size])?,
            bias: self.exact(&format!("{name}.{bias}"), &[config.hidden_size])?,
            epsilon: config.layer_norm_eps as f32,
        })
    }
}

/// A matrix rounded to 8 bits, in blocks of 32 inputs with a scale each (GGUF's Q8_0).
fn int8(weight: &Tensor) -> candle_core::Result<Quantized> {
    let (out, input) = weight.dims2()?;
    let blocks = QTensor::quantize(weight, GgmlDType::Q8_0)?;
    Quantized::pack(Kind::Q8_0, &blocks.data()?, out, input).map_err(candle_core::Error::wrap)
}
