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

/// A prompt to read, and one that has been read whose beginning it may take over.
pub type Wanted<'a> = (&'a [u32], Option<Arc<Prefix>>);

impl Prefix {
    /// Reads prompts of at least one token each, together.
    pub fn read(model: &Transformer, wanted: &[Wanted]) -> Result<Vec<Self>> {
        let reading = wanted.iter().map(|wanted| Reading::start(model, wanted));
        let mut reading = reading.collect::<Result<Vec<_>>>()?;
        while reading.iter().any(|prompt| prompt.left() > 0) {
            read_segment(model, &mut reading)?;
        }
        let whole = reading.into_iter().map(|prompt| {
            let last = prompt.last;
            Ok(Self {
                tokens: prompt.tokens.to_vec(),
                keys: prompt.keys,
                last: last.ok_or_else(|| candle_core::Error::Msg("the prompt is empty".into()))?,
            })
        });
        whole.collect()
    }
}

/// A prompt that is being read.
struct Reading<'a> {
    tokens: &'a [u32],
    keys: Cache,
    /// Tokens that have been read.
    read: usize,
    /// The last token's output.
    last: Option<Tensor>,
}

impl<'a> Reading<'a> {
    fn start(model: &Transformer, (tokens, known): &Wanted<'a>) -> Result<Self> {
        let shape = model.shape;
        let size = [shape.layers, shape.kv_heads, tokens.len(), shape.head_dim];
        let keys = Cache::zeros(&size, &model.device)?;
        let known = known.as_ref().map(|p| (p, reusable(&p.tokens, tokens)));
        let known = known.filter(|(_, tokens)| *tokens > 0);
        if let Some((known, tokens)) = known {
            keys.copy(&known.keys, tokens)?;
        }
        Ok(Self {
            tokens,
            keys,
            read: known.map_or(0, |(_, tokens)| tokens),
            last: None,
        })
    }

    fn left(&self) -> usize {
        self.tokens.len() - self.read
    }
}

/// Reads as many tokens as go through the model together.
fn read_segment(model: &Transformer, prompts: &mut [Reading]) -> Result<()> {
    let most = segment(model);
    let (mut ids, mut parts, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for prompt in prompts.iter() {
        let left = prompt.left();
        let count = match left.min(most - ids.len()) {
            all if all == left => all,
            // The next begins at a block's start.
            some => some / BLOCK * BLOCK,
        };
        counts.push(count);
        if count > 0 {
            ids.extend(&prompt.tokens[prompt.read..][..count]);
            parts.push(Part {
                tokens: count,
                sees: Sees::Prompt {
                    prompt: &prompt.keys,
                    from: prompt.read,
                },
            });
        }
    }
    let output = model.forward(&ids, &parts)?;
    let mut end = 0;
    for (prompt, count) in prompts.iter_mut().zip(counts) {
        end += count;
        prompt.read += count;
        if count > 0 && prompt.left() == 0 {
            prompt.last = Some(output.narrow(0, end - 1, 1)?.copy()?);
        }
    }
    Ok(())
}

/// Tokens that go through the linear layers together.
fn segment(model: &Transformer) -> usize {
    match model.device.is_cpu() {
        true => SEGMENT,
        false => GPU_SEGMENT,
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

    /// The prompts, from the cache or read now.
    pub fn get(&mut self, model: &Transformer, prompts: &[&[u32]]) -> Result<Vec<Arc<Prefix>>> {
        let mut found: Vec<Option<Arc<Prefix>>> = vec![None; prompts.len()];
        let mut missing: Vec<usize> = Vec::new();
        for (i, &prompt) in prompts.iter().enumerate() {
            let known = self.best(prompt);
            if missing
                .iter()
                .any(|&j| reusable(prompts[j], prompt) > known)
            {
                self.read(model, prompts, &mut missing, &mut found)?;
            }
            match self.take(prompt) {
                Some(prefix) => found[i] = Some(prefix),
                None => missing.push(i),
            }
            if model.device.is_cpu() {
                self.read(model, prompts, &mut missing, &mut found)?;
            }
        }
        self.read(model, prompts, &mut missing, &mut found)?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Reads those that are missing.
    fn read(
        &mut self,
        model: &Transformer,
        prompts: &[&[u32]],
        missing: &mut Vec<usize>,
        found: &mut [Option<Arc<Prefix>>],
    ) -> Result<()> {
        let known = missing.iter().map(|&i| {
            let tokens = prompts[i];
            let best = self
                .recent
                .iter()
                .rev()
                .max_by_key(|p| reusable(&p.tokens, tokens));
            (tokens, best.cloned())
        });
        let known: Vec<Wanted> = known.collect();
        for (i, prefix) in missing.drain(..).zip(Prefix::read(model, &known)?) {
            let prefix = Arc::new(prefix);
            self.recent.push_front(prefix.clone());
            found[i] = Some(prefix);
        }
        while self.recent.len() > 1 && self.tokens() > self.limit {
            self.recent.pop_back();
        }
        Ok(())
    }

    /// A prompt that has been read whole.
    fn take(&mut self, tokens: &[u32]) -> Option<Arc<Prefix>> {
        let place = self.recent.iter().position(|p| p.tokens == tokens)?;
        let found = self.recent.remove(place)?;
        self.recent.push_front(found.clone());
        Some(found)
    }

    /// Tokens that a prompt could take over.
    fn best(&self, tokens: &[u32]) -> usize {
        let all = self.recent.iter().map(|p| reusable(&p.tokens, tokens));
        all.max().unwrap_or(0)
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
