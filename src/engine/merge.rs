//! Joins the published indexes of several jobs into one generation, without computing a row: their datasets' parts and their index
//! shards, one input after the other.

mod agreement;
mod datasets;
mod documents;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    EngineError,
    build::Start,
    verify::{self, verify},
};
use crate::{
    job::Progress,
    store::{
        self, Dataset, Files, Indexes, Manifest, Output, StoreError,
        generation::{Published, Unfinished},
        index_shards,
        machine::Machine,
        manifest::{self, DatasetSummary, Determinism, IndexShard, Merged, Run},
        progress::{Header, Meter, Tally},
    },
};
use datasets::Join;

/// Name in run.json.
const STAGE: &str = "merge";

/// A published index that goes into another.
pub struct Input {
    /// The output folder, as it was named.
    pub output: PathBuf,
    pub published: Published,
    run: Run,
    /// Parts of each of its datasets.
    parts: usize,
}

impl Input {
    /// The published generation of an output. Damage must not pass into the next generation, whose hashes would then vouch for
    /// it, so that every file is hashed.
    fn open(output: &Path) -> Result<Self, EngineError> {
        let published = Output::fetch(output, Files::All)?.published_whole()?;
        let (folder, manifest) = (&published.folder, &published.manifest);
        let run = manifest::sound_run(folder, manifest)?;
        for file in &manifest.files {
            if let Err(difference) = file.compare(folder, true) {
                let path = folder.join(&file.path);
                let message = format!(
                    "{} {difference}; build it again, or return to a generation before it with `intendex rollback`",
                    path.display()
                );
                return Err(EngineError::Refused(message));
            }
        }
        Ok(Self {
            output: output.to_owned(),
            parts: Dataset::Documents.parts(folder)?.len(),
            run,
            published,
        })
    }

    fn manifest(&self) -> &Manifest {
        &self.published.manifest
    }
}

/// What was published.
pub struct Summary {
    pub number: u64,
    pub run: Run,
}

/// Publishes what the inputs have together as a generation of `into`, for a job of this name (of the first input's by default).
/// Their documents must not be in two of them, and they must have been built alike.
pub fn merge(
    outputs: &[PathBuf],
    into: &Path,
    name: Option<&str>,
    progress: &dyn Progress,
) -> Result<Summary, EngineError> {
    let start = Start::now();
    let inputs = outputs.iter().map(|output| Input::open(output));
    let inputs: Vec<Input> = inputs.collect::<Result<_, _>>()?;
    agreement::check(&inputs)?;
    documents::check(&inputs, into)?;
    let first = inputs[0].manifest();
    let name = name.unwrap_or(&first.job);
    let header = Header {
        plan: plan(&inputs),
        stages: first.stages.clone(),
    };
    let writer = Output::new(into).lock(name)?;
    if matches!(
        Output::new(into).unfinished(&header.plan),
        Some(Unfinished::Other)
    ) {
        let message = format!(
            "{} has an unfinished build, which a merge would remove; finish it, or merge into another folder",
            into.display()
        );
        return Err(EngineError::Refused(message));
    }
    let mut building = writer.open(header, true)?;
    building.send(|_, _| None)?;
    let folder = building.folder();
    let meter = Meter::start();
    let indexes = copy_all(&inputs, &folder, progress)?;
    let mut tally = Tally::default();
    meter.stop(&mut tally);
    let manifest = manifest(&inputs, (into, name), &folder, indexes)?;
    store::replace_json(&folder.join("manifest.json"), &manifest)?;
    let options = verify::Options {
        hashes: false,
        ..verify::Options::default()
    };
    let findings = verify(&folder, &manifest, options, None, progress)?;
    if !findings.is_empty() {
        return Err(EngineError::Unsound { folder, findings });
    }
    let run = run(&inputs, name, &start, tally);
    store::replace_json(&folder.join(manifest::RUN), &run)?;
    manifest::write_checksums(&folder, &manifest)?;
    let number = building.publish()?;
    Ok(Summary { number, run })
}

/// The datasets and the indexes.
fn copy_all(
    inputs: &[Input],
    into: &Path,
    progress: &dyn Progress,
) -> Result<Indexes, EngineError> {
    progress.start(STAGE, inputs.len() as u64, "indexes");
    let mut join = Join::new(into);
    for input in inputs {
        join.add(input)?;
        progress.advance(1);
    }
    join.finish()?;
    let indexes = copy_indexes(inputs, into)?;
    store::sync_tree(into)?;
    progress.finish();
    Ok(indexes)
}

