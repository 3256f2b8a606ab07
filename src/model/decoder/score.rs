//! The log-probabilities of given continuations of prompts that have been read.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::attention::{Part, Sees};
use super::prefix::Prefix;
use super::sample::log_probability;
use super::transformer::Transformer;

/// Tokens that go through the model together on the CPU and on a GPU; a longer continuation goes alone.
const TOKENS: usize = 512;
const GPU_TOKENS: usize = 8192;
/// Rows of logits held at once on the CPU and on a GPU; a row has the whole vocabulary.
const ROWS: usize = 64;
const GPU_ROWS: usize = 1024;

/// A prompt and a continuation of it, as tokens.
pub struct Continuation<'a> {
    pub prefix: Arc<Prefix>,
    pub tokens: &'a [u32],
}

/// Tokens of continuations that are best scored together.
pub fn tokens_at_once(model: &Transformer) -> usize {
    by_device(model, TOKENS, GPU_TOKENS)
}

fn by_device(model: &Transformer, cpu: usize, gpu: usize) -> usize {
    match model.device.is_cpu() {
        true => cpu,
        false => gpu,
    }
}

/// log P(continuation | prompt) of each, the sum over its tokens.
pub fn score(model: &Transformer, continuations: &[Continuation]) -> Result<Vec<f64>> {
    let most = tokens_at_once(model);
    let mut sums = vec![0.0; continuations.len()];
    let mut from = 0;
    while from < continuations.len() {
        let mut tokens = 0;
        let fits = continuations[from..].iter().take_while(|text| {
            tokens += text.tokens.len();
            tokens <= most
        });
        let to = from + fits.count().max(1);
        add_sums(model, &continuations[from..to], &mut sums[from..to])?;
        from = to;
    }
    Ok(sums)
}

/// A token whose log-probability is asked for.
struct Target {
    /// The output that its logits are of.
    output: usize,
    text: usize,
    token: u32,
}

fn add_sums(model: &Transformer, texts: &[Continuation], sums: &mut [f64]) -> Result<()> {
    let (mut outputs, mut targets): (Vec<&Tensor>, Vec<Target>) = (Vec::new(), Vec::new());
    let (mut ids, mut parts) = (Vec::new(), Vec::new());
    let mut ends: Vec<usize> = Vec::new(); // where the first output of each text is among those of the prompts
    for text in texts {
        let last = &text.prefix.last;
        if !outputs
            .last()
            .is_some_and(|other| std::ptr::eq::<Tensor>(*other, last))
        {
            outputs.push(last);
        }
        ends.push(outputs.len() - 1);
    }
    let mut next = outputs.len();
    for (i, text) in texts.iter().enumerate() {
        let Some((&first, rest)) = text.tokens.split_first() else {
            continue;
        };
        let target = |output, token| Target {
            output,
            text: i,
            token,
        };
        targets.push(target(ends[i], first));
        for &token in rest {
            targets.push(target(next, token));
            next += 1;
        }
        if !rest.is_empty() {
            ids.extend(&text.tokens[..rest.len()]);
            parts.push(Part {
                tokens: rest.len(),
                sees: Sees::Text {
                    prefix: &text.prefix.keys,
                },
            });
        }
    }
    let mut outputs = Tensor::cat(&outputs, 0)?;
    if !parts.is_empty() {
        outputs = Tensor::cat(&[outputs, model.forward(&ids, &parts)?], 0)?;
    }
    targets.sort_by_key(|target| target.output);
    for (target, log) in targets
        .iter()
        .zip(log_probabilities(model, &outputs, &targets)?)
    {
        sums[target.text] += log;
    }
    Ok(())
}

/// The log-probability of each target, which are in the order of the outputs; NaN where it is not finite.
fn log_probabilities(
    model: &Transformer,
    outputs: &Tensor,
    targets: &[Target],
) -> Result<Vec<f64>> {
    let vocabulary = model.shape.vocabulary;
    let most = by_device(model, ROWS, GPU_ROWS);
    let mut logs = Vec::with_capacity(targets.len());
    for slab in targets.chunk_by(|a, b| a.output / most == b.output / most) {
        let first = slab[0].output / most * most;
        let rows = most.min(outputs.dim(0)? - first);
        let logits = model.logits(&outputs.narrow(0, first, rows)?)?;
        if let Some(gpu) = model.gpu() {
            let targets = slab.iter().map(|t| ((t.output - first) as u32, t.token));
            logs.extend(gpu.log_probabilities(&logits, &targets.collect::<Vec<_>>())?);
            continue;
        }
        let logits = logits.flatten_all()?.to_vec1::<f32>()?;
        let found = slab.par_iter().map(|target| {
            let row = &logits[(target.output - first) * vocabulary..][..vocabulary];
            log_probability(row, target.token).unwrap_or(f64::NAN)
        });
        logs.extend(found.collect::<Vec<f64>>());
    }
    Ok(logs)
}
