//! Prompts that have been read, kept so that what the next prompt shares with them is not read again.
//!
//! A prompt's keys do not depend on what was in the cache: attention runs in blocks that start at fixed positions, and
//! a kept prompt is reused up to a block's start, or whole if it is the same prompt.

use std::collections::VecDeque;
use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::attention::{BLOCK, Cache, Part, Sees};
use super::transformer::Transformer;

/// Tokens that go through the linear layers together on the CPU and on a GPU; bounds memory. Multiples of `BLOCK`.
const SEGMENT: usize = 512;
const GPU_SEGMENT: usize = 8192;

/// A prompt that has been read.
#[derive(Debug)]
pub struct Prefix {
    pub tokens: Vec<u32>,
    pub keys: Cache,
    /// The last token's output `[1, hidden]`, before the final norm.
    pub last: Tensor,
}

impl Prefix {
    /// Reads a prompt of at least one token, taking over what `known` has in common with it.
    fn read(model: &Transformer, tokens: &[u32], known: Option<&Prefix>) -> Result<Self> {
        let shape = model.shape;
        let start = known.map_or(0, |known| reusable(&known.tokens, tokens));
        let size = [shape.layers, shape.kv_heads, tokens.len(), shape.head_dim];
        let keys = Cache::zeros(&size, &model.device)?;
        if let Some(known) = known.filter(|_| start > 0) {
            keys.copy(&known.keys, start)?;
        }
        let mut last = None;
        let step = match model.device.is_cpu() {
            true => SEGMENT,
            false => GPU_SEGMENT,
        };
        for from in (start..tokens.len()).step_by(step) {
            let segment = &tokens[from..tokens.len().min(from + step)];
            let sees = Sees::Prompt {
                prompt: &keys,
                from,
            };
            let part = Part {
                tokens: segment.len(),
                sees,
            };
            let output = model.forward(segment, &[part])?;
            last = Some(output.narrow(0, segment.len() - 1, 1)?.copy()?);
        }
        let last = last.ok_or_else(|| candle_core::Error::Msg("the prompt is empty".into()))?;
        Ok(Self {
            tokens: tokens.to_vec(),
            keys,
            last,
        })
    }
}

/// Tokens of a kept prompt that a new one can take over.
fn reusable(known: &[u32], tokens: &[u32]) -> usize {
    let common = known.iter().zip(tokens).take_while(|(a, b)| a == b).count();
    common.min(tokens.len() - 1) / BLOCK * BLOCK
}

/// The most recently used prompts, up to a number of tokens altogether.
#[derive(Debug)]
pub struct Prefixes {
    recent: VecDeque<Arc<Prefix>>,
    limit: usize,
}

impl Prefixes {
    pub fn new(limit: usize) -> Self {
        Self {
            recent: VecDeque::new(),
            limit,
        }
    }

    /// The prompt, from the cache or read now.
    pub fn get(&mut self, model: &Transformer, tokens: &[u32]) -> Result<Arc<Prefix>> {
        if let Some(i) = self.recent.iter().position(|p| p.tokens == tokens)
            && let Some(found) = self.recent.remove(i)
        {
            self.recent.push_front(found.clone());
            return Ok(found);
        }
        let known = self
            .recent
            .iter()
            .rev()
            .max_by_key(|p| reusable(&p.tokens, tokens))
            .cloned();
        let prefix = Arc::new(Prefix::read(model, tokens, known.as_deref())?);
        self.recent.push_front(prefix.clone());
        while self.recent.len() > 1 && self.tokens() > self.limit {
            self.recent.pop_back();
        }
        Ok(prefix)
    }

    /// Forgets all prompts.
    pub fn clear(&mut self) {
        self.recent.clear();
    }

    fn tokens(&self) -> usize {
        self.recent.iter().map(|p| p.tokens.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reuse_ends_at_a_block_and_leaves_a_token_to_read() {
        let tokens: Vec<u32> = (0..100).collect();
        assert_eq!(reusable(&tokens, &tokens), 96);
        assert_eq!(reusable(&tokens[..64], &tokens), 64);
        assert_eq!(reusable(&tokens, &tokens[..64]), 32);
        assert_eq!(reusable(&tokens[..31], &tokens), 0);
        assert_eq!(reusable(&[7], &tokens), 0);
    }
}
