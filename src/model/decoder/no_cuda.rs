//! What stands for [`cuda`](super::cuda) in a build without it: nothing of it can be made.

use candle_core::{Device, Result, Tensor};

use super::architecture::Architecture;
use super::attention::Part;
use super::linear::Linear;
use super::sample::Draw;
use super::transformer::{Layer, Transformer};

#[derive(Debug)]
pub enum Pass {}

impl Pass {
    pub fn new(_: &Architecture, _: &Device) -> Result<Self> {
        candle_core::bail!("this build has no CUDA")
    }

    pub fn push(&mut self, _: Layer) -> Result<()> {
        match *self {}
    }

    pub fn forward(&self, _: &Transformer, _: &[u32], _: &[Part]) -> Result<Tensor> {
        match *self {}
    }

    pub fn logits(&self, _: &Tensor, _: &Tensor, _: &Linear) -> Result<Tensor> {
        match *self {}
    }

    pub fn draw(&self, _: &Tensor, _: &[Draw]) -> Result<Vec<u32>> {
        match *self {}
    }

    pub fn log_probabilities(&self, _: &Tensor, _: &[(u32, u32)]) -> Result<Vec<f64>> {
        match *self {}
    }
}
