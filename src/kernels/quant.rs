//! Products of f32 activations with GGUF-quantised weights on the CPU.
//!
//! Weights are repacked once ([`Quantized::pack`]) into panels of 48 outputs by 256 inputs whose bytes are in the order in
//! which the kernel reads them; no code and no scale changes on the way, and a panel is as large as its blocks in the file.
//! Activations are quantised to 8 bits ([`Activations`]). [`project`] then works panel by panel: it spreads the codes to
//! bytes in the first-level cache, once for up to 128 rows, and multiplies them in integers, 4 inputs by 16 outputs an
//! instruction where the processor has AVX-512 VNNI.
//!
//! A row's result has the same bits whatever other rows are computed with it, whatever the number of threads and on every
//! instruction set: within a block sums are integers and exact, and above it floats are added in the order of the inputs,
//! by the same fused operations on every path ([`lanes`]).

mod activations;
mod block;
mod kernel;
mod kind;
mod lanes;
mod layout;
mod pack;
mod project;
mod unpack;

pub use activations::Activations;
pub use kind::{Kind, PackError};
pub use lanes::Path;
pub use pack::Quantized;
pub use project::{project, project_on};

#[cfg(test)]
mod tests;
