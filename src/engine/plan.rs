//! What a build would do, without doing it: the corpus is read, cut where that needs no generator, and counted.

mod count;
mod disk;
mod rates;
mod scale;
mod work;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::Serialize;
use tokio::runtime::Runtime;

use super::{
    EngineError,
    build::{identify, job_name, stages, unchanged},
    fingerprint::Fingerprints,
    functions, indexes, ingest,
    reuse::damaged,
    selection,
    stage::Stage,
    topics, verify,
};
use crate::{
    corpus,
    job::Job,
    store::{
        Dataset, Files, Output, StoreError,
        generation::{Published, Unfinished},
        manifest::Run,
        progress::Tally,
    },
};
use count::{Counted, Known};
pub use rates::Suppose;
pub use scale::Scaled;
use work::{queries, work};

/// Why a stage does not run.
const DONE: &str = "done by the unfinished build";

#[derive(Debug, Serialize)]
pub struct Plan {
    pub fingerprint: String,
    /// Whether the published index was built by this very plan and is whole: then a build does nothing.
    pub up_to_date: bool,
    /// Whether a build was ended before it was published: one of this plan goes on from there, and what it has done
    /// is not counted below; of one of another plan the rows that still fit are taken over, and are counted still.
    pub unfinished: Option<Left>,
    pub stages: Vec<StagePlan>,
    /// Of all stages, at the last run's rates or those given; null where a stage that computes has none.
    pub seconds: Option<f64>,
    /// Rates that were given instead of the last run's, in input rows a second by stage.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub given_rates: BTreeMap<String, f64>,
    pub disk_bytes: u64,
    pub disk_basis: String,
    /// What other corpora and clusters would come to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scaled: Vec<Scaled>,
}

/// What an ended build was building.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    ThisPlan,
    AnotherPlan,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePlan {
    pub stage: &'static str,
    /// Input rows it computes, and those whose results it takes over from the published index.
    pub compute: u64,
    pub reuse: u64,
    /// Tokens its model reads and writes for the rows it computes.
    pub tokens_read: u64,
    pub tokens_written: u64,
    /// At the last run's rate or the one given; null where there is none.
    pub seconds: Option<f64>,
    /// None: the figures are exact.
    pub estimate: Option<String>,
    /// Why the stage runs.
    pub reason: String,
}

pub fn plan(job: &Job, suppose: &Suppose) -> Result<Plan, EngineError> {
    let (models, fingerprints) = identify(job)?;
    let runtime = Runtime::new().map_err(EngineError::Runtime)?;
    let spill = job.engine.spill.clone().filter(|folder| folder.is_dir());
    let folder = spill.unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::tempdir_in(&folder).map_err(StoreError::io(&folder))?;
    let ctx = corpus::session(&job.engine, scratch.path())
        .map_err(EngineError::during("the folder for temporary files"))?;
    let scan = runtime.block_on(corpus::open(&ctx, &job.corpus))?;
    let fingerprint = fingerprints.plan(job, &scan.fingerprint(), models.write_slowly());
    let output = Output::fetch(&job.output.path, Files::Datasets)?;
    output.check_owner(job_name(job))?;
    let published = output.published()?;
    let up_to_date = match published
        .as_ref()
        .filter(|p| p.manifest.plan == fingerprint && !output.is_unpublished(&fingerprint))
    {
        Some(same) => unchanged(job, same)?.is_some(),
        None => false,
    };
    let mut planner = Planner {
        job,
        suppose,
        fingerprints: &fingerprints,
        up_to_date,
        unfinished: output.unfinished(&fingerprint),
        earlier: published.as_ref().map(Earlier::new),
        damaged: Vec::new(),
        has_outgrown_topics: false,
        dim: models.dim(),
    };
    planner.check_rates()?;
    planner.find_damaged();
    functions::register(&ctx, job, &fingerprints, &models, Arc::new(()));
    let known = planner.known_in();
    let embedder = models.embedder()?;
    let count = runtime.block_on(count::count(
        job,
        &ctx,
        &scan,
        &*embedder,
        (scratch.path(), known),
    ))?;
    planner.has_outgrown_topics = planner.outgrows_topics(&count);
    let stages = planner.stages(&count);
    let (disk_bytes, disk_basis) = planner.disk(&count);
    let scaled = planner.scaled(&count)?;
    Ok(Plan {
        fingerprint,
        up_to_date,
        unfinished: planner.left(),
        seconds: stages.iter().map(|s| s.seconds).sum(),
        given_rates: suppose.rates.clone(),
        stages,
        disk_bytes,
        disk_basis,
        scaled,
    })
}

