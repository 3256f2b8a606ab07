//! Where the indexes of a generation lie: below its own folder, or as several index shards, each below one of `shards/`.
//!
//! An index shard has the indexes of a range of the datasets' parts, so that its documents are in no other, and the rows of all
//! shards, one after the other, are those of the one index that they would be.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use super::StoreError;

/// Below a generation.
pub const FOLDER: &str = "shards";

/// What the paths of a shard's indexes begin with below a generation of so many shards; nothing where one has all.
pub fn prefix(shard: usize, shards: usize) -> String {
    match shards {
        0 | 1 => String::new(),
        _ => format!("{FOLDER}/{shard:05}/"),
    }
}

/// A path below a generation without what it begins with if it is in a shard.
pub fn without_prefix(path: &str) -> &str {
    let inside = path.strip_prefix(FOLDER).and_then(|p| p.strip_prefix('/'));
    let inside = inside.and_then(|path| path.split_once('/'));
    inside.map_or(path, |(_, name)| name)
}

/// The folders that the indexes of a generation are in, in the order of their documents.
pub fn folders(generation: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let shards = generation.join(FOLDER);
    if !shards.exists() {
        return Ok(vec![generation.to_owned()]);
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(&shards).map_err(StoreError::io(&shards))? {
        folders.push(entry.map_err(StoreError::io(&shards))?.path());
    }
    folders.sort();
    Ok(folders)
}

/// Deals parts with so many chunks out to at most `shards` shards: ranges of parts, in order, with about as many chunks each. A
/// shard has at least one part with chunks, so that there are fewer shards where there are fewer such parts; one at least.
pub fn split(chunks: &[usize], shards: usize) -> Vec<Range<usize>> {
    let mut all = 0;
    // Only behind a part with chunks may a shard end: that part's end, and the chunks up to there.
    let mut ends = Vec::new();
    for (part, count) in chunks.iter().enumerate().filter(|(_, count)| **count > 0) {
        all += count;
        ends.push((part + 1, all));
    }
    let shards = shards.min(ends.len()).max(1);
    let (mut ranges, mut start, mut taken) = (Vec::new(), 0, 0);
    for shard in 1..shards {
        let wanted = all * shard / shards;
        let above = ends.partition_point(|(_, passed)| *passed < wanted);
        let below = above.checked_sub(1).map_or(0, |before| ends[before].1);
        let nearest = match wanted - below < ends[above].1 - wanted {
            true => above,
            false => above + 1,
        };
        // One for this shard, and one for each that follows.
        taken = nearest.clamp(taken + 1, ends.len() - (shards - shard));
        let end = ends[taken - 1].0;
        ranges.push(start..end);
        start = end;
    }
    ranges.push(start..chunks.len());
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shards_have_about_as_many_chunks() {
        assert_eq!(split(&[5, 5, 5, 5], 2), [0..2, 2..4]);
        assert_eq!(split(&[9, 1, 1, 1], 2), [0..1, 1..4]);
        assert_eq!(split(&[1, 1, 1, 9], 3), [0..2, 2..3, 3..4]);
        assert_eq!(split(&[0, 4, 0, 4, 0], 3), [0..2, 2..5]);
    }

    #[test]
    fn paths_are_told_from_their_shards() {
        assert_eq!(prefix(0, 1) + "dense", "dense");
        assert_eq!(
            prefix(1, 3) + "dense/text.ids",
            "shards/00001/dense/text.ids"
        );
        assert_eq!(
            without_prefix("shards/00001/dense/text.ids"),
            "dense/text.ids"
        );
        assert_eq!(
            without_prefix("chunks/part-00000.parquet"),
            "chunks/part-00000.parquet"
        );
    }

    proptest! {
        #[test]
        fn every_part_is_in_one_shard_and_every_shard_has_chunks(
            chunks in prop::collection::vec(0usize..20, 0..30), shards in 1usize..8,
        ) {
            let ranges = split(&chunks, shards);
            let filled = chunks.iter().filter(|count| **count > 0).count();
            prop_assert_eq!(ranges.len(), shards.min(filled).max(1));
            let mut next = 0;
            for range in &ranges {
                prop_assert_eq!(range.start, next);
                prop_assert!(filled == 0 || chunks[range.clone()].iter().sum::<usize>() > 0);
                next = range.end;
            }
            prop_assert_eq!(next, chunks.len());
        }
    }
}
