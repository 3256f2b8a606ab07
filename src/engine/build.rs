//! Builds and publishes a generation: documents, then every map stage shard by shard, then the indexes.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use datafusion::prelude::SessionContext;
use tokio::runtime::Runtime;

use super::{
    EngineError,
    fingerprint::Fingerprints,
    functions, indexes,
    indexes::Built,
    ingest,
    models::Models,
    stage::{self, Layout, Stage},
};
use crate::{
    corpus::{self, CorpusScan},
    job::{Job, Progress},
    store::{
        self, Building, Dataset, Manifest, Output, StoreError,
        dataset::count_rows,
        manifest::{self, DatasetSummary, Determinism, Machine, Run},
        progress::Tally,
    },
};

#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Forget what an interrupted run left.
    pub restart: bool,
    /// Stop after this stage and publish nothing; a later build goes on from there.
    pub until: Option<Stage>,
}

#[derive(Debug)]
pub struct Summary {
    /// The published generation; None if the build was told to stop before.
    pub generation: Option<u64>,
    pub run: Run,
}

/// Runs the job. Only what is missing from an interrupted run of the same plan is computed.
pub fn build(
    job: &Job,
    options: Options,
    progress: Arc<dyn Progress>,
) -> Result<Summary, EngineError> {
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    let clock = Instant::now();
    if job.engine.threads > 0 {
        // An error means that the pool is running already, with the size it was first given.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(job.engine.threads)
            .build_global();
    }
    if let Some(until) = options.until.filter(|until| !stages(job).contains(until)) {
        let runs: Vec<&str> = stages(job).into_iter().map(Stage::name).collect();
        let (until, runs) = (until.name(), runs.join(", "));
        return Err(EngineError::Refused(format!(
            "the job has no stage {until}; it runs: {runs}"
        )));
    }
    let models = Models::find(&job.models, needs_generator(job))?;
    let fingerprints =
        Fingerprints::new(job, models.embedder_identity(), models.generator_identity());
    let runtime = Runtime::new().map_err(EngineError::Runtime)?;
    let writer = Output::new(&job.output.path).lock(job_name(job))?;
    let spill = job
        .engine
        .spill
        .clone()
        .unwrap_or_else(|| job.output.path.join("spill"));
    let ctx = corpus::session(&job.engine, &spill)?;
    let scan = runtime.block_on(corpus::open(&ctx, &job.corpus))?;
    let plan = fingerprints.plan(job, &scan.fingerprint());
    let building = writer.open(&plan, options.restart)?;
    let mut build = Build {
        job,
        models,
        fingerprints,
        plan,
        building,
        progress,
    };
    if !options.restart
        && options.until.is_none()
        && let Some(number) = build.building.publish_finished()?
    {
        return Ok(Summary {
            generation: Some(number),
            run: build.finished_run(number)?,
        });
    }
    let generation = build.run(&runtime, &ctx, &scan, options.until)?;
    if job.engine.spill.is_none() {
        std::fs::remove_dir_all(&spill).map_err(StoreError::io(&spill))?;
    }
    let mut run = build.account(started);
    run.seconds = clock.elapsed().as_secs_f64();
    let generation = match generation {
        Some(built) => Some(build.publish(built, &run)?),
        None => None,
    };
    Ok(Summary { generation, run })
}

/// Whether a stage of the job reads a generator.
pub fn needs_generator(job: &Job) -> bool {
    job.expand.enabled || (job.intents.enabled && job.corpus.intents.is_none())
}

fn job_name(job: &Job) -> &str {
    job.name.as_deref().unwrap_or("job")
}

/// The stages the job runs, in order.
pub fn stages(job: &Job) -> Vec<Stage> {
    let runs = |stage: &Stage| match stage {
        Stage::Intents => job.corpus.intents.is_some() || job.intents.enabled,
        Stage::Queries | Stage::QueryVectors => job.expand.enabled,
        Stage::Chunks | Stage::TextVectors => true,
    };
    Stage::ALL.into_iter().filter(runs).collect()
}

struct Build<'a> {
    job: &'a Job,
    models: Models,
    fingerprints: Fingerprints,
    plan: String,
    building: Building,
    progress: Arc<dyn Progress>,
}

