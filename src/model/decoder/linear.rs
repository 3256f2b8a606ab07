//! Linear layers: on the CPU by the kernels of [`quant`](intendex_kernels::quant) and [`matrix`](intendex_kernels::matrix),
//! elsewhere and for types these do not know by candle's.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};
use rayon::prelude::*;

use super::architecture::Activation;
use super::files::Files;
use crate::model::ModelError;
use crate::model::floats::floats;
use intendex_kernels::matrix;
use intendex_kernels::quant::{Activations, Kind, Quantized, project};
use intendex_kernels::vector;

/// A matrix `[out, input]` of a file. Results for a row are the same in every batch, if it is packed.
#[derive(Debug)]
pub enum Matrix {
    Packed(Quantized),
    /// f32 on the CPU, bf16 on a GPU.
    Dense(Tensor),
    /// On the CPU.
    Candle(QMatMul),
}

impl Matrix {
    pub fn new(tensor: QTensor) -> Result<Self> {
        if !tensor.device().is_cpu() {
            return Self::dense(tensor.dequantize(&tensor.device())?);
        }
        match (kind(tensor.dtype()), tensor.dtype()) {
            (Some(kind), _) => {
                let (out, input) = tensor.shape().dims2()?;
                let packed = Quantized::pack(kind, &tensor.data()?, out, input);
                Ok(Self::Packed(packed.map_err(candle_core::Error::wrap)?))
            }
            (_, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16) => {
                Self::dense(tensor.dequantize(&tensor.device())?)
            }
            _ => Ok(Self::Candle(QMatMul::from_arc(Arc::new(tensor))?)),
        }
    }

    pub fn dense(tensor: Tensor) -> Result<Self> {
        let dtype = match tensor.device().is_cpu() {
            true => DType::F32,
            false => DType::BF16,
        };
        Ok(Self::Dense(tensor.to_dtype(dtype)?.contiguous()?))
    }

    /// The given rows, in f32 `[ids, input]`.
    pub fn rows(&self, ids: &[u32], device: &Device) -> Result<Tensor> {
        let packed = match self {
            Self::Packed(packed) => packed,
            Self::Dense(matrix) => {
                let ids = Tensor::new(ids, device)?;
                return matrix.index_select(&ids, 0)?.to_dtype(DType::F32);
            }
            Self::Candle(matrix) => {
                let ids = Tensor::new(ids, device)?;
                return match matrix {
                    QMatMul::QTensor(matrix) => matrix.embedding(&ids),
                    QMatMul::Tensor(matrix) | QMatMul::TensorF16(matrix) => {
                        matrix.index_select(&ids, 0)?.to_dtype(DType::F32)
                    }
                };
            }
        };
        if let Some(id) = ids.iter().find(|&&id| id as usize >= packed.out()) {
            candle_core::bail!("there is no row {id} in {}", packed.out());
        }
        let mut rows = vec![0.0; ids.len() * packed.input()];
        rows.par_chunks_mut(packed.input())
            .zip(ids)
            .for_each(|(row, &id)| packed.row(id as usize, row));
        Tensor::from_vec(rows, (ids.len(), packed.input()), device)
    }
}

/// x Wᵀ + bias.
#[derive(Debug)]
pub struct Linear {
    matrix: Arc<Matrix>,
    bias: Option<Tensor>,
}

impl Linear {
    pub fn new(matrix: Arc<Matrix>, bias: Option<Tensor>) -> Self {
        Self { matrix, bias }
    }

    /// Reads `{name}.weight` and, if there is one, `{name}.bias`.
    pub fn load(
        files: &mut dyn Files,
        name: &str,
        out: usize,
        input: usize,
    ) -> std::result::Result<Self, ModelError> {
        Self::read(files, name, out, input, None)
    }

    /// The same of a layer whose rows are those of heads of `head`, which are rotated by their positions.
    pub fn load_heads(
        files: &mut dyn Files,
        name: &str,
        out: usize,
        input: usize,
        head: usize,
    ) -> std::result::Result<Self, ModelError> {
        Self::read(files, name, out, input, Some(head))
    }

    fn read(
        files: &mut dyn Files,
        name: &str,
        out: usize,
        input: usize,
        head: Option<usize>,
    ) -> std::result::Result<Self, ModelError> {
        let matrix = files.matrix(&format!("{name}.weight"), out, input, head)?;
        let bias = format!("{name}.bias");
        let bias = match files.has_tensor(&bias) {
            true => Some(files.vector(&bias, out, head)?),
            false => None,
        };
        Ok(Self::new(Arc::new(matrix), bias))
    }

    /// The weights and the bias of a layer whose weights are dense.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "a GPU's"))]
    pub fn dense(&self) -> Result<(&Tensor, Option<&Tensor>)> {
        match &*self.matrix {
            Matrix::Dense(matrix) => Ok((matrix, self.bias.as_ref())),
            Matrix::Packed(_) | Matrix::Candle(_) => candle_core::bail!("the layer is quantised"),
        }
    }

    /// The layer of some outputs only.
    pub fn take(&self, outputs: &[u32]) -> Result<Self> {
        let index = |of: &Tensor| Tensor::new(outputs, of.device());
        let matrix = match &*self.matrix {
            Matrix::Packed(packed) => Matrix::Packed(packed.take(outputs)),
            Matrix::Dense(matrix) => Matrix::Dense(matrix.index_select(&index(matrix)?, 0)?),
            Matrix::Candle(_) => candle_core::bail!("rows of this type of matrix cannot be taken"),
        };
        let bias = match &self.bias {
            Some(bias) => Some(bias.index_select(&index(bias)?, 0)?),
            None => None,
        };
        Ok(Self::new(Arc::new(matrix), bias))
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = forward(x, [self])?;
        Ok(y)
    }
}

