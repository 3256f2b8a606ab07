//! The device a job names, so that every model of a job is loaded on the same one.

use std::fmt::Display;

use candle_core::Device;

use super::ModelError;

/// The device called `auto` (the first GPU, else the CPU), `cpu` or `cuda:N`.
pub fn device(name: &str) -> Result<Device, ModelError> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" if cfg!(feature = "cuda") => Ok(open(0).unwrap_or_else(|e| {
            let why = first_line(&e);
            tracing::warn!("no GPU could be opened ({why}); the models run on the CPU");
            Device::Cpu
        })),
        "auto" => Ok(Device::Cpu),
        _ => cuda(name),
    }
}

fn cuda(name: &str) -> Result<Device, ModelError> {
    let fail = |message: String| ModelError::Device {
        name: name.into(),
        message,
    };
    let ordinal = name
        .strip_prefix("cuda:")
        .and_then(|n| n.parse::<usize>().ok())
        .ok_or_else(|| {
            fail("not a device; write `auto`, `cpu` or `cuda:N` in models.device".into())
        })?;
    if !cfg!(feature = "cuda") {
        return Err(fail(
            "this build has no CUDA; build with `--features cuda`, or set models.device = \"cpu\""
                .into(),
        ));
    }
    open(ordinal).map_err(|e| {
        let why = first_line(&e);
        fail(format!(
            "cannot be opened ({why}); check `nvidia-smi`, or set models.device = \"cpu\""
        ))
    })
}

/// candle puts a backtrace below the message.
fn first_line(error: &impl Display) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// A GPU with one stream, which all threads share: what one asks for comes after what another has.
#[cfg(feature = "cuda")]
fn open(ordinal: usize) -> candle_core::Result<Device> {
    use candle_core::cuda_backend::WrapErr;
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    use candle_core::{DType, Tensor};
    let device = Device::new_cuda_with_stream(ordinal)?;
    // Whether the kernels were compiled for this card is known when one runs.
    let sum = (Tensor::zeros(1, DType::F32, &device)? + 1.0)?;
    sum.to_vec1::<f32>()?;
    // SAFETY: there is no other stream on which a tensor could be used.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    // Memory that was freed is kept for the next allocation; by itself the driver would give it back at every wait.
    let keep = u64::MAX;
    // SAFETY: the device is open, and the attribute is a 64-bit number.
    unsafe {
        let pool = result::device::get_default_mem_pool(result::device::get(ordinal as i32).w()?);
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        result::mem_pool::set_attribute(pool.w()?, attribute, (&raw const keep).cast_mut().cast())
    }
    .w()?;
    Ok(device)
}

#[cfg(not(feature = "cuda"))]
fn open(ordinal: usize) -> candle_core::Result<Device> {
    Device::new_cuda(ordinal)
}

/// Bytes of a GPU's memory that are free; None for the CPU.
pub fn free_memory(device: &Device) -> Option<usize> {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        use candle_core::cuda_backend::cudarc::driver::result;
        return result::mem_get_info().ok().map(|(free, _)| free);
    }
    (!device.is_cpu()).then_some(0)
}

/// Whether an operation failed as the device has too little memory. CUDA's errors reach us as text.
pub fn is_out_of_memory(error: &impl Display) -> bool {
    let text = error.to_string().to_lowercase();
    ["out of memory", "out_of_memory", "alloc_failed"]
        .iter()
        .any(|sign| text.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there() {
        assert!(device("cpu").unwrap().is_cpu());
        assert!(device("auto").is_ok());
    }

    #[test]
    fn a_wrong_name_says_what_to_write() {
        for name in ["gpu", "cuda", "cuda:x", ""] {
            let message = device(name).unwrap_err().to_string();
            assert!(message.contains("`auto`, `cpu` or `cuda:N`"), "{message}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn cuda_without_the_feature_names_the_remedy() {
        let message = device("cuda:0").unwrap_err().to_string();
        assert!(message.contains("--features cuda"), "{message}");
    }
}
