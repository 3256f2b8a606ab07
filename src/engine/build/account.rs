//! What a build says of itself: run.json, what happened; manifest.json, what came out.

use std::{collections::BTreeMap, path::Path};

use super::{Build, Start, job_name, needs_generator, resolve::device_of_cluster, stages};
use crate::{
    engine::{EngineError, indexes, ingest, reuse, stage::Stage, topics, verify},
    store::{
        Dataset, Manifest,
        machine::Machine,
        manifest::{self, DatasetSummary, Determinism, Indexes, Rate, Run},
        progress::Tally,
    },
};

/// A run that computed this many times fewer rows than the one before says less of a stage's rate.
const TELLING: u64 = 10;

impl Build<'_> {
    pub(super) fn totals(&self) -> BTreeMap<String, Tally> {
        let mut names = vec![ingest::STAGE];
        names.extend(stages(self.job).into_iter().map(Stage::name));
        names.extend(topics::wanted(self.job).then_some(topics::STAGE));
        names.extend(indexes::STAGES);
        let mut totals: BTreeMap<String, Tally> = names
            .into_iter()
            .map(|name| (name.to_owned(), self.building.journal.total(name)))
            .collect();
        // Looking for earlier rows is part of the stage's work.
        for stage in stages(self.job) {
            let search = self.building.journal.total(&reuse::journal_name(stage));
            if let Some(total) = totals.get_mut(stage.name()) {
                total.seconds += search.seconds;
                total.peak_memory_bytes = total.peak_memory_bytes.max(search.peak_memory_bytes);
            }
        }
        totals
    }

    /// `verify`: of the check before publication, once it is done.
    pub(super) fn account(&self, start: &Start, verify: Option<Tally>) -> Run {
        let mut stages = self.totals();
        stages.extend(verify.map(|tally| (verify::STAGE.to_owned(), tally)));
        Run {
            format: manifest::FORMAT,
            intendex: env!("CARGO_PKG_VERSION").into(),
            revision: option_env!("INTENDEX_REVISION")
                .filter(|revision| !revision.is_empty())
                .map(Into::into),
            libraries: manifest::libraries(),
            job: job_name(self.job).into(),
            job_file: self.options.job_file.clone(),
            started: start.time,
            resumed: self.building.journal.was_resumed(),
            seconds: start.clock.elapsed().as_secs_f64(),
            quarantined: stages.values().map(|t| t.failed).sum(),
            rates: self.rates(&stages),
            machine: Machine {
                threads: rayon::current_num_threads(),
                device: self.device(),
                peak_memory_bytes: stages.values().map(|t| t.peak_memory_bytes).max(),
                ..Machine::here()
            },
            stages,
        }
    }

    /// A stage that computed much less than the run before keeps its rate: what it took to begin would count too much.
    fn rates(&self, stages: &BTreeMap<String, Tally>) -> BTreeMap<String, Rate> {
        let before = self.published.as_ref().and_then(|p| p.run().ok());
        let before = before.map(|run| run.rates).unwrap_or_default();
        let rate = |(name, tally): (&String, &Tally)| {
            let before = before.get(name).copied();
            let better = before.filter(|before| tally.computed < before.computed / TELLING);
            let mut measured = tally.clone();
            if name == verify::STAGE {
                // Its model embeds a sample, however many rows there are.
                measured.seconds -= measured.model_seconds;
            }
            let own = (tally.computed > 0).then(|| Rate::of(&measured));
            Some((name.clone(), better.or(own).or(before)?))
        };
        stages.iter().filter_map(rate).collect()
    }

    pub(super) fn manifest(
        &self,
        folder: &Path,
        indexes: Indexes,
    ) -> Result<Manifest, EngineError> {
        let mut datasets = BTreeMap::new();
        for dataset in Dataset::ALL {
            let determinism = self.determinism(dataset);
            if let Some(summary) = DatasetSummary::of(dataset, folder, determinism)? {
                datasets.insert(dataset.folder().to_owned(), summary);
            }
        }
        Ok(Manifest {
            format: manifest::FORMAT,
            intendex: env!("CARGO_PKG_VERSION").into(),
            job: job_name(self.job).into(),
            plan: self.plan.clone(),
            stages: self.fingerprints.by_name(),
            parameters: self.job.clone(),
            embedder: self.models.embedder_identity().clone(),
            generator: self.models.generator_identity().cloned(),
            cross_encoder: self.models.cross_encoder_identity().cloned(),
            dim: self.models.dim(),
            datasets,
            indexes,
            merged: Vec::new(),
            files: manifest::files(folder)?,
        })
    }

    /// Where the models of the map stages run.
    fn device(&self) -> String {
        match &self.job.engine.cluster {
            Some(_) => device_of_cluster(self.job).to_owned(),
            None => self.models.device(),
        }
    }

    /// A file run here gives the same text for the same seed; a server promises nothing.
    fn determinism(&self, dataset: Dataset) -> Determinism {
        let server = self
            .job
            .models
            .generator
            .as_ref()
            .is_some_and(|g| g.server.is_some());
        let generated = server && needs_generator(self.job) && dataset != Dataset::Documents;
        let before_topics = [
            Dataset::Documents,
            Dataset::Intents,
            Dataset::Chunks,
            Dataset::TextVectors,
            Dataset::IntentOutcomes,
            Dataset::ChunkOutcomes,
            Dataset::TextVectorOutcomes,
        ];
        let earlier = self.building.journal.total(topics::STAGE).reused > 0;
        if earlier && !before_topics.contains(&dataset) {
            return Determinism::no(
                "the topics are those of an earlier build, whose corpus may have been another",
            );
        }
        match (generated, self.device().as_str()) {
            (true, _) => Determinism::no("the generator is a server, whose answers may vary"),
            (_, "cpu") => Determinism::yes(),
            _ if matches!(dataset, Dataset::Documents) => Determinism::yes(),
            _ => Determinism::no("sums on a GPU depend on the card, the driver and the batch"),
        }
    }
}
