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
    EngineError, failures,
    fingerprint::Fingerprints,
    functions, indexes,
    indexes::Built,
    ingest,
    models::Models,
    reuse::{self, Source},
    stage::{self, Layout, Stage},
    verify::{self, Finding},
};
use crate::{
    corpus::{self, CorpusScan},
    index::dense,
    job::{Job, Progress},
    store::{
        self, Building, Dataset, Manifest, Output, StoreError,
        dataset::count_rows,
        generation::Published,
        manifest::{self, DatasetSummary, Determinism, Machine, Rate, Run},
        progress::{Header, Meter, Tally},
    },
};

#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Forget what an interrupted run left.
    pub restart: bool,
    /// Compute this stage and the later ones anew: take over nothing of theirs from earlier builds.
    pub from: Option<Stage>,
    /// Stop after this stage and publish nothing; a later build goes on from there.
    pub until: Option<Stage>,
    /// BLAKE3 of the job file, for run.json.
    pub job_file: Option<String>,
}

#[derive(Debug)]
pub struct Summary {
    pub outcome: Outcome,
    pub run: Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Published(u64),
    /// The published generation is what this job would build.
    Unchanged(u64),
    /// As `Options::until` says.
    Stopped,
}

/// Runs the job. Only what is missing from an interrupted run of the same plan is computed, and of that only what no
/// earlier build has.
pub fn build(
    job: &Job,
    options: &Options,
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
    for stage in [options.from, options.until].into_iter().flatten() {
        refuse_missing(job, stage)?;
    }
    let models = Models::find(&job.models, needs_generator(job))?;
    check_factory(job, &models)?;
    let fingerprints =
        Fingerprints::new(job, models.embedder_identity(), models.generator_identity());
    let runtime = Runtime::new().map_err(EngineError::Runtime)?;
    let writer = Output::new(&job.output.path).lock(job_name(job))?;
    let published = writer.published();
    let spill = job
        .engine
        .spill
        .clone()
        .unwrap_or_else(|| job.output.path.join("spill"));
    let ctx = corpus::session(&job.engine, &spill)?;
    let scan = runtime.block_on(corpus::open(&ctx, &job.corpus))?;
    let plan = fingerprints.plan(job, &scan.fingerprint());
    if let Some(same) = published.as_ref().filter(|p| p.manifest.plan == plan)
        && !options.restart
        && options.from.is_none()
        && let Some(summary) = unchanged(same)?
    {
        return Ok(summary);
    }
    let header = Header {
        // Run again, a build with `from` goes on where it was, too.
        plan: options
            .from
            .map_or(plan.clone(), |from| format!("{plan} from {}", from.name())),
        stages: fingerprints.by_name(),
    };
    let building = writer.open(header, options.restart)?;
    let mut build = Build {
        job,
        options,
        models,
        fingerprints,
        plan,
        building,
        published,
        progress,
    };
    if !options.restart
        && options.until.is_none()
        && let Some(number) = build.building.publish_finished()?
    {
        return Ok(Summary {
            outcome: Outcome::Published(number),
            run: build.finished_run(number)?,
        });
    }
    let built = build.run(&runtime, &ctx, &scan)?;
    if job.engine.spill.is_none() {
        std::fs::remove_dir_all(&spill).map_err(StoreError::io(&spill))?;
    }
    if let Some(built) = built {
        return build.publish(built, started, clock);
    }
    let mut run = build.account(started);
    run.seconds = clock.elapsed().as_secs_f64();
    Ok(Summary {
        outcome: Outcome::Stopped,
        run,
    })
}

pub fn check_factory(job: &Job, models: &Models) -> Result<(), EngineError> {
    match job.dense.enabled {
        true => Ok(dense::check_factory(&job.dense.factory, models.dim())?),
        false => Ok(()),
    }
}

fn refuse_missing(job: &Job, stage: Stage) -> Result<(), EngineError> {
    if stages(job).contains(&stage) {
        return Ok(());
    }
    let runs: Vec<&str> = stages(job).into_iter().map(Stage::name).collect();
    let (name, runs) = (stage.name(), runs.join(", "));
    Err(EngineError::Refused(format!(
        "the job has no stage {name}; it runs: {runs}"
    )))
}

/// The summary of a job whose index is published as it would be built. Rows that a model failed on may have had bad
/// luck, such as a busy server: then the build runs, and tries those again.
fn unchanged(published: &Published) -> Result<Option<Summary>, EngineError> {
    let run = published.run()?;
    let failed = |(stage, tally): (&String, &Tally)| stage != ingest::STAGE && tally.failed > 0;
    if run.stages.iter().any(failed) {
        return Ok(None);
    }
    Ok(Some(Summary {
        outcome: Outcome::Unchanged(published.number),
        run,
    }))
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
        Stage::Chunks => true,
        Stage::Queries => job.expand.enabled,
        Stage::TextVectors => job.dense.enabled,
        Stage::QueryVectors => job.dense.enabled && job.expand.enabled,
    };
    Stage::ALL.into_iter().filter(runs).collect()
}

struct Build<'a> {
    job: &'a Job,
    options: &'a Options,
    models: Models,
    fingerprints: Fingerprints,
    plan: String,
    building: Building,
    published: Option<Published>,
    progress: Arc<dyn Progress>,
}