/// The products of the same rows `[n, input]` with several layers.
pub fn forward<const L: usize>(x: &Tensor, layers: [&Linear; L]) -> Result<[Tensor; L]> {
    match packed(layers) {
        Some(packed) => {
            let n = x.dim(0)?;
            let mut all = Vec::with_capacity(L);
            for (y, matrix) in multiply(x, layers, packed)?.into_iter().zip(packed) {
                all.push(Tensor::from_vec(y, (n, matrix.out()), x.device())?);
            }
            all.try_into()
                .map_err(|_| candle_core::Error::msg("a product for each layer"))
        }
        None => {
            let all = layers.map(|layer| one(x, layer));
            let all = all.into_iter().collect::<Result<Vec<_>>>()?;
            all.try_into()
                .map_err(|_| candle_core::Error::msg("a product for each layer"))
        }
    }
}

/// activation(x Gᵀ) · (x Uᵀ), the wide side of a gated feed-forward layer.
pub fn gated(x: &Tensor, gate: &Linear, up: &Linear, activation: Activation) -> Result<Tensor> {
    let Some(packed) = packed([gate, up]) else {
        let gated = match activation {
            Activation::Silu => one(x, gate)?.silu()?,
            Activation::Gelu => one(x, gate)?.gelu()?,
        };
        return gated * one(x, up)?;
    };
    let [mut gated, up] = multiply(x, [gate, up], packed)?;
    let width = packed[0].out();
    let rows = gated.par_chunks_mut(width).zip(up.par_chunks(width));
    rows.for_each(|(gate, up)| match activation {
        Activation::Silu => vector::swiglu(gate, up),
        Activation::Gelu => vector::geglu(gate, up),
    });
    Tensor::from_vec(gated, (x.dim(0)?, width), x.device())
}

/// The packed matrices, if all are.
fn packed<const L: usize>(layers: [&Linear; L]) -> Option<[&Quantized; L]> {
    let mut all = Vec::with_capacity(L);
    for layer in layers {
        match &*layer.matrix {
            Matrix::Packed(packed) => all.push(packed),
            Matrix::Dense(_) | Matrix::Candle(_) => return None,
        }
    }
    all.try_into().ok()
}

fn multiply<const L: usize>(
    x: &Tensor,
    layers: [&Linear; L],
    packed: [&Quantized; L],
) -> Result<[Vec<f32>; L]> {
    let n = x.dim(0)?;
    let mut all = packed.map(|matrix| vec![0.0; n * matrix.out()]);
    let x = x.contiguous()?;
    let products = packed.into_iter().zip(&mut all);
    let mut products: Vec<_> = products.map(|(m, y)| (m, &mut y[..])).collect();
    project(
        &Activations::new(&floats(&x)?, packed[0].input()),
        &mut products,
    );
    for (layer, y) in layers.iter().zip(&mut all) {
        if let Some(bias) = &layer.bias {
            let bias = floats(bias)?;
            for row in y.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(&*bias).for_each(|(y, b)| *y += b);
            }
        }
    }
    Ok(all)
}

fn one(x: &Tensor, layer: &Linear) -> Result<Tensor> {
    let y = match &*layer.matrix {
        Matrix::Candle(matrix) => matrix.forward(x)?,
        Matrix::Dense(matrix) => dense(x, matrix)?,
        Matrix::Packed(_) => return layer.forward(x),
    };
    match &layer.bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// x Wᵀ on the CPU, pieces of W over the threads.
fn dense(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let (n, input) = x.dims2()?;
    let out = matrix.dim(0)?;
    let x = x.contiguous()?;
    let (rows, weights) = (floats(&x)?, floats(matrix)?);
    let rows = matrix::Matrix::rows(&rows, n, input, input);
    let piece = out.div_ceil(8 * rayon::current_num_threads()).max(64);
    let pieces: Vec<Vec<f32>> = weights
        .par_chunks(piece * input)
        .map(|weights| {
            let width = weights.len() / input;
            let mut y = vec![0.0; n * width];
            let weights = matrix::Matrix::rows(weights, width, input, input);
            matrix::multiply(rows, weights.transposed(), &mut y, width, false);
            y
        })
        .collect();
    let mut y = Vec::with_capacity(n * out);
    for row in 0..n {
        for piece in &pieces {
            let width = piece.len() / n;
            y.extend_from_slice(&piece[row * width..][..width]);
        }
    }
    Tensor::from_vec(y, (n, out), &Device::Cpu)
}

fn kind(dtype: GgmlDType) -> Option<Kind> {
    Some(match dtype {
        GgmlDType::Q4_0 => Kind::Q4_0,
        GgmlDType::Q4_1 => Kind::Q4_1,
        GgmlDType::Q5_0 => Kind::Q5_0,
        GgmlDType::Q5_1 => Kind::Q5_1,
        GgmlDType::Q8_0 => Kind::Q8_0,
        GgmlDType::Q4K => Kind::Q4_K,
        GgmlDType::Q5K => Kind::Q5_K,
        GgmlDType::Q6K => Kind::Q6_K,
        _ => return None,
    })
}

/// Where the rows of interleaved heads of `head` rows stand, in order.
pub fn halves(rows: usize, head: usize) -> Vec<u32> {
    (0..rows)
        .map(|row| {
            let (first, i) = (row / head * head, row % head);
            let (half, place) = (i / (head / 2), i % (head / 2));
            (first + 2 * place + half) as u32
        })
        .collect()
}

/// The rows of a quantised matrix in another order. Blocks do not span rows, so nothing is lost.
pub fn take_rows(matrix: &QTensor, order: &[u32]) -> Result<QTensor> {
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
