//! A shortlist of the vocabulary (arXiv 1610.00072): continuations are drawn from its most frequent tokens and those of
//! their prompt, and the logits of the others are not computed. Scores always see the whole vocabulary.

use candle_core::{Result, Tensor};

use super::linear::{Linear, forward};
use super::transformer::Transformer;

/// The tokens of the lowest ids. Vocabularies of byte pairs are in the order in which training joined them, frequent first.
#[derive(Debug)]
pub struct Frequent {
    count: usize,
    output: Linear,
}

/// What the continuations of a call's prompts may draw.
#[derive(Debug)]
pub struct Shortlist<'a> {
    frequent: &'a Frequent,
    /// The other tokens of all prompts, by id.
    rare: Vec<u32>,
    rare_output: Option<Linear>,
}

/// The part of a shortlist that one prompt's continuations may draw, whatever other prompts there are.
#[derive(Debug)]
pub struct Own {
    frequent: usize,
    /// Tokens and where their logits stand among those of the shortlist.
    rare: Vec<(u32, usize)>,
}

impl Frequent {
    pub fn new(model: &Transformer, count: usize) -> Result<Self> {
        let count = count.min(model.shape.vocabulary);
        let tokens: Vec<u32> = (0..count as u32).collect();
        Ok(Self {
            count,
            output: model.output_of(&tokens)?,
        })
    }
}

impl<'a> Shortlist<'a> {
    /// For prompts of the given tokens; `always` are allowed to each.
    pub fn new(
        model: &Transformer,
        frequent: &'a Frequent,
        prompts: &[&[u32]],
        always: &[u32],
    ) -> Result<Self> {
        let all = prompts.iter().copied().flatten().chain(always).copied();
        let rare = rare(all, frequent.count);
        let rare_output = match rare.is_empty() {
            true => None,
            false => Some(model.output_of(&rare)?),
        };
        Ok(Self {
            frequent,
            rare,
            rare_output,
        })
    }

    /// Logits of the shortlist's tokens for outputs `[n, hidden]` of the model.
    pub fn logits(&self, model: &Transformer, x: &Tensor) -> Result<Tensor> {
        let (x, frequent) = (model.normalised(x)?, &self.frequent.output);
        match &self.rare_output {
            Some(rare) => Tensor::cat(&forward(&x, [frequent, rare])?, 1),
            None => frequent.forward(&x),
        }
    }

    pub fn own(&self, prompt: &[u32], always: &[u32]) -> Own {
        let count = self.frequent.count;
        let tokens = rare(prompt.iter().chain(always).copied(), count);
        let place = |token: u32| Some((token, count + self.rare.binary_search(&token).ok()?));
        Own {
            frequent: count,
            rare: tokens.into_iter().filter_map(place).collect(),
        }
    }
}

impl Own {
    /// The logits that may be drawn, of a row of the shortlist's.
    pub fn pick(&self, logits: &[f32]) -> Vec<f32> {
        let rare = self.rare.iter().map(|&(_, place)| logits[place]);
        logits[..self.frequent]
            .iter()
            .copied()
            .chain(rare)
            .collect()
    }

    /// The token of a place among those logits.
    pub fn token(&self, place: u32) -> u32 {
        match (place as usize).checked_sub(self.frequent) {
            Some(rare) => self.rare[rare].0,
            None => place,
        }
    }
}

/// Tokens from `count` on, each once, in order.
fn rare(tokens: impl Iterator<Item = u32>, count: usize) -> Vec<u32> {
    let mut rare: Vec<u32> = tokens.filter(|&token| token as usize >= count).collect();
    rare.sort_unstable();
    rare.dedup();
    rare
}
