//! Which files a line of the journal speaks of.

use std::path::{Path, PathBuf};

use crate::{
    engine::{
        ingest,
        stage::{self, Stage},
        topics,
    },
    store::Dataset,
};

/// Files and folders below the generation, of which some need not be there. None: what can only be made whole, such as an index, or
/// goes with its stage, such as earlier results that were found.
pub fn wrote(stage: &str, shard: Option<usize>) -> Option<Vec<PathBuf>> {
    let here = Path::new("");
    let quarantine =
        |file: &str| Path::new(Dataset::Quarantine.folder()).join(format!("{file}.parquet"));
    let map = Stage::ALL.into_iter().find(|map| map.name() == stage);
    match (map, shard) {
        (Some(map), Some(shard)) => Some(vec![
            map.output().part(here, shard),
            map.outcomes().part(here, shard),
            quarantine(&stage::quarantined(map, shard)),
        ]),
        _ if stage == ingest::STAGE => Some(vec![
            Dataset::Documents.folder().into(),
            quarantine(ingest::STAGE),
        ]),
        _ if stage == topics::STAGE => Some(vec![Dataset::Topics.folder().into()]),
        _ => None,
    }
}
