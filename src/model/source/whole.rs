//! Is a model file whole? Read from its header, so that a truncated download fails here and not in the middle of a build.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::Path,
};

use candle_core::quantized::gguf_file::{Content, TensorInfo};
use serde_json::Value;

use super::{ModelError, file_error};

/// The longest header that the safetensors format allows, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// The names of the tensors. The header says where each lies; the last one ends with the file.
pub fn safetensors(path: &Path) -> Result<BTreeSet<String>, ModelError> {
    let failed = |e: std::io::Error| {
        file_error(
            path,
            &format!("cannot be read ({e}); delete it and fetch the model again"),
        )
    };
    let foreign = || {
        file_error(
            path,
            "is truncated or no safetensors file; delete it and fetch the model again",
        )
    };
    let mut file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(failed)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > LONGEST_HEADER.min(found - 8) {
        return Err(foreign());
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(failed)?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&header).map_err(|_| foreign())?;
    let ends = header
        .values()
        .filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    let expected = ends.max().unwrap_or(0).saturating_add(8 + header_bytes);
    length_is(path, found, expected, found == expected)?;
    Ok(header.into_keys().collect())
}

/// The model's architecture. A GGUF file may be padded at its end.
pub fn gguf(path: &Path) -> Result<String, ModelError> {
    let failed = |message: String| {
        file_error(
            path,
            &format!(
                "is truncated or no GGUF file ({message}); delete it and fetch the model again"
            ),
        )
    };
    let mut file = File::open(path).map_err(|e| file_error(path, &e.to_string()))?;
    let found = file.metadata().map_err(|e| failed(e.to_string()))?.len();
    let content = Content::read(&mut file).map_err(|e| failed(e.to_string()))?;
    let ends = content
        .tensor_infos
        .values()
        .map(|t| end_of(t, content.tensor_data_offset));
    let expected = ends.max().unwrap_or(content.tensor_data_offset);
    length_is(path, found, expected, found >= expected)?;
    let architecture = content.metadata.get("general.architecture");
    let architecture = architecture.and_then(|a| a.to_string().ok()).cloned();
    architecture.ok_or_else(|| file_error(path, "does not say its general.architecture"))
}

/// Where a tensor ends in its file, in bytes; the largest number where a corrupt header says nonsense.
fn end_of(tensor: &TensorInfo, data: u64) -> u64 {
    let dims = tensor.shape.dims().iter();
    let elements = dims.fold(1u64, |product, &dim| product.saturating_mul(dim as u64));
    let blocks = elements / tensor.ggml_dtype.block_size() as u64;
    let bytes = blocks.saturating_mul(tensor.ggml_dtype.type_size() as u64);
    data.saturating_add(tensor.offset).saturating_add(bytes)
}

fn length_is(path: &Path, found: u64, expected: u64, whole: bool) -> Result<(), ModelError> {
    if whole {
        return Ok(());
    }
    let message = format!(
        "has {found} bytes, but its header says {expected}; delete it and fetch the model again"
    );
    Err(file_error(path, &message))
}
