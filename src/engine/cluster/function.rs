//! A stage's function on an executor: made from the job when it is first called, its models loaded once per process.

use std::{
    env, fmt,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use arrow::datatypes::DataType;
use datafusion::{
    error::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
};
use serde::{Deserialize, Serialize};

use super::{executor, stop::Stoppable};
use crate::{
    engine::{
        EngineError, build,
        fingerprint::Fingerprints,
        functions::{self, MapFunction, MapStage},
        models::Models,
        topics,
    },
    job::{
        Job, Progress,
        spec::{Corpus, Engine, Output},
    },
};

/// Begins a definition, so that it is not taken for another codec's.
const MARK: &[u8] = b"intendex function ";

/// The variables with the key of a server, and the server.
const API_KEY: &str = "INTENDEX_API_KEY";
const API_SERVER: &str = "INTENDEX_API_SERVER";

/// How long an executor that cannot work for a job waits before it says so, so that others get the shard.
const PENALTY: Duration = Duration::from_secs(2);

/// What a function is made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    /// Name in SQL.
    name: String,
    /// What the build expects of it: the executor's files, device and program must come to the same.
    fingerprint: String,
    job: Job,
    /// Where the topics are.
    generation: PathBuf,
}

impl Definition {
    pub fn new(stage: &dyn MapStage, job: &Job, generation: &Path) -> Self {
        Self {
            name: stage.name().to_owned(),
            fingerprint: stage.fingerprint().to_owned(),
            job: parameters(job),
            generation: generation.to_owned(),
        }
    }

    pub fn encode(&self, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.extend_from_slice(MARK);
        serde_json::to_writer(bytes, self).map_err(|e| DataFusionError::External(e.into()))
    }

    /// None of what is not one.
    pub fn decode(bytes: &[u8]) -> Option<Result<Self>> {
        let own = bytes.strip_prefix(MARK)?;
        Some(serde_json::from_slice(own).map_err(|e| {
            failed(&format!(
                "does not know this function: {e}; all need one version of Intendex"
            ))
        }))
    }
}

/// A job as far as its functions read it: jobs that differ in the rest share their models.
fn parameters(job: &Job) -> Job {
    Job {
        name: None,
        corpus: Corpus {
            path: Default::default(),
            filter: None,
            ..job.corpus.clone()
        },
        output: Output {
            path: Default::default(),
            ..job.output.clone()
        },
        engine: Engine {
            threads: job.engine.threads,
            seed: job.engine.seed,
            ..Engine::default()
        },
        ..job.clone()
    }
}

/// A function that is elsewhere until it is called.
pub struct Remote {
    definition: Definition,
    signature: Signature,
}

impl Remote {
    pub fn new(definition: Definition) -> Self {
        Self {
            definition,
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }

    pub fn definition(&self) -> &Definition {
        &self.definition
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Definition {
            name, fingerprint, ..
        } = &self.definition;
        write!(f, "{name}[{fingerprint}]")
    }
}

impl PartialEq for Remote {
    fn eq(&self, other: &Self) -> bool {
        let of = |remote: &Self| {
            let definition = &remote.definition;
            (definition.name.clone(), definition.fingerprint.clone())
        };
        of(self) == of(other)
    }
}

impl Eq for Remote {}

impl Hash for Remote {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
        self.definition.fingerprint.hash(state);
    }
}

impl ScalarUDFImpl for Remote {
    fn name(&self) -> &str {
        &self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The plan that is sent holds the type; it is asked for only where the function is made anyway.
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        function(&self.definition)?.inner().return_type(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let function = function(&self.definition).inspect_err(|_| thread::sleep(PENALTY))?;
        let result = function.invoke_with_args(args);
        result.map_err(|e| failed(&e))
    }
}

/// The functions of a job that this process works for, and their models.
struct Loaded {
    job: Job,
    models: Models,
    fingerprints: Fingerprints,
    functions: Vec<(Definition, Arc<ScalarUDF>)>,
}

fn function(definition: &Definition) -> Result<Arc<ScalarUDF>> {
    /// The one used last is last.
    static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut current = match loaded.iter().position(|own| own.job == definition.job) {
        Some(at) => loaded.remove(at),
        None => {
            // The memory of another job's models may be needed.
            let many = (loaded.len() + 1).saturating_sub(executor::jobs());
            loaded.drain(..many);
            Loaded::new(&definition.job).map_err(|e| failed(&e))?
        }
    };
    let function = current.function(definition);
    loaded.push(current);
    function
}

/// Begins every error of a function.
pub const ERROR: &str = "intendex executor ";

/// An error that says which executor it comes from.
pub fn failed(error: &dyn fmt::Display) -> DataFusionError {
    DataFusionError::Execution(format!("{ERROR}{}: {error}", executor::name()))
}

impl Loaded {
    fn new(job: &Job) -> Result<Self, EngineError> {
        let mut own = job.clone();
        own.models.device = executor::device().to_owned();
        if let Some(generator) = &mut own.models.generator {
            // It is never sent, and given to no server but its own: whoever reaches the scheduler can send a job.
            let is_own = |server: &String| env::var(API_SERVER).is_ok_and(|own| own == *server);
            let key = env::var(API_KEY).ok();
            let key = key.filter(|_| generator.server.as_ref().is_some_and(is_own));
            generator.api_key = key.map(Into::into);
        }
        build::start_threads(own.engine.threads);
        let (models, fingerprints) = build::identify(&own)?;
        tracing::info!(
            "works for a job that it has no models of; they are loaded when they are first needed"
        );
        Ok(Self {
            job: job.clone(),
            models,
            fingerprints,
            functions: Vec::new(),
        })
    }

    fn function(&mut self, definition: &Definition) -> Result<Arc<ScalarUDF>> {
        let is_same = |other: &Definition| {
            other.name == definition.name && other.fingerprint == definition.fingerprint
        };
        if let Some((_, found)) = self.functions.iter().find(|(other, _)| is_same(other)) {
            return Ok(found.clone());
        }
        let topics = match definition.name == functions::KEYWORDS && topics::wanted(&self.job) {
            true => topics::read(&definition.generation).map_err(|e| failed(&e))?,
            false => Default::default(),
        };
        let progress: Arc<dyn Progress> = Arc::new(Stoppable);
        let all = functions::all(
            &self.job,
            &self.fingerprints,
            &self.models,
            progress.clone(),
            &topics,
        );
        let stage = all
            .into_iter()
            .find(|stage| stage.name() == definition.name);
        let stage =
            stage.ok_or_else(|| failed(&format!("there is no function {}", definition.name)))?;
        if stage.fingerprint() != definition.fingerprint {
            return Err(failed(&format!(
                "{} would not compute here what the build expects: its model files, its device ({}), or its version of Intendex ({}) are others",
                definition.name,
                self.models.device(),
                env!("CARGO_PKG_VERSION")
            )));
        }
        let function = Arc::new(ScalarUDF::from(MapFunction::new(stage, progress)));
        self.functions
            .retain(|(other, _)| other.name != definition.name);
        self.functions.push((definition.clone(), function.clone()));
        Ok(function)
    }
}