/// The published generation and what its run measured.
struct Earlier<'a> {
    published: &'a Published,
    run: Option<Run>,
}

impl<'a> Earlier<'a> {
    fn new(published: &'a Published) -> Self {
        Self {
            published,
            run: published.run().ok(),
        }
    }
}

struct Planner<'a> {
    job: &'a Job,
    suppose: &'a Suppose,
    fingerprints: &'a Fingerprints,
    up_to_date: bool,
    unfinished: Option<Unfinished>,
    earlier: Option<Earlier<'a>>,
    /// Published datasets whose files are not as they were written.
    damaged: Vec<Dataset>,
    /// The corpus is another than the published topics were found in, so that they are found anew.
    has_outgrown_topics: bool,
    dim: usize,
}

impl Planner<'_> {
    /// Looks for damage as a build does, which takes over nothing from a stage's damaged files.
    fn find_damaged(&mut self) {
        let Some(earlier) = self.earlier.as_ref().filter(|_| !self.up_to_date) else {
            return;
        };
        let Published {
            folder, manifest, ..
        } = earlier.published;
        let runs = stages(self.job).into_iter();
        let of_stages = runs.flat_map(|stage| [stage.output(), stage.outcomes()]);
        let topics = topics::wanted(self.job).then_some(Dataset::Topics);
        for dataset in of_stages.chain(topics) {
            if let Some(damage) = damaged(folder, &manifest.files, &[dataset]) {
                tracing::warn!("{damage}; nothing of it is taken over");
                self.damaged.push(dataset);
            }
        }
    }

    fn outgrows_topics(&self, corpus: &Counted) -> bool {
        let earlier = self.earlier.as_ref().filter(|_| topics::wanted(self.job));
        let found_in = earlier.and_then(|e| topics::found_in(&e.published.folder).ok());
        found_in.is_some_and(|found_in| !topics::fit(&found_in, &corpus.sketch))
    }

    fn is_damaged(&self, stage: Stage) -> bool {
        [stage.output(), stage.outcomes()]
            .iter()
            .any(|dataset| self.damaged.contains(dataset))
    }

    /// Whether the published topics are of no use, though their settings are the same.
    fn finds_topics(&self) -> bool {
        self.damaged.contains(&Dataset::Topics) || self.has_outgrown_topics
    }

    fn unchanged(&self, stage: Stage) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| {
            let fingerprint = |name: &str| earlier.published.manifest.stages.get(name);
            // Keywords are chosen by the topics.
            let same_topics = fingerprint(topics::STAGE) == Some(&self.fingerprints.topics)
                && !self.finds_topics();
            fingerprint(stage.name()).map(String::as_str) == Some(self.fingerprints.of(stage))
                && (stage != Stage::Keywords || same_topics)
        })
    }

    /// The published generation, if a document can be known there by its key.
    fn known_in(&self) -> Option<&Path> {
        let first = stages(self.job).into_iter().next()?;
        let earlier = self.earlier.as_ref().filter(|_| self.unchanged(first))?;
        let read = [first.outcomes(), Dataset::Chunks, Dataset::Queries];
        let is_damaged = read.iter().any(|dataset| self.damaged.contains(dataset));
        (!is_damaged).then_some(earlier.published.folder.as_path())
    }

    fn left(&self) -> Option<Left> {
        self.unfinished.as_ref().map(|unfinished| match unfinished {
            Unfinished::This(_) => Left::ThisPlan,
            Unfinished::Other => Left::AnotherPlan,
        })
    }

    /// What an unfinished build of this plan has done of a stage.
    fn done(&self, stage: &str) -> Tally {
        match &self.unfinished {
            Some(Unfinished::This(journal)) => journal.total(stage),
            _ => Tally::default(),
        }
    }

    /// The stages whose rows decide a stage's input, and itself.
    fn chain(stage: Stage) -> &'static [Stage] {
        use Stage::{Chunks, Intents, Keywords, Queries, QueryVectors, Scores, TextVectors};
        match stage {
            Intents => &[Intents],
            Chunks => &[Intents, Chunks],
            Keywords => &[Intents, Chunks, Keywords],
            Queries => &[Intents, Chunks, Keywords, Queries],
            Scores => &[Intents, Chunks, Keywords, Queries, Scores],
            TextVectors => &[Intents, Chunks, TextVectors],
            QueryVectors => &[Intents, Chunks, Keywords, Queries, QueryVectors],
        }
    }

    /// The first stage of the chain that has changed; None: what is known of a document can be taken over.
    fn changed(&self, stage: Stage) -> Option<Stage> {
        let runs = stages(self.job);
        let chain = Self::chain(stage).iter().copied();
        chain
            .filter(|s| runs.contains(s))
            .find(|s| !self.unchanged(*s))
    }

    fn stages(&self, corpus: &Counted) -> Vec<StagePlan> {
        let rejected = corpus.rejected;
        let documents = StagePlan {
            estimate: (rejected > 0).then(|| match self.up_to_date {
                true => format!("{rejected} further rows are in quarantine"),
                false => format!("{rejected} further rows go to quarantine"),
            }),
            ..self.whole(ingest::STAGE, corpus.all.documents, &self.read(corpus))
        };
        let mut plans = vec![documents];
        plans.extend(
            stages(self.job)
                .into_iter()
                .map(|stage| self.stage(stage, corpus)),
        );
        let steps = self.steps(self.indexed(corpus)).into_iter();
        plans.extend(steps.map(|(step, rows)| self.whole(step, rows, "always done anew")));
        plans
    }

    /// What follows the stages, and on how many rows; of an index of so many chunks and queries.
    fn steps(&self, (chunks, queries): (u64, u64)) -> Vec<(&'static str, u64)> {
        let kept = self.kept(queries);
        let (dense, expand) = (self.job.dense.enabled, &self.job.expand);
        let steps = [
            (indexes::DENSE_TEXT, chunks, dense),
            (indexes::SELECTION, queries, selection::is_partial(expand)),
            (indexes::SPARSE, chunks, self.job.sparse.enabled),
            (indexes::DENSE_QUERIES, kept, dense && expand.enabled),
            (verify::STAGE, chunks, true),
        ];
        let steps = steps.into_iter().filter(|(.., runs)| *runs);
        steps.map(|(step, rows, _)| (step, rows)).collect()
    }

    /// Of so many queries, those that the indexes take.
    fn kept(&self, queries: u64) -> u64 {
        (queries as f64 * f64::from(self.job.expand.keep)).ceil() as u64
    }

    /// Why the corpus is read, and what of the published index it no longer holds.
    fn read(&self, corpus: &Counted) -> String {
        let rows = |earlier: &Earlier| {
            let datasets = &earlier.published.manifest.datasets;
            datasets.get(Dataset::Documents.folder()).map(|d| d.rows)
        };
        let before = self.earlier.as_ref().and_then(rows).unwrap_or(0);
        match before.saturating_sub(corpus.known.documents) {
            gone if gone > 0 && corpus.known.documents > 0 => {
                format!("always read; {gone} of the published index are removed or have changed")
            }
            _ => "always read".into(),
        }
    }

    /// A step that takes over nothing of the published index.
    fn whole(&self, stage: &'static str, rows: u64, reason: &str) -> StagePlan {
        let is_done = match &self.unfinished {
            Some(Unfinished::This(journal)) => journal.is_done(stage, None),
            _ => false,
        };
        let (compute, reason) = match (self.up_to_date, is_done) {
            (true, _) => (0, "the published index is up to date"),
            (false, true) => (0, DONE),
            (false, false) => (rows.saturating_sub(self.done(stage).rows), reason),
        };
        StagePlan {
            stage,
            compute,
            reuse: 0,
            tokens_read: 0,
            tokens_written: 0,
            seconds: self.seconds(stage, compute),
            estimate: None,
            reason: reason.into(),
        }
    }

    /// Chunks and queries of the whole index.
    fn indexed(&self, corpus: &Counted) -> (u64, u64) {
        let known = corpus.known;
        let chunks = match self.changed(Stage::Chunks) {
            None => known.chunks + corpus.new.chunks,
            Some(_) => corpus.all.chunks,
        };
        let queries = match self.changed(Stage::Queries) {
            None => known.queries + queries(self.job, &corpus.new),
            Some(_) => queries(self.job, &corpus.all),
        };
        (chunks, queries)
    }

    fn stage(&self, stage: Stage, corpus: &Counted) -> StagePlan {
        let changed = self.changed(stage);
        let (count, known) = match changed {
            None if !self.is_damaged(stage) => (&corpus.new, corpus.known),
            _ => (&corpus.all, Known::default()),
        };
        let known = match stage.input() {
            Dataset::Documents => known.documents,
            Dataset::Chunks => known.chunks,
            _ => known.queries,
        };
        let again = self.again(stage).min(known);
        let work = work(stage, self.job, count).and(again, &work(stage, self.job, &corpus.all));
        let done = self.done(stage.name());
        let left = work.left(done.computed);
        StagePlan {
            stage: stage.name(),
            compute: left.compute,
            reuse: (known - again).saturating_sub(done.reused),
            tokens_read: left.tokens_read,
            tokens_written: left.tokens_written,
            seconds: self.seconds(stage.name(), left.compute),
            reason: match (left.compute, done.computed + done.reused + done.failed) {
                (0, 1..) => DONE.into(),
                (compute, _) => self.reason(stage, changed, (compute, again)),
            },
            estimate: left.estimate.filter(|_| left.compute > 0),
        }
    }

    /// Rows of a stage that failed in the published index.
    fn failed(&self, stage: Stage) -> u64 {
        let run = self.earlier.as_ref().and_then(|e| e.run.as_ref());
        let tally = run.and_then(|run| run.stages.get(stage.name()));
        tally.map_or(0, |tally| tally.failed)
    }

    /// Of the rows whose documents are known, those that failed and are tried again. A document that failed in the
    /// first stage is not known.
    fn again(&self, stage: Stage) -> u64 {
        match stages(self.job).first() {
            Some(first) if *first != stage => self.failed(stage),
            _ => 0,
        }
    }

    fn reason(&self, stage: Stage, changed: Option<Stage>, (compute, again): (u64, u64)) -> String {
        let failed = Self::chain(stage).iter().any(|s| self.failed(*s) > 0);
        match changed {
            _ if self.earlier.is_none() => "nothing is published yet".into(),
            None if self.is_damaged(stage) => "its files in the published index are damaged".into(),
            Some(Stage::Keywords) if stage == Stage::Keywords && self.finds_topics() => {
                "the topics are found anew: the corpus has become another, or their files are damaged".into()
            }
            Some(changed) if changed == stage => {
                "its parameters or model files have changed since the published index".into()
            }
            Some(changed) => format!(
                "its input changes with the stage {}; rows that come out the same are reused",
                changed.name()
            ),
            None if compute == 0 => "all of its input is as in the published index".into(),
            None if compute == again => "failed in the published index".into(),
            None if failed => {
                "for documents that are new, have changed or failed in the published index".into()
            }
            None => "for documents that are new or have changed".into(),
        }
    }
}
