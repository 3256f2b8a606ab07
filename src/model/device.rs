//! The device a job names, so that every model of a job is loaded on the same one.

use candle_core::Device;

use super::ModelError;

/// The device called `auto` (the first GPU, else the CPU), `cpu` or `cuda:N`.
pub fn device(name: &str) -> Result<Device, ModelError> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" if cfg!(feature = "cuda") => Ok(Device::new_cuda(0).unwrap_or_else(|e| {
            tracing::warn!("no GPU could be opened ({e}); the models run on the CPU");
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
    Device::new_cuda(ordinal).map_err(|e| {
        fail(format!(
            "cannot be opened ({e}); check `nvidia-smi`, or set models.device = \"cpu\""
        ))
    })
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