impl Build<'_> {
    /// Computes what is missing. None: told to stop before the indexes.
    fn run(
        &mut self,
        runtime: &Runtime,
        ctx: &SessionContext,
        scan: &CorpusScan,
        until: Option<Stage>,
    ) -> Result<Option<Built>, EngineError> {
        self.check_failures()?;
        functions::register(
            ctx,
            self.job,
            &self.fingerprints,
            &self.models,
            self.progress.clone(),
        );
        let shards = runtime.block_on(self.ingest(scan))?;
        let layout = self.layout(runtime, ctx)?;
        for stage in stages(self.job) {
            runtime.block_on(self.map(stage, shards, ctx, &layout))?;
            if until == Some(stage) {
                return Ok(None);
            }
        }
        let folder = self.building.folder();
        let dim = self.models.dim();
        indexes::build(
            self.job,
            &folder,
            shards,
            dim,
            &mut self.building.journal,
            &*self.progress,
        )
        .map(Some)
    }

    async fn ingest(&mut self, scan: &CorpusScan) -> Result<usize, EngineError> {
        let folder = self.building.folder();
        if !self.building.journal.is_done(ingest::STAGE, None) {
            let mut tally = Tally::default();
            let start = Instant::now();
            ingest::documents(scan, self.job, &folder, &mut tally, &*self.progress).await?;
            tally.seconds = start.elapsed().as_secs_f64();
            self.building.journal.record(ingest::STAGE, None, tally)?;
            self.check_failures()?;
        }
        Ok(Dataset::Documents.parts(&folder)?.len())
    }

    /// The passthrough columns, read back from the documents: they end every part's schema.
    fn layout(&self, runtime: &Runtime, ctx: &SessionContext) -> Result<Layout, EngineError> {
        let part = Dataset::Documents.part(&self.building.folder(), 0);
        let passthrough = runtime.block_on(stage::passthrough(ctx, &part))?;
        Ok(Layout {
            passthrough,
            vector: (self.job.output.vectors, self.models.dim()),
        })
    }

    async fn map(
        &mut self,
        stage: Stage,
        shards: usize,
        ctx: &SessionContext,
        layout: &Layout,
    ) -> Result<(), EngineError> {
        let folder = self.building.folder();
        let name = stage.name();
        let missing: Vec<usize> = (0..shards)
            .filter(|s| !self.building.journal.is_done(name, Some(*s)))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let rows = |shard: &usize| count_rows(&stage.input().part(&folder, *shard));
        let total = missing.iter().map(rows).sum::<Result<usize, _>>()?;
        self.progress.start(name, total as u64, stage.unit());
        for shard in missing {
            let mut tally = Tally::default();
            let start = Instant::now();
            stage::run(stage, ctx, layout, &folder, shard, &mut tally).await?;
            tally.seconds = start.elapsed().as_secs_f64();
            self.building.journal.record(name, Some(shard), tally)?;
            self.check_failures()?;
        }
        self.progress.finish();
        Ok(())
    }

    fn check_failures(&self) -> Result<(), EngineError> {
        let failed = self.totals().values().map(|t| t.failed).sum();
        match self.job.engine.max_failures {
            Some(limit) if failed > limit => {
                let folder = self.building.folder().join(Dataset::Quarantine.folder());
                Err(EngineError::TooManyFailures {
                    failed,
                    limit,
                    folder,
                })
            }
            _ => Ok(()),
        }
    }

    fn totals(&self) -> BTreeMap<String, Tally> {
        let mut names = vec![ingest::STAGE];
        names.extend(stages(self.job).into_iter().map(Stage::name));
        names.extend(indexes::STAGES);
        names
            .into_iter()
            .map(|name| (name.to_owned(), self.building.journal.total(name)))
            .collect()
    }

    /// What the run said that was killed between naming its generation and publishing it.
    fn finished_run(&self, number: u64) -> Result<Run, EngineError> {
        let folder = self
            .job
            .output
            .path
            .join("generations")
            .join(number.to_string());
        Ok(store::read_json(&folder.join("run.json"))?)
    }

    fn account(&self, started: u64) -> Run {
        let stages = self.totals();
        Run {
            format: manifest::FORMAT,
            intendex: env!("CARGO_PKG_VERSION").into(),
            job: job_name(self.job).into(),
            started,
            seconds: 0.0,
            quarantined: stages.values().map(|t| t.failed).sum(),
            stages,
            machine: Machine {
                threads: rayon::current_num_threads(),
                device: self.models.device(),
                peak_memory_bytes: manifest::peak_memory_bytes(),
            },
        }
    }

    fn publish(self, built: Built, run: &Run) -> Result<u64, EngineError> {
        let folder = self.building.folder();
        store::replace_json(&folder.join("run.json"), run)?;
        let manifest = self.manifest(&folder, built)?;
        store::replace_json(&folder.join("manifest.json"), &manifest)?;
        Ok(self.building.publish()?)
    }

    fn manifest(&self, folder: &Path, built: Built) -> Result<Manifest, EngineError> {
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
            dim: self.models.dim(),
            datasets,
            indexes: built.summary,
            files: manifest::files(folder)?,
        })
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
        match (generated, self.models.device().as_str()) {
            (true, _) => Determinism::no("the generator is a server, whose answers may vary"),
            (_, "cpu") => Determinism::yes(),
            _ if matches!(dataset, Dataset::Documents) => Determinism::yes(),
            _ => Determinism::no("sums on a GPU depend on the card and the driver"),
        }
    }
}
