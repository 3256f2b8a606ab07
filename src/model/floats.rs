//! The values of tensors on the CPU, for code that works on slices.

use std::ops::{Deref, Range};

use candle_core::{CpuStorage, Result, Storage, Tensor};

/// The f32 values of a tensor; while they are held, the tensor cannot be written to.
pub struct Floats<'a> {
    storage: Box<dyn Deref<Target = Storage> + Sync + 'a>,
    range: Range<usize>,
    /// How far apart neighbours in each dimension lie.
    pub strides: &'a [usize],
}

/// The values of a tensor whose last dimension is contiguous, from its first to its last.
pub fn floats(x: &Tensor) -> Result<Floats<'_>> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(values)) = &*storage else {
        candle_core::bail!("the tensor is not f32 on the CPU");
    };
    let strides = layout.stride();
    if strides.last().is_some_and(|&last| last != 1) {
        candle_core::bail!("the tensor's rows are not contiguous");
    }
    let sizes = layout.dims().iter().zip(strides);
    let last: usize = sizes
        .map(|(&size, stride)| size.saturating_sub(1) * stride)
        .sum();
    let start = layout.start_offset();
    let end = if x.elem_count() == 0 {
        start
    } else {
        start + last + 1
    };
    debug_assert!(end <= values.len());
    Ok(Floats {
        storage: Box::new(storage),
        range: start..end,
        strides,
    })
}

impl Deref for Floats<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &**self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => unreachable!("checked where it was made"),
        }
    }
}