impl Build<'_> {
    /// Computes what is missing. None: told to stop before the indexes.
    fn run(
        &mut self,
        runtime: &Runtime,
        ctx: &SessionContext,
        scan: &CorpusScan,
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
        let sources = self.sources();
        for stage in stages(self.job) {
            runtime.block_on(self.take_over(stage, shards, ctx, &sources))?;
            runtime.block_on(self.map(stage, shards, ctx, &layout))?;
            if self.options.until == Some(stage) {
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

    /// Earlier builds whose rows can be taken over.
    fn sources(&self) -> Vec<Source> {
        let published = self.published.as_ref().map(|p| Source {
            folder: p.folder.clone(),
            stages: p.manifest.stages.clone(),
            files: p.manifest.files.clone(),
        });
        let abandoned = self.building.abandoned();
        let abandoned = abandoned.map(|(folder, header)| Source {
            folder,
            stages: header.stages,
            files: Vec::new(),
        });
        published.into_iter().chain(abandoned).collect()
    }

    /// Finds the earlier results for a stage's rows, once.
    async fn take_over(
        &mut self,
        stage: Stage,
        shards: usize,
        ctx: &SessionContext,
        sources: &[Source],
    ) -> Result<(), EngineError> {
        let anew = self.options.from.is_some_and(|from| stage >= from);
        let name = reuse::journal_name(stage);
        if self.building.journal.is_done(&name, None) {
            return Ok(());
        }
        let sources: Vec<&Source> = sources
            .iter()
            .filter(|s| s.has(stage, self.fingerprints.of(stage)) && s.is_sound(stage))
            .collect();
        if anew || sources.is_empty() {
            return Ok(());
        }
        let folder = self.building.folder();
        let mut tally = Tally::default();
        let meter = Meter::start();
        reuse::find(stage, ctx, (&folder, shards), &sources, &mut tally).await?;
        meter.stop(&mut tally);
        Ok(self.building.journal.record(&name, None, tally)?)
    }

    async fn ingest(&mut self, scan: &CorpusScan) -> Result<usize, EngineError> {
        let folder = self.building.folder();
        if !self.building.journal.is_done(ingest::STAGE, None) {
            let mut tally = Tally::default();
            let meter = Meter::start();
            ingest::documents(scan, self.job, &folder, &mut tally, &*self.progress).await?;
            meter.stop(&mut tally);
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
            let meter = Meter::start();
            let reuse = Some(reuse::part(&folder, stage, shard)).filter(|part| part.exists());
            let part = (folder.as_path(), shard);
            stage::run(stage, ctx, layout, part, reuse.as_deref(), &mut tally).await?;
            meter.stop(&mut tally);
            self.building.journal.record(name, Some(shard), tally)?;
            self.check_failures()?;
        }
        self.progress.finish();
        Ok(())
    }

    fn check_failures(&self) -> Result<(), EngineError> {
        let Some(most) = &self.job.engine.max_failures else {
            return Ok(());
        };
        match failures::above(most, &self.totals()) {
            Some((failed, limit)) => Err(EngineError::TooManyFailures {
                failed,
                limit,
                folder: self.building.folder().join(Dataset::Quarantine.folder()),
            }),
            None => Ok(()),
        }
    }

    fn totals(&self) -> BTreeMap<String, Tally> {
        let mut names = vec![ingest::STAGE];
        names.extend(stages(self.job).into_iter().map(Stage::name));
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
            revision: option_env!("INTENDEX_REVISION")
                .filter(|revision| !revision.is_empty())
                .map(Into::into),
            libraries: manifest::libraries(),
            job: job_name(self.job).into(),
            job_file: self.options.job_file.clone(),
            started,
            seconds: 0.0,
            quarantined: stages.values().map(|t| t.failed).sum(),
            rates: self.rates(&stages),
            machine: Machine {
                threads: rayon::current_num_threads(),
                device: self.models.device(),
                peak_memory_bytes: stages.values().map(|t| t.peak_memory_bytes).max(),
            },
            stages,
        }
    }

    /// A stage that had nothing to compute has the rate of the run before.
    fn rates(&self, stages: &BTreeMap<String, Tally>) -> BTreeMap<String, Rate> {
        let before = self.published.as_ref().and_then(|p| p.run().ok());
        let before = before.map(|run| run.rates).unwrap_or_default();
        let rate = |(name, tally): (&String, &Tally)| match tally.computed {
            0 => before.get(name).copied().map(|rate| (name.clone(), rate)),
            _ => Some((name.clone(), Rate::of(tally))),
        };
        stages.iter().filter_map(rate).collect()
    }

    /// Writes the manifest and has the generation verified against it; only then is it published.
    fn publish(self, built: Built, started: u64, clock: Instant) -> Result<Summary, EngineError> {
        let folder = self.building.folder();
        reuse::remove(&folder)?;
        let manifest = self.manifest(&folder, built)?;
        store::replace_json(&folder.join("manifest.json"), &manifest)?;
        let meter = Meter::start();
        let findings = self.verify(&folder, &manifest)?;
        let mut tally = Tally::default();
        meter.stop(&mut tally);
        if !findings.is_empty() {
            return Err(EngineError::Unsound { folder, findings });
        }
        let mut run = self.account(started);
        run.stages.insert("verify".into(), tally);
        run.seconds = clock.elapsed().as_secs_f64();
        store::replace_json(&folder.join("run.json"), &run)?;
        manifest::write_checksums(&folder, &manifest)?;
        let outcome = Outcome::Published(self.building.publish()?);
        Ok(Summary { outcome, run })
    }

    /// All but the files' hashes, which have just been taken.
    fn verify(&self, folder: &Path, manifest: &Manifest) -> Result<Vec<Finding>, EngineError> {
        let options = verify::Options {
            hashes: false,
            ..verify::Options::default()
        };
        let embedder = match self.job.dense.enabled {
            true => Some(self.models.embedder()?),
            false => None,
        };
        let progress = &*self.progress;
        verify::verify(folder, manifest, options, embedder.as_deref(), progress)
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
