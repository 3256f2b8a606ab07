//! Continuous batching: the rows of several prompts take each step together, and a prompt joins as soon as there is room.
//!
//! The continuations of one prompt are a group: they share the prompt's keys, and have rows of their own for what they
//! add. A row that is finished leaves its group. Linear layers see the rows of all groups at once; attention is each group's
//! own, so that its results do not depend on the others.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::attention::{Cache, Part, Sees};
use super::cuda::Pass;
use super::prefix::Prefix;
use super::sample::{Draw, draw, rng};
use super::shortlist::{Own, Shortlist};
use super::text::Text;
use super::transformer::Transformer;
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
    /// `[layers, kv_heads, rows, capacity, head_dim]`; none until there is a token to add.
    own: Option<Cache>,
    /// Tokens each row has in `own`.
    added: usize,
    rows: Vec<Row>,
    /// Where the rows stand in `own`.
    places: Vec<usize>,
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
    /// The continuations of a prompt, before their first token.
    pub fn new(
        vocabulary: &Vocabulary,
        shortlist: Option<&Shortlist>,
        request: usize,
        prefix: Arc<Prefix>,
        sampling: &'a Sampling,
    ) -> Self {
        let rows = (0..sampling.n)
            .map(|index| Row {
                index,
                rng: rng(sampling.seed, index),
                text: Text::default(),
                tokens: 0,
                last: 0,
            })
            .collect();
        let mut group = Self {
            words: shortlist.map(|list| list.own(&prefix.tokens, &vocabulary.ends)),
            request,
            sampling,
            prefix,
            own: None,
            added: 0,
            rows,
            places: (0..sampling.n).collect(),
            finished: vec![None; sampling.n],
        };
        if sampling.max_tokens == 0 {
            group.keep(|_| Some(false));
        }
        group
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

    /// Makes room for the keys of what the rows will add after their first token.
    fn open(&mut self, model: &Transformer) -> Result<()> {
        let shape = model.shape;
        if !self.rows.is_empty() {
            let (rows, capacity) = (self.rows.len(), self.sampling.max_tokens - 1);
            let size = [shape.layers, shape.kv_heads, rows, capacity, shape.head_dim];
            self.own = Some(Cache::zeros(&size, &model.device)?);
            self.places = (0..rows).collect();
        }
        Ok(())
    }

    /// Takes in a token for each row; the finished rows leave.
    fn accept(&mut self, vocabulary: &Vocabulary, mut tokens: impl Iterator<Item = u32>) {
        let sampling = self.sampling;
        self.keep(|row| row.push(tokens.next()?, vocabulary, sampling));
    }

    /// Keeps the rows for which `end` is None; of the others it says whether they are complete.
    fn keep(&mut self, mut end: impl FnMut(&mut Row) -> Option<bool>) {
        let rows = std::mem::take(&mut self.rows).into_iter();
        for (mut row, place) in rows.zip(std::mem::take(&mut self.places)) {
            match end(&mut row) {
                None => {
                    self.rows.push(row);
                    self.places.push(place);
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
    }

    /// Drops the keys of rows that have left. The CPU's attention wants the others side by side.
    fn close_up(&mut self) -> Result<()> {
        if let Some(own) = &self.own
            && !self.rows.is_empty()
            && self.rows.len() < own.k.dim(2)?
            && own.k.device().is_cpu()
        {
            let places: Vec<u32> = self.places.iter().map(|&place| place as u32).collect();
            self.own = Some(own.select(&places)?);
            self.places = (0..self.rows.len()).collect();
        }
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

/// Draws the first token of every continuation of the groups.
pub fn start(
    model: &Transformer,
    vocabulary: &Vocabulary,
    shortlist: Option<&Shortlist>,
    groups: &mut [Group],
) -> Result<()> {
    let outputs: Vec<&Tensor> = groups.iter().map(|group| &group.prefix.last).collect();
    if outputs.is_empty() {
        return Ok(());
    }
    let outputs = Tensor::cat(&outputs, 0)?;
    let rows = groups.iter().enumerate();
    let output_of: Vec<u32> = rows
        .flat_map(|(i, group)| vec![i as u32; group.rows.len()])
        .collect();
    draw_all(model, vocabulary, shortlist, groups, (&outputs, &output_of))?;
    groups.iter_mut().try_for_each(|group| group.open(model))
}

/// Adds a token to every row of every group, and draws the next; each group has a row.
pub fn step(
    model: &Transformer,
    vocabulary: &Vocabulary,
    shortlist: Option<&Shortlist>,
    groups: &mut [Group],
) -> Result<()> {
    let rows = groups.iter().flat_map(|group| &group.rows);
    let ids: Vec<u32> = rows.map(|row| row.last).collect();
    fn part<'a>(group: &'a Group) -> Result<Part<'a>> {
        match &group.own {
            Some(own) => Ok(Part {
                tokens: group.rows.len(),
                sees: Sees::Rows {
                    prefix: &group.prefix.keys,
                    own,
                    places: &group.places,
                    added: group.added,
                },
            }),
            None => candle_core::bail!("a row has no room for another token"),
        }
    }
    let parts = groups.iter().map(part).collect::<Result<Vec<_>>>()?;
    let output = model.forward(&ids, &parts)?;
    let output_of: Vec<u32> = (0..ids.len() as u32).collect();
    draw_all(model, vocabulary, shortlist, groups, (&output, &output_of))?;
    groups.iter_mut().for_each(|group| group.added += 1);
    groups.iter_mut().try_for_each(Group::close_up)
}

/// Draws a token for each row of the groups from the logits of its output, and gives it to the row.
fn draw_all(
    model: &Transformer,
    vocabulary: &Vocabulary,
    shortlist: Option<&Shortlist>,
    groups: &mut [Group],
    (outputs, output_of): (&Tensor, &[u32]),
) -> Result<()> {
    let tokens = match model.gpu() {
        Some(gpu) => on_gpu(model, gpu, groups, (outputs, output_of))?,
        None => on_cpu(model, shortlist, groups, (outputs, output_of))?,
    };
    let mut tokens = tokens.into_iter();
    for group in groups {
        let own = tokens.by_ref().take(group.rows.len());
        let own: Vec<u32> = own.collect();
        group.accept(vocabulary, own.into_iter());
    }
    Ok(())
}

fn on_cpu(
    model: &Transformer,
    shortlist: Option<&Shortlist>,
    groups: &mut [Group],
    (outputs, output_of): (&Tensor, &[u32]),
) -> Result<Vec<u32>> {
    let logits = match shortlist {
        Some(shortlist) => shortlist.logits(model, outputs)?,
        None => model.logits(outputs)?,
    };
    let width = logits.dim(1)?;
    let logits = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut rows: Vec<(&mut Row, &Sampling, &Option<Own>)> = Vec::new();
    for group in groups {
        let (sampling, words) = (group.sampling, &group.words);
        rows.extend(group.rows.iter_mut().map(|row| (row, sampling, words)));
    }
    let drawn = rows.into_par_iter().zip(output_of);
    let drawn = drawn.map(|((row, sampling, words), &output)| {
        let logits = &logits[output as usize * width..][..width];
        let token = match words {
            Some(own) => draw(&own.pick(logits), sampling, &mut row.rng).map(|p| own.token(p)),
            None => draw(logits, sampling, &mut row.rng),
        };
        token.ok_or_else(|| candle_core::Error::Msg("the logits are not finite".into()))
    });
    drawn.collect()
}

fn on_gpu(
    model: &Transformer,
    gpu: &Pass,
    groups: &mut [Group],
    (outputs, output_of): (&Tensor, &[u32]),
) -> Result<Vec<u32>> {
    let rows = groups.iter_mut().flat_map(|group| {
        let sampling = group.sampling;
        group.rows.iter_mut().map(move |row| (row, sampling))
    });
    let draws = rows.zip(output_of).map(|((row, sampling), &output)| {
        let greedy = sampling.temperature <= 0.0;
        Draw {
            output,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            uniform: if greedy { 0.0 } else { row.rng.random() },
        }
    });
    let draws: Vec<Draw> = draws.collect();
    gpu.draw(&model.logits(outputs)?, &draws)
}
