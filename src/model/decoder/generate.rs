//! Continuous batching: the rows of several prompts take each step together, and a prompt joins as soon as there is room.
//!
//! The continuations of one prompt are a group: they share the prompt's keys, and have rows of their own for what they
//! add. A row that is finished leaves its group. Linear layers see the rows of all groups at once; attention runs group
//! by group, so that a group's results do not depend on the others.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::attention::{Keys, attend, each};
use super::prefix::Prefix;
use super::sample::{draw, rng};
use super::shortlist::{Own, Shortlist};
use super::text::Text;
use super::transformer::{Heads, Transformer};
use crate::model::tokenizer::TokenBytes;
use crate::model::{Completion, Sampling};

/// What ends a continuation, and what its tokens stand for.
#[derive(Debug)]
pub struct Vocabulary {
    pub bytes: TokenBytes,
    pub ends: Vec<u32>,
}

/// The unfinished continuations of one prompt.
pub struct Group<'a> {
    /// Place of the prompt among the requests.
    pub request: usize,
    sampling: &'a Sampling,
    prefix: Arc<Prefix>,
    /// Per layer, `[kv_heads, rows, capacity, head_dim]`; empty until there is a token to add.
    own: Vec<Keys>,
    /// Tokens each row has in `own`.
    added: usize,
    rows: Vec<Row>,
    /// What the rows may draw, if not every token.
    words: Option<Own>,
    finished: Vec<Option<Completion>>,
}

struct Row {
    index: usize,
    rng: ChaCha8Rng,
    text: Text,
    tokens: usize,
    /// The token the next step adds.
    last: u32,
}

impl<'a> Group<'a> {
    /// Draws the first token of every continuation.
    pub fn start(
        model: &Transformer,
        vocabulary: &Vocabulary,
        shortlist: Option<&Shortlist>,
        request: usize,
        prefix: Arc<Prefix>,
        sampling: &'a Sampling,
    ) -> Result<Self> {
        let rows = (0..sampling.n)
            .map(|index| Row {
                index,
                rng: rng(sampling.seed, index),
                text: Text::default(),
                tokens: 0,
                last: 0,
            })
            .collect();
        let finished = vec![None; sampling.n];
        let words = shortlist.map(|list| list.own(&prefix.tokens, &vocabulary.ends));
        let mut group = Self {
            words,
            request,
            sampling,
            prefix,
            own: Vec::new(),
            added: 0,
            rows,
            finished,
        };
        if sampling.max_tokens == 0 {
            group.retain(|_| Some(false))?;
        } else {
            let logits = logits(model, shortlist, &group.prefix.last)?
                .flatten_all()?
                .to_vec1::<f32>()?;
            let logits: Vec<&[f32]> = group.rows.iter().map(|_| &logits[..]).collect();
            group.accept(vocabulary, &logits)?;
        }
        if !group.rows.is_empty() {
            let size = [
                model.shape.kv_heads,
                group.rows.len(),
                sampling.max_tokens - 1,
                model.shape.head_dim,
            ];
            group.own = (0..model.shape.layers)
                .map(|_| Keys::zeros(&size, &model.device))
                .collect::<Result<_>>()?;
        }
        Ok(group)
    }

    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Tokens whose keys the group holds or has room for.
    pub fn tokens(&self) -> usize {
        self.prefix.tokens.len() + self.rows.len() * self.sampling.max_tokens
    }

    /// The continuations, once no row is left.
    pub fn finish(self) -> Vec<Completion> {
        self.finished.into_iter().flatten().collect()
    }

    /// Draws a token for each row and lets the finished rows leave.
    fn accept(&mut self, vocabulary: &Vocabulary, logits: &[&[f32]]) -> Result<()> {
        let (sampling, words) = (self.sampling, &self.words);
        let drawn: Vec<Option<u32>> = self
            .rows
            .par_iter_mut()
            .zip(logits)
            .map(|(row, logits)| match words {
                Some(own) => {
                    let place = draw(&own.pick(logits), sampling, &mut row.rng)?;
                    Some(own.token(place))
                }
                None => draw(logits, sampling, &mut row.rng),
            })
            .collect();
        let mut drawn = drawn.into_iter();
        if drawn.clone().any(|token| token.is_none()) {
            candle_core::bail!("the logits are not finite");
        }
        self.retain(|row| row.push(drawn.next().flatten()?, vocabulary, sampling))
    }

