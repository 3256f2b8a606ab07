//! Builds and publishes a generation: documents, then every map stage shard by shard, then the indexes.

mod account;
mod resolve;
mod wrote;

use std::{path::Path, sync::Arc};

use datafusion::prelude::SessionContext;
use futures::{StreamExt, stream};
use tokio::runtime::Runtime;

use super::{
    EngineError, failures,
    fingerprint::Fingerprints,
    functions, indexes, ingest,
    models::Models,
    place::Place,
    reuse::{self, Source},
    stage::{self, Layout, Stage},
    topics,
    verify::{self, Finding},
};
use crate::{
    corpus::CorpusScan,
    job::{Job, Progress},
    store::{
        self, Building, Dataset, Manifest, Output,
        dataset::count_rows,
        generation::Published,
        manifest::{self, Indexes, Run},
        progress::{Header, Meter, Tally},
    },
};
use resolve::{Input, check_scores, refuse_missing};
pub use resolve::{Start, identify, job_name, needs_generator, stages, start_threads, unchanged};

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
    let start = Start::now();
    start_threads(job.engine.threads);
    for stage in [options.from, options.until].into_iter().flatten() {
        refuse_missing(job, stage)?;
    }
    let (models, fingerprints) = identify(job)?;
    let output = Output::new(&job.output.path);
    let writer = Output::new(&job.output.path).lock(job_name(job))?;
    let published = writer.published()?;
    let input = Input::open(job)?;
    let plan = fingerprints.plan(job, &input.scan.fingerprint(), models.write_slowly());
    if !options.restart
        && options.from.is_none()
        && !output.is_unpublished(&plan)
        && let Some(same) = published.as_ref().filter(|p| p.manifest.plan == plan)
        && let Some(summary) = unchanged(job, same)?
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
    let mut building = writer.open(header, options.restart)?;
    building.send(wrote::wrote)?;
    let build = Build {
        job,
        options,
        models,
        fingerprints,
        plan,
        building,
        published,
        progress,
    };
    build.finish(input, &start)
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
    /// Publishes what a killed run had finished, or else runs what is missing.
    fn finish(mut self, input: Input, start: &Start) -> Result<Summary, EngineError> {
        let (restart, until) = (self.options.restart, self.options.until);
        if !restart
            && until.is_none()
            && let Some(number) = self.building.publish_finished()?
        {
            let folder = Output::new(&self.job.output.path).folder(number);
            return Ok(Summary {
                outcome: Outcome::Published(number),
                run: store::read_json(&folder.join(manifest::RUN))?,
            });
        }
        let built = self.run(&input)?;
        drop(input);
        match built {
            Some(indexes) => self.publish(indexes, start),
            None => {
                self.building.flush()?;
                Ok(Summary {
                    outcome: Outcome::Stopped,
                    run: self.account(start, None),
                })
            }
        }
    }

    /// Computes what is missing. None: told to stop before the indexes.
    fn run(&mut self, input: &Input) -> Result<Option<Indexes>, EngineError> {
        self.check_failures()?;
        check_scores(self.job, &self.models)?;
        let Input { runtime, ctx, .. } = input;
        functions::register(
            ctx,
            self.job,
            &self.fingerprints,
            &self.models,
            self.progress.clone(),
        );
        let shards = runtime.block_on(self.ingest(&input.scan))?;
        let layout = self.layout(runtime, ctx)?;
        let place = Place::of(self.job, &self.building, ctx)?;
        let sources = self.sources();
        for stage in stages(self.job) {
            if stage == Stage::Keywords && topics::wanted(self.job) {
                self.topics(shards, ctx, &sources)?;
            }
            runtime.block_on(self.take_over(stage, shards, ctx, &sources))?;
            runtime.block_on(self.map(stage, shards, (ctx, &place), &layout))?;
            reuse::remove(&self.building.folder(), stage)?;
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
        let abandoned = self.building.abandoned().into_iter();
        let abandoned = abandoned.map(|(folder, header)| Source {
            folder,
            stages: header.stages,
            files: Vec::new(),
        });
        published.into_iter().chain(abandoned).collect()
    }

    /// Finds the topics of the corpus, once, and has keywords chosen by them.
    fn topics(
        &mut self,
        shards: usize,
        ctx: &SessionContext,
        sources: &[Source],
    ) -> Result<(), EngineError> {
        let folder = self.building.folder();
        if !self.building.journal.is_done(topics::STAGE, None) {
            let anew = self
                .options
                .from
                .is_some_and(|from| from <= Stage::Keywords);
            let fits = |source: &&Source| {
                if source.stages.get(topics::STAGE) != Some(&self.fingerprints.topics) {
                    return false;
                }
                let damage = reuse::damaged(&source.folder, &source.files, &[Dataset::Topics]);
                if let Some(damage) = &damage {
                    tracing::warn!(
                        "{damage}; topics are found anew, and with them keywords and queries"
                    );
                }
                damage.is_none()
            };
            let sources: Vec<&Source> = sources.iter().filter(|s| !anew && fits(s)).collect();
            let mut tally = Tally::default();
            let meter = Meter::start();
            let busy = self.models.busy();
            let embedder = self.models.embedder()?;
            let (job, progress) = (self.job, &*self.progress);
            topics::write(
                job,
                (&folder, shards),
                &sources,
                &*embedder,
                &mut tally,
                progress,
            )?;
            meter.stop(&mut tally);
            tally.model_seconds = (self.models.busy() - busy).as_secs_f64();
            self.building.journal.record(topics::STAGE, None, tally)?;
        }
        let topics = topics::read(&folder)?;
        functions::register_keywords(
            ctx,
            self.job,
            &self.fingerprints,
            &self.models,
            self.progress.clone(),
            &topics,
        );
        Ok(())
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
        if anew {
            return Ok(());
        }
        let sources: Vec<&Source> = sources
            .iter()
            .filter(|s| s.has(stage, self.fingerprints.of(stage)) && s.is_sound(stage))
            .collect();
        if sources.is_empty() {
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
            let most = self.job.engine.shard_documents(self.models.write_slowly());
            let into = (folder.as_path(), most);
            ingest::documents(scan, self.job, into, &mut tally, &*self.progress).await?;
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
        on: (&SessionContext, &Place),
        layout: &Layout,
    ) -> Result<(), EngineError> {
        let folder = self.building.folder();
        let name = stage.name();
        let missing: Vec<usize> = (0..shards)
            .filter(|s| !self.building.journal.is_done(name, Some(*s)))
            .collect();
        if missing.is_empty() {
            return self.check_some_left(stage);
        }
        let rows = |shard: &usize| count_rows(&stage.input().part(&folder, *shard));
        let total = missing.iter().map(rows).sum::<Result<usize, _>>()?;
        self.progress.start(name, total as u64, stage.unit());
        let progress = self.progress.clone();
        let run = |shard: usize| {
            let (folder, progress) = (&folder, &progress);
            async move {
                let reuse = Some(reuse::part(folder, stage, shard)).filter(|part| part.exists());
                let part = (folder.as_path(), shard);
                let mut attempt = 1;
                let tally = loop {
                    let run = stage::run(stage, on, layout, part, reuse.as_deref(), &**progress);
                    match run.await {
                        Err(error) if on.1.sends_again(attempt, &error).await => attempt += 1,
                        done => break done?,
                    }
                };
                Ok::<_, EngineError>((shard, tally))
            }
        };
        let mut shards =
            stream::iter(missing.into_iter().map(run)).buffer_unordered(on.1.shards_at_once());
        // From one shard to the next, as several may be on their way.
        let mut meter = (Meter::start(), self.models.busy());
        while let Some(done) = shards.next().await {
            let (shard, mut tally) = done?;
            let (clock, busy) = std::mem::replace(&mut meter, (Meter::start(), self.models.busy()));
            clock.stop(&mut tally);
            tally.model_seconds = (self.models.busy() - busy).as_secs_f64();
            self.check_failures_with(stage, &tally)?;
            self.building.journal.record(name, Some(shard), tally)?;
        }
        self.progress.finish();
        self.check_some_left(stage)
    }

    /// A stage of which nothing is left has failed itself: not its rows are bad, but a model or a setting.
    fn check_some_left(&self, stage: Stage) -> Result<(), EngineError> {
        let total = self.building.journal.total(stage.name());
        if total.failed == 0 || total.computed + total.reused > total.failed {
            return Ok(());
        }
        Err(EngineError::AllFailed {
            stage: stage.name(),
            failed: total.failed,
            folder: self.building.folder().join(Dataset::Quarantine.folder()),
        })
    }

    fn check_failures(&self) -> Result<(), EngineError> {
        failures::check(self.job, &self.totals(), &self.building.folder())
    }

    /// With those of a shard that is not in the journal yet: what a model failed on is tried again by the next run only
    /// if it never gets there.
    fn check_failures_with(&self, stage: Stage, shard: &Tally) -> Result<(), EngineError> {
        let mut totals = self.totals();
        totals.entry(stage.name().into()).or_default().add(shard);
        failures::check(self.job, &totals, &self.building.folder())
    }

    /// Writes the manifest and has the generation verified against it; only then is it published.
    fn publish(self, indexes: Indexes, start: &Start) -> Result<Summary, EngineError> {
        let folder = self.building.folder();
        reuse::remove_all(&folder)?;
        store::remove_temporary(&folder)?;
        let manifest = self.manifest(&folder, indexes)?;
        store::replace_json(&folder.join("manifest.json"), &manifest)?;
        let (meter, busy) = (Meter::start(), self.models.busy());
        let findings = self.verify(&folder, &manifest)?;
        let mut tally = Tally::default();
        meter.stop(&mut tally);
        tally.model_seconds = (self.models.busy() - busy).as_secs_f64();
        if !findings.is_empty() {
            return Err(EngineError::Unsound { folder, findings });
        }
        let chunks = manifest.datasets.get(Dataset::Chunks.folder());
        tally.computed = chunks.map_or(0, |chunks| chunks.rows);
        let run = self.account(start, Some(tally));
        store::replace_json(&folder.join(manifest::RUN), &run)?;
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
}
