//! The log-probabilities of given continuations of a prompt that has been read.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::attention::{Keys, attend, causal_mask, each};
use super::prefix::Prefix;
use super::sample::log_probability;
use super::transformer::{Heads, Transformer};
use crate::model::{LogProb, batch};

/// Tokens that go through the model together; a longer continuation goes alone.
const TOKENS: usize = 512;
/// Rows of logits held at once; a row has the whole vocabulary.
const ROWS: usize = 64;

/// log P(continuation | prefix) of each continuation, given as tokens.
pub fn score(
    model: &Transformer,
    prefix: &Prefix,
    continuations: &[Vec<u32>],
) -> Result<Vec<LogProb>> {
    let mut scores = vec![
        LogProb {
            sum: 0.0,
            tokens: 0
        };
        continuations.len()
    ];
    let lengths: Vec<usize> = continuations.iter().map(Vec::len).collect();
    for batch in batch::by_tokens(&lengths, TOKENS) {
        let batch: Vec<usize> = batch.into_iter().filter(|&i| lengths[i] > 0).collect();
        let texts: Vec<&[u32]> = batch.iter().map(|&i| &continuations[i][..]).collect();
        for (i, sum) in batch.into_iter().zip(sums(model, prefix, &texts)?) {
            scores[i] = LogProb {
                sum,
                tokens: lengths[i],
            };
        }
    }
    Ok(scores)
}

/// The sums of the tokens' log-probabilities; every text has a token.
fn sums(model: &Transformer, prefix: &Prefix, texts: &[&[u32]]) -> Result<Vec<f64>> {
    let mut rows = vec![prefix.last.clone()];
    let inputs: Vec<&[u32]> = texts
        .iter()
        .map(|t| &t[..t.len() - 1])
        .filter(|t| !t.is_empty())
        .collect();
    if !inputs.is_empty() {
        rows.push(outputs(model, prefix, &inputs)?);
    }
    let mut targets: Vec<(usize, usize, u32)> = Vec::new(); // row, text, token
    let mut next = 1;
    for (i, text) in texts.iter().enumerate() {
        targets.push((0, i, text[0]));
        for &token in &text[1..] {
            targets.push((next, i, token));
            next += 1;
        }
    }
    targets.sort_by_key(|t| t.0);
    let logs = log_probabilities(model, &Tensor::cat(&rows, 0)?, &targets)?;
    let mut sums = vec![0.0; texts.len()];
    for ((_, text, _), log) in targets.iter().zip(logs) {
        sums[*text] += log;
    }
    Ok(sums)
}

/// The last layer's outputs of all texts' tokens, one text after another.
fn outputs(model: &Transformer, prefix: &Prefix, texts: &[&[u32]]) -> Result<Tensor> {
    let past = prefix.tokens.len();
    let ids: Vec<u32> = texts.concat();
    let positions: Vec<u32> = texts
        .iter()
        .flat_map(|t| (past..past + t.len()).map(|p| p as u32))
        .collect();
    let mut from = 0;
    let places = texts.iter().map(|t| {
        from += t.len();
        let mask = causal_mask(t.len(), model.group(), &model.device)?;
        Ok((from - t.len(), t.len(), mask))
    });
    let places = places.collect::<Result<Vec<_>>>()?;
    model.forward(&ids, &positions, |layer, Heads { q, k, v }| {
        let keys = Keys { k, v };
        each(&places, &model.device, |(from, n, mask)| {
            let own = keys.narrow(1, *from, *n)?.map(|x| x.unsqueeze(1))?;
            attend(
                &q.narrow(0, *from, *n)?,
                &prefix.keys[layer],
                &own,
                Some(mask),
                model.architecture.window(layer),
            )
        })
    })
}

/// The log-probability of each target (row, _, token), which are in the order of the rows.
fn log_probabilities(
    model: &Transformer,
    outputs: &Tensor,
    targets: &[(usize, usize, u32)],
) -> Result<Vec<f64>> {
    let vocabulary = model.shape.vocabulary;
    let mut logs = Vec::with_capacity(targets.len());
    for slab in targets.chunk_by(|a, b| a.0 / ROWS == b.0 / ROWS) {
        let first = slab[0].0 / ROWS * ROWS;
        let rows = ROWS.min(outputs.dim(0)? - first);
        let logits = model
            .logits(&outputs.narrow(0, first, rows)?)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let found = slab.par_iter().map(|&(row, _, token)| {
            let row = &logits[(row - first) * vocabulary..][..vocabulary];
            log_probability(row, token)
                .ok_or_else(|| candle_core::Error::Msg("a log-probability is not finite".into()))
        });
        logs.extend(found.collect::<Result<Vec<f64>>>()?);
    }
    Ok(logs)
}