fn plan(inputs: &[Input]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(STAGE.as_bytes());
    for file in inputs.iter().flat_map(|input| &input.manifest().files) {
        hasher.update(file.path.as_bytes());
        hasher.update(file.blake3.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Every index shard of the inputs is one of the merged index.
fn copy_indexes(inputs: &[Input], into: &Path) -> Result<Indexes, EngineError> {
    let shards = |input: &Input| input.manifest().indexes.shards(input.parts);
    let count = inputs.iter().map(|input| shards(input).len()).sum();
    let mut merged: Vec<IndexShard> = Vec::new();
    for input in inputs {
        let (from, shards) = (&input.published.folder, shards(input));
        for number in 0..shards.len() {
            let own = index_shards::prefix(number, shards.len());
            let new = index_shards::prefix(merged.len() + number, count);
            for file in &input.manifest().files {
                let name = index_shards::without_prefix(&file.path);
                let is_of_index = ["sparse/", "sparse.ciff.gz", "dense/"]
                    .iter()
                    .any(|index| name.starts_with(index));
                if is_of_index && file.path == format!("{own}{name}") {
                    copy(&from.join(&file.path), &into.join(format!("{new}{name}")))?;
                }
            }
        }
        merged.extend(shards);
    }
    let of = |input: &Input| input.manifest().indexes.query_threshold;
    let threshold = inputs.iter().filter_map(of).reduce(f32::min);
    let taken = inputs.iter().map(|i| i.manifest().indexes.queries_indexed);
    Ok(Indexes::of(merged, threshold, taken.sum()))
}

fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let folder = to.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(StoreError::io(folder))?;
    fs::copy(from, to).map_err(StoreError::io(to))?;
    Ok(())
}

fn manifest(
    inputs: &[Input],
    (into, name): (&Path, &str),
    folder: &Path,
    indexes: Indexes,
) -> Result<Manifest, EngineError> {
    let first = inputs[0].manifest();
    let mut datasets = BTreeMap::new();
    for dataset in Dataset::ALL {
        let name = dataset.folder();
        let summaries = inputs
            .iter()
            .filter_map(|i| i.manifest().datasets.get(name));
        let mut determinisms = summaries.map(|summary| &summary.determinism);
        let odd = determinisms.find(|determinism| !determinism.reproducible);
        let determinism = odd.cloned().unwrap_or(Determinism::yes());
        if let Some(summary) = DatasetSummary::of(dataset, folder, determinism)? {
            datasets.insert(name.to_owned(), summary);
        }
    }
    let mut parameters = first.parameters.clone();
    parameters.name = Some(name.to_owned());
    parameters.output.path = into.to_owned();
    parameters.index.shards = indexes.shards.len();
    let merged = |input: &Input| Merged {
        job: input.manifest().job.clone(),
        plan: input.manifest().plan.clone(),
        corpus: input.manifest().parameters.corpus.path.clone(),
        parts: input.parts,
    };
    Ok(Manifest {
        intendex: env!("CARGO_PKG_VERSION").into(),
        job: name.to_owned(),
        plan: plan(inputs),
        parameters,
        datasets,
        indexes,
        files: manifest::files(folder)?,
        merged: inputs.iter().map(merged).collect(),
        ..first.clone()
    })
}

/// What the inputs' runs say of rows; none of them was computed here.
fn run(inputs: &[Input], name: &str, start: &Start, merge: Tally) -> Run {
    let mut stages: BTreeMap<String, Tally> = BTreeMap::new();
    let mut rates = BTreeMap::new();
    for input in inputs {
        for (stage, tally) in &input.run.stages {
            stages.entry(stage.clone()).or_default().add(tally);
        }
        for (stage, rate) in &input.run.rates {
            rates.entry(stage.clone()).or_insert(*rate);
        }
    }
    for tally in stages.values_mut() {
        *tally = Tally {
            computed: 0,
            reused: tally.computed + tally.reused,
            tokens: 0,
            seconds: 0.0,
            model_seconds: 0.0,
            peak_memory_bytes: 0,
            ..tally.clone()
        };
    }
    let peak = merge.peak_memory_bytes;
    stages.insert(STAGE.to_owned(), merge);
    let first = &inputs[0].run;
    Run {
        intendex: env!("CARGO_PKG_VERSION").into(),
        libraries: manifest::libraries(),
        job: name.to_owned(),
        job_file: None,
        started: start.time,
        resumed: false,
        seconds: start.clock.elapsed().as_secs_f64(),
        quarantined: stages.values().map(|tally| tally.failed).sum(),
        stages,
        rates,
        machine: Machine {
            threads: rayon::current_num_threads(),
            device: "cpu".into(),
            peak_memory_bytes: Some(peak),
            ..Machine::here()
        },
        ..first.clone()
    }
}
