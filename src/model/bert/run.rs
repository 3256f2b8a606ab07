//! Batches of sequences through a model: on the CPU a batch a thread, on a GPU one after another, smaller ones when its
//! memory runs out.

use candle_core::{Device, Result};
use rayon::prelude::*;

use super::encoder::Sequence;
use super::reader::Input;
use crate::model::{batch, device::is_out_of_memory};

/// Matrix products of fewer rows are summed in another order than larger ones. A batch has at least so many tokens, so
/// that a text's result has the same bits in any batch, and a build that computes a few rows only has the bytes of one
/// that computes all.
const LEAST_TOKENS: usize = intendex_kernels::matrix::FEW;

/// Tokens whose activations a core's cache holds; fewer leave the products too small.
const CORE_TOKENS: usize = 512;

/// Tokens, padding included, that keep a GPU busy.
const GPU_TOKENS: usize = 65_536;

/// What `model` makes of each input, in order. It is given the sequences of a batch and returns as many results, or a few
/// more, which are dropped. `most`: the job's limit to the tokens of a batch.
pub fn run<T: Send>(
    device: &Device,
    most: Option<usize>,
    inputs: &[Input],
    model: impl Fn(&[Sequence]) -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let lengths: Vec<usize> = inputs.iter().map(|input| input.ids.len()).collect();
    let one = |batch: &[usize]| {
        let filler = [0; LEAST_TOKENS];
        let mut sequences: Vec<Sequence> = batch.iter().map(|&i| inputs[i].sequence()).collect();
        if batch.iter().map(|&i| lengths[i]).sum::<usize>() < LEAST_TOKENS {
            sequences.push(Sequence {
                ids: &filler,
                second: LEAST_TOKENS,
            });
        }
        let mut results = model(&sequences)?;
        results.truncate(batch.len());
        Ok(batch.iter().copied().zip(results).collect())
    };
    let mut all: Vec<(usize, T)> = if device.is_cpu() {
        let share = lengths
            .iter()
            .sum::<usize>()
            .div_ceil(rayon::current_num_threads());
        let tokens = share.clamp(1, CORE_TOKENS).min(most.unwrap_or(CORE_TOKENS));
        let batches = batch::by_tokens(&lengths, tokens);
        let results: Result<Vec<Vec<_>>> = batches.par_iter().map(|batch| one(batch)).collect();
        results?.into_iter().flatten().collect()
    } else {
        let mut rest = batch::padded(&lengths, most.unwrap_or(GPU_TOKENS));
        rest.reverse();
        halving(rest, one)?
    };
    all.sort_by_key(|(i, _)| *i);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

/// Runs the batches, the last first. One for which the device has too little memory is run in two halves, and so are those
/// that are as large.
fn halving<T>(
    mut rest: Vec<Vec<usize>>,
    run: impl Fn(&[usize]) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let mut results = Vec::new();
    let mut items = usize::MAX;
    while let Some(mut batch) = rest.pop() {
        if batch.len() > items {
            let second = batch.split_off(batch.len() / 2);
            rest.extend([second, batch]);
            continue;
        }
        match run(&batch) {
            Ok(found) => results.extend(found),
            Err(e) if batch.len() > 1 && is_out_of_memory(&e) => {
                items = batch.len() / 2;
                tracing::warn!(
                    "the device's memory is too small for {} texts at once",
                    batch.len()
                );
                rest.push(batch);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_does_not_fit_is_halved_and_so_are_later_ones() {
        let tried = std::cell::RefCell::new(Vec::new());
        let run = |batch: &[usize]| {
            tried.borrow_mut().push(batch.len());
            match batch.len() > 3 {
                true => Err(candle_core::Error::Msg(
                    "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into(),
                )),
                false => Ok(batch.to_vec()),
            }
        };
        let batches = vec![(10..18).collect(), (0..10).collect()];
        let items = halving(batches, run).unwrap();
        assert_eq!(items, (0..18).collect::<Vec<_>>());
        assert_eq!(tried.into_inner(), [10, 5, 2, 1, 2, 2, 1, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn one_text_that_does_not_fit_and_other_errors_end_it() {
        for (batch, message) in [(vec![0], "out of memory"), (vec![0, 1], "no such kernel")] {
            let run =
                |_: &[usize]| -> Result<Vec<()>> { Err(candle_core::Error::Msg(message.into())) };
            let error = halving(vec![batch], run).unwrap_err();
            assert!(error.to_string().contains(message));
        }
    }
}
