//! What a job comes to before anything runs: its stages, models and fingerprints, its corpus, and whether its index is
//! published already.

use std::{
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use datafusion::prelude::SessionContext;
use tokio::runtime::Runtime;

use super::{Outcome, Summary};
use crate::{
    corpus::{self, CorpusScan},
    engine::{
        EngineError, failures, fingerprint::Fingerprints, functions::CANNOT_SCORE, ingest,
        models::Models, stage::Stage,
    },
    index::dense,
    job::{Job, spec::Scored},
    store::{folder_of, generation::Published, manifest, progress::Tally},
};

/// When a build began.
pub struct Start {
    /// Unix time in seconds.
    pub time: u64,
    pub clock: Instant,
}

impl Start {
    pub fn now() -> Self {
        Self {
            time: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs()),
            clock: Instant::now(),
        }
    }
}

pub fn start_threads(threads: usize) {
    if threads > 0 {
        // An error means that the pool is running already, with the size it was first given.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global();
    }
}

/// The job's models and what its stages' rows depend on.
pub fn identify(job: &Job) -> Result<(Models, Fingerprints), EngineError> {
    let mut settings = job.models.clone();
    if !job.expand.scores().contains(&Scored::CrossEncoder) {
        settings.cross_encoder = None;
    }
    let on_cluster = job.engine.cluster.is_some();
    if on_cluster {
        // The job speaks of the executors' devices. What is left to do here has the same numbers on a CPU, and on a GPU where there
        // is one.
        let on_gpu = device_of_cluster(job) != "cpu";
        settings.device = if on_gpu { "auto" } else { "cpu" }.into();
    }
    let models = Models::find(&settings, needs_generator(job))?;
    let device = match on_cluster {
        true => device_of_cluster(job).to_owned(),
        false => models.device(),
    };
    check_factory(job, &models)?;
    let fingerprints = Fingerprints::new(
        job,
        (
            models.embedder_identity(),
            models.generator_identity(),
            models.cross_encoder_identity(),
        ),
        device != "cpu",
    );
    Ok((models, fingerprints))
}

/// Where the models of a cluster's executors run: on CPUs, unless the job says otherwise.
pub fn device_of_cluster(job: &Job) -> &str {
    match job.models.device.as_str() {
        "auto" => "cpu",
        other => other,
    }
}

/// The corpus, and the session that reads it.
pub struct Input {
    pub runtime: Runtime,
    pub ctx: SessionContext,
    pub scan: CorpusScan,
    _spill: Spill,
}

impl Input {
    pub fn open(job: &Job) -> Result<Self, EngineError> {
        let runtime = Runtime::new().map_err(EngineError::Runtime)?;
        let spill = Spill::new(job);
        let ctx = corpus::session(&job.engine, &spill.folder)
            .map_err(EngineError::during("engine.spill"))?;
        let scan = runtime.block_on(corpus::open(&ctx, &job.corpus))?;
        Ok(Self {
            runtime,
            ctx,
            scan,
            _spill: spill,
        })
    }
}

/// Refuses a job whose scores its server cannot give, before anything is written. One that cannot be asked now may not be
/// needed: what is scored already is taken over.
pub fn check_scores(job: &Job, models: &Models) -> Result<(), EngineError> {
    let by_generator = |scored: &Scored| *scored != Scored::CrossEncoder;
    let asked =
        stages(job).contains(&Stage::Scores) && job.expand.scores().iter().any(by_generator);
    match asked && matches!(models.can_score(), Ok(false)) {
        true => Err(EngineError::Refused(CANNOT_SCORE.into())),
        false => Ok(()),
    }
}

fn check_factory(job: &Job, models: &Models) -> Result<(), EngineError> {
    match job.dense.enabled {
        true => Ok(dense::check_factory(&job.dense.factory, models.dim())?),
        false => Ok(()),
    }
}

pub fn refuse_missing(job: &Job, stage: Stage) -> Result<(), EngineError> {
    if stages(job).contains(&stage) {
        return Ok(());
    }
    let runs: Vec<&str> = stages(job).into_iter().map(Stage::name).collect();
    let (name, runs) = (stage.name(), runs.join(", "));
    Err(EngineError::Refused(format!(
        "the job has no stage {name}; it runs: {runs}"
    )))
}

/// Where DataFusion spills: the job's folder, or one of the output's own that goes with the build.
struct Spill {
    folder: PathBuf,
    own: bool,
}

impl Spill {
    fn new(job: &Job) -> Self {
        let asked = job.engine.spill.clone();
        Self {
            own: asked.is_none(),
            folder: asked.unwrap_or_else(|| folder_of(&job.output.path).join("spill")),
        }
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if self.own {
            // What cannot be removed now is removed by the next build.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// The summary of a job whose index is published as it would be built. Rows that a model failed on may have had bad
/// luck, such as a busy server: then the build runs, and tries those again. So it does where files are missing or cut.
/// An index with more failures than the job now allows is an error.
pub fn unchanged(job: &Job, published: &Published) -> Result<Option<Summary>, EngineError> {
    if let Some(difference) = published.difference()? {
        tracing::warn!("{difference}; the index is built again");
        return Ok(None);
    }
    let run = match manifest::sound_run(&published.folder, &published.manifest) {
        Ok(run) => run,
        Err(error) => {
            tracing::warn!("{error}; the index is built again");
            return Ok(None);
        }
    };
    let failed = |(stage, tally): (&String, &Tally)| stage != ingest::STAGE && tally.failed > 0;
    if run.stages.iter().any(failed) {
        return Ok(None);
    }
    failures::check(job, &run.stages, &published.folder)?;
    Ok(Some(Summary {
        outcome: Outcome::Unchanged(published.number),
        run,
    }))
}

/// Whether a stage of the job reads a generator.
pub fn needs_generator(job: &Job) -> bool {
    job.expand.enabled || (job.intents.enabled && job.corpus.intents.is_none())
}

pub fn job_name(job: &Job) -> &str {
    job.name.as_deref().unwrap_or("job")
}

/// The stages the job runs, in order.
pub fn stages(job: &Job) -> Vec<Stage> {
    let runs = |stage: &Stage| match stage {
        Stage::Intents => job.corpus.intents.is_some() || job.intents.enabled,
        Stage::Chunks => true,
        Stage::Keywords => job.expand.enabled && job.expand.lists > 0,
        Stage::Queries => job.expand.enabled,
        Stage::Scores => job.expand.enabled && !job.expand.scores().is_empty(),
        Stage::TextVectors => job.dense.enabled,
        Stage::QueryVectors => job.dense.enabled && job.expand.enabled,
    };
    Stage::ALL.into_iter().filter(runs).collect()
}