    /// Keeps the rows for which `end` is None; of the others it says whether they are complete.
    fn retain(&mut self, mut end: impl FnMut(&mut Row) -> Option<bool>) -> Result<()> {
        let (mut kept, mut places) = (Vec::new(), Vec::new());
        for (place, mut row) in std::mem::take(&mut self.rows).into_iter().enumerate() {
            match end(&mut row) {
                None => {
                    places.push(place as u32);
                    kept.push(row);
                }
                Some(finished) => {
                    let completion = Completion {
                        text: row.text.finish(),
                        tokens: row.tokens,
                        finished,
                    };
                    self.finished[row.index] = Some(completion);
                }
            }
        }
        if let Some(keys) = self.own.first()
            && !kept.is_empty()
            && kept.len() < keys.k.dim(1)?
        {
            let places = Tensor::new(places, keys.k.device())?;
            for keys in &mut self.own {
                *keys = keys.map(|x| x.index_select(&places, 1))?;
            }
        }
        self.rows = kept;
        Ok(())
    }
}

impl Row {
    /// Takes in a token. Some(finished) if the continuation ends with it.
    fn push(&mut self, token: u32, vocabulary: &Vocabulary, sampling: &Sampling) -> Option<bool> {
        if vocabulary.ends.contains(&token) {
            return Some(true);
        }
        self.last = token;
        self.tokens += 1;
        if self.text.push(vocabulary.bytes.get(token), &sampling.stop) {
            return Some(true);
        }
        (self.tokens >= sampling.max_tokens).then_some(false)
    }
}

/// Adds a token to every row of every group; each group has a row.
pub fn step(
    model: &Transformer,
    vocabulary: &Vocabulary,
    shortlist: Option<&Shortlist>,
    groups: &mut [Group],
) -> Result<()> {
    let ids: Vec<u32> = groups
        .iter()
        .flat_map(|g| g.rows.iter().map(|r| r.last))
        .collect();
    let positions: Vec<u32> = groups
        .iter()
        .flat_map(|g| {
            g.rows
                .iter()
                .map(|_| (g.prefix.tokens.len() + g.added) as u32)
        })
        .collect();
    let mut from = 0;
    let places = groups.iter().map(|group| {
        from += group.rows.len();
        (from - group.rows.len(), group)
    });
    let places: Vec<(usize, &Group)> = places.collect();
    let output = model.forward(&ids, &positions, |layer, Heads { q, k, v }| {
        let keys = Keys { k, v };
        each(&places, &model.device, |&(from, group)| {
            let rows = group.rows.len();
            let new = keys
                .narrow(1, from, rows)?
                .map(|x| x.unsqueeze(2)?.contiguous())?;
            group.own[layer].write(2, group.added, &new)?;
            attend(
                &q.narrow(0, from, rows)?,
                &group.prefix.keys[layer],
                &group.own[layer].narrow(2, 0, group.added + 1)?,
                None,
                model.architecture.window(layer),
            )
        })
    })?;
    let logits = logits(model, shortlist, &output)?;
    let width = logits.dim(1)?;
    let logits = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut logits = logits.chunks_exact(width);
    for group in groups {
        group.added += 1;
        let own: Vec<&[f32]> = logits.by_ref().take(group.rows.len()).collect();
        group.accept(vocabulary, &own)?;
    }
    Ok(())
}

/// Of the whole vocabulary, or of a shortlist.
fn logits(model: &Transformer, shortlist: Option<&Shortlist>, x: &Tensor) -> Result<Tensor> {
    match shortlist {
        Some(shortlist) => shortlist.logits(model, x),
        None => model.logits(x),
    }
}
