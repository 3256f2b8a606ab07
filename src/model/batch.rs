//! Batches by token budget: texts of similar length run together, and no batch outgrows the memory it was given.

/// Splits the items `0..lengths.len()` into batches, shortest first, whose lengths add up to at most `budget` tokens.
///
/// An item longer than the budget is a batch of its own. Items of equal length stay in order.
pub fn by_tokens(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths[i]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut used = 0;
    for i in order {
        match batches.last_mut() {
            Some(batch) if used + lengths[i] <= budget => batch.push(i),
            _ => {
                batches.push(vec![i]);
                used = 0;
            }
        }
        used += lengths[i];
    }
    batches
}

/// As [`by_tokens`], where every item of a batch takes as many tokens as the longest.
pub fn padded(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| lengths[i]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for i in order {
        match batches.last_mut() {
            Some(batch) if (batch.len() + 1) * lengths[i] <= budget => batch.push(i),
            _ => batches.push(vec![i]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_item_is_in_one_batch_within_the_budget(
            lengths in prop::collection::vec(0usize..300, 0..60),
            budget in 1usize..600,
        ) {
            let batches = by_tokens(&lengths, budget);
            let flat: Vec<usize> = batches.iter().flatten().copied().collect();
            let mut sorted = flat.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert!(flat.windows(2).all(|w| (lengths[w[0]], w[0]) < (lengths[w[1]], w[1])));
            for batch in &batches {
                let tokens: usize = batch.iter().map(|&i| lengths[i]).sum();
                prop_assert!(tokens <= budget || batch.len() == 1);
            }
            let padded = padded(&lengths, budget);
            prop_assert_eq!(&padded.concat(), &flat);
            for batch in &padded {
                let longest = batch.iter().map(|&i| lengths[i]).max().unwrap();
                prop_assert!(batch.len() * longest <= budget || batch.len() == 1);
            }
        }
    }
}
