//! The arithmetic of the models on the CPU. A package of its own so that it is optimised in test builds, too, where the
//! rest compiles fast.

pub mod matrix;
pub mod quant;
pub mod vector;
