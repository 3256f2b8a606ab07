//! The GGUF tensor types that the kernels read, and the errors of repacking them.

use super::block::Row;
use super::layout::{Family, GROUP, Layout};

/// A GGUF tensor type, named as in ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub enum Kind {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// Why bytes cannot be read as a quantised matrix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PackError {
    #[error("{kind:?} rows come in blocks of {block} inputs, and this matrix has {input}")]
    Input {
        kind: Kind,
        block: usize,
        input: usize,
    },
    #[error("a {kind:?} matrix of {out} x {input} takes {expected} bytes, and there are {found}")]
    Length {
        kind: Kind,
        out: usize,
        input: usize,
        expected: usize,
        found: usize,
    },
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// Inputs in one block of the file: 32, or 256 for the K types.
    pub const fn block(self) -> usize {
        match self {
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
            _ => 32,
        }
    }

    /// Bytes of one block of the file (the `block_q*` structures of ggml's `ggml-common.h`).
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of a row of `input` weights.
    ///
    /// # Errors
    /// When a row is empty or no whole number of blocks.
    pub fn row_bytes(self, input: usize) -> Result<usize, PackError> {
        if input == 0 || !input.is_multiple_of(self.block()) {
            return Err(PackError::Input {
                kind: self,
                block: self.block(),
                input,
            });
        }
        Ok(input / self.block() * self.block_bytes())
    }

    /// Weights of one row straight from the file's bytes: an embedding table that is only looked up need not be packed.
    ///
    /// # Errors
    /// When `bytes` is not exactly the row of `weights.len()` inputs.
    pub fn dequantize(self, bytes: &[u8], weights: &mut [f32]) -> Result<(), PackError> {
        let (input, expected) = (weights.len(), self.row_bytes(weights.len())?);
        if bytes.len() != expected {
            return Err(PackError::Length {
                kind: self,
                out: 1,
                input,
                expected,
                found: bytes.len(),
            });
        }
        let group_bytes = GROUP / self.block() * self.block_bytes();
        for (weights, bytes) in weights.chunks_mut(GROUP).zip(bytes.chunks(group_bytes)) {
            Row::read(self, bytes).dequantize(self.layout(), weights);
        }
        Ok(())
    }

    pub(super) const fn layout(self) -> Layout {
        let (bits, centre, family) = match self {
            Self::Q4_0 => (4, 8, Family::Block),
            Self::Q4_1 => (4, 0, Family::BlockMin),
            Self::Q5_0 => (5, 16, Family::Block),
            Self::Q5_1 => (5, 0, Family::BlockMin),
            Self::Q8_0 => (8, 128, Family::Block),
            Self::Q4_K => (4, 0, Family::GroupMin),
            Self::Q5_K => (5, 0, Family::GroupMin),
            Self::Q6_K => (6, 32, Family::Group),
        };
        Layout {
            bits,
            centre,
            family,
        }
    }
}
