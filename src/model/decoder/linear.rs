//! Quantised linear layers.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Module, Result, Tensor};

use super::gguf::Gguf;
use crate::model::ModelError;

/// A quantised linear layer whose result for a row is the same in every batch.
///
/// On x86, candle multiplies a lone Q6K row by another kernel, with another rounding, than two or more; so a lone row
/// goes in twice. The other kernels treat each row alike.
#[derive(Debug)]
pub struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
    doubled: bool,
}

impl Linear {
    pub fn new(weight: Arc<QTensor>, bias: Option<Tensor>) -> Result<Self> {
        let doubled = weight.dtype() == GgmlDType::Q6K && weight.device().is_cpu();
        Ok(Self {
            weight: QMatMul::from_arc(weight)?,
            bias,
            doubled,
        })
    }

    pub fn load(
        gguf: &mut Gguf,
        name: &str,
        out: usize,
        input: usize,
    ) -> std::result::Result<Self, ModelError> {
        Self::load_rows(gguf, name, out, input, None)
    }

    /// With `interleaved`, the rows of every head of that many are in the order 0, d/2, 1, d/2 + 1, …; they are put
    /// back in order.
    pub fn load_rows(
        gguf: &mut Gguf,
        name: &str,
        out: usize,
        input: usize,
        interleaved: Option<usize>,
    ) -> std::result::Result<Self, ModelError> {
        let mut weight = gguf.tensor(&format!("{name}.weight"), &[out, input])?;
        let bias = format!("{name}.bias");
        let mut bias = if gguf.has_tensor(&bias) {
            Some(gguf.vector(&bias, out)?)
        } else {
            None
        };
        let build = || {
            if let Some(head) = interleaved {
                let order = halves(out, head);
                weight = take_rows(&weight, &order)?;
                let order = Tensor::from_vec(order, out, &weight.device())?;
                bias = bias.map(|b| b.index_select(&order, 0)).transpose()?;
            }
            Self::new(Arc::new(weight), bias)
        };
        build().map_err(|e: candle_core::Error| gguf.error(format!("tensor {name}: {e}")))
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = if self.doubled && x.dim(0)? == 1 {
            self.weight
                .forward(&Tensor::cat(&[x, x], 0)?)?
                .narrow(0, 0, 1)?
        } else {
            self.weight.forward(x)?
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// Where the rows of interleaved heads of `head` rows stand, in order.
fn halves(rows: usize, head: usize) -> Vec<u32> {
    (0..rows)
        .map(|row| {
            let (first, i) = (row / head * head, row % head);
            let (half, place) = (i / (head / 2), i % (head / 2));
            (first + 2 * place + half) as u32
        })
        .collect()
}

/// The rows of a quantised matrix in another order. Blocks do not span rows, so nothing is lost.
fn take_rows(matrix: &QTensor, order: &[u32]) -> Result<QTensor> {
    let data = matrix.data()?;
    let row = data.len() / matrix.shape().dims()[0];
    let taken: Vec<u8> = order
        .iter()
        .flat_map(|&i| &data[i as usize * row..][..row])
        .copied()
        .collect();
    let storage = QStorage::from_data(Cow::Owned(taken), &matrix.device(), matrix.dtype())?;
    QTensor::new(storage, matrix.shape().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_are_put_back() {
        assert_eq!(halves(8, 4), [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(halves(6, 6), [0, 2, 4, 1, 3, 5]);
    }
}
