//! The job's models: identified when a run starts, loaded when a stage first needs them, once per process.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use candle_core::Device;

use super::clock::Clock;
use crate::{
    job::spec,
    model::{
        Completion, Embed, Embedded, Generate, LogProb, ModelError, ModelIdentity, Prompt,
        Sampling, Score, TextKind,
        bert::{BertEmbedder, CrossEncoder, number_type},
        decoder::Decoder,
        device::device,
        http::HttpGenerator,
        source,
    },
};

/// Longest part of a title that is embedded before a chunk, in tokens.
const TITLE_TOKENS: usize = 32;

type Shared<T> = OnceLock<Result<T, String>>;

/// Cheap to clone: all clones share the loaded models.
#[derive(Clone)]
pub struct Models {
    inner: Arc<Inner>,
}

struct Inner {
    embedder_settings: spec::Embedder,
    embedder_source: source::EmbedderSource,
    generator_settings: Option<spec::Generator>,
    generator_source: Option<source::GeneratorSource>,
    cross_source: Option<source::EmbedderSource>,
    server: Option<Arc<HttpGenerator>>,
    device: Device,
    device_name: String,
    embedder: Shared<Arc<dyn Embed>>,
    decoder: Shared<Arc<Decoder>>,
    cross_encoder: Shared<Arc<CrossEncoder>>,
    busy: Clock,
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Models")
            .field("embedder", self.embedder_identity())
            .finish_non_exhaustive()
    }
}

impl Models {
    /// Finds and hashes the model files; reads none of their weights. `generator` says whether the job's stages
    /// need the generator, and what scores its queries, at all.
    pub fn find(settings: &spec::Models, generator: bool) -> Result<Self, ModelError> {
        let embedder_source = source::embedder(&settings.embedder, settings.offline)?;
        let generator_settings = settings.generator.clone().filter(|_| generator);
        let device_name = &settings.device;
        let device = device(device_name)?;
        number_type(settings.embedder.numbers(!device.is_cpu()), &device)?;
        let mut generator_source = None;
        let mut server = None;
        match &generator_settings {
            Some(g) if g.server.is_some() => server = Some(Arc::new(HttpGenerator::new(g)?)),
            Some(g) => generator_source = Some(source::generator(g, settings.offline)?),
            None => {}
        }
        let cross = settings.cross_encoder.as_ref().filter(|_| generator);
        let cross =
            cross.map(|c| source::cross_encoder(&c.model, c.revision.as_deref(), settings.offline));
        let inner = Inner {
            embedder_settings: settings.embedder.clone(),
            embedder_source,
            generator_settings,
            generator_source,
            cross_source: cross.transpose()?,
            server,
            device,
            device_name: device_name.clone(),
            embedder: OnceLock::new(),
            decoder: OnceLock::new(),
            cross_encoder: OnceLock::new(),
            busy: Clock::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub fn embedder_identity(&self) -> &ModelIdentity {
        &self.inner.embedder_source.identity
    }

    pub fn generator_identity(&self) -> Option<&ModelIdentity> {
        let file = self.inner.generator_source.as_ref().map(|s| &s.identity);
        file.or_else(|| self.inner.server.as_ref().map(|s| s.identity()))
    }

    pub fn cross_encoder_identity(&self) -> Option<&ModelIdentity> {
        self.inner.cross_source.as_ref().map(|s| &s.identity)
    }

    pub fn has_generator(&self) -> bool {
        self.inner.generator_settings.is_some()
    }

    /// Whether a generator takes seconds for a document: one that is not on a GPU of this machine.
    pub fn write_slowly(&self) -> bool {
        self.has_generator() && (self.inner.server.is_some() || self.inner.device.is_cpu())
    }

    /// Where the models run: `cpu`, or a GPU.
    pub fn device(&self) -> String {
        match &self.inner.device {
            Device::Cpu => "cpu".into(),
            _ if self.inner.device_name == "auto" => "cuda:0".into(),
            _ => self.inner.device_name.clone(),
        }
    }

    /// The number type of the embedder's weights.
    pub fn precision(&self) -> spec::Precision {
        let on_gpu = !self.inner.device.is_cpu();
        self.inner.embedder_settings.numbers(on_gpu)
    }

    pub fn embedder(&self) -> Result<Arc<dyn Embed>, ModelError> {
        let inner = &self.inner;
        let source = &inner.embedder_source;
        let load = || {
            let loaded = BertEmbedder::load(
                &source.folder,
                source.identity.clone(),
                &inner.embedder_settings,
                &inner.device,
            );
            loaded
                .map(|e| Arc::new(inner.watched(Arc::new(e))) as Arc<dyn Embed>)
                .map_err(|e| e.to_string())
        };
        shared(
            &inner.embedder,
            || inner.busy.time(load),
            &source.identity.name,
        )
    }

    pub fn generator(&self) -> Result<Arc<dyn Generate>, ModelError> {
        match &self.inner.server {
            Some(server) => Ok(Arc::new(self.inner.watched(server.clone()))),
            None => Ok(Arc::new(self.inner.watched(self.decoder()?))),
        }
    }

    /// Whether the generator can score, without loading one that is a file.
    pub fn can_score(&self) -> Result<bool, ModelError> {
        self.inner
            .server
            .as_ref()
            .map_or(Ok(true), |server| server.can_score())
    }

    /// None where the generator cannot score.
    pub fn scorer(&self) -> Result<Option<Arc<dyn Score>>, ModelError> {
        match &self.inner.server {
            Some(server) if server.can_score()? => {
                Ok(Some(Arc::new(self.inner.watched(server.clone()))))
            }
            Some(_) => Ok(None),
            None => Ok(Some(Arc::new(self.inner.watched(self.decoder()?)))),
        }
    }

    /// None where the job names none.
    pub fn cross_encoder(&self) -> Result<Option<Arc<CrossEncoder>>, ModelError> {
        let inner = &self.inner;
        let Some(source) = &inner.cross_source else {
            return Ok(None);
        };
        let load = || {
            let loaded = CrossEncoder::load(&source.folder, source.identity.clone(), &inner.device);
            loaded.map(Arc::new).map_err(|e| e.to_string())
        };
        let loaded = shared(
            &inner.cross_encoder,
            || inner.busy.time(load),
            &source.identity.name,
        );
        loaded.map(Some)
    }

    fn decoder(&self) -> Result<Arc<Decoder>, ModelError> {
        let inner = &self.inner;
        let (Some(source), Some(settings)) = (&inner.generator_source, &inner.generator_settings)
        else {
            return Err(ModelError::Model {
                model: "generator".into(),
                message: "the job names none; add [models.generator]".into(),
            });
        };
        let load = || {
            let loaded = Decoder::load(
                &source.path,
                source.identity.clone(),
                settings,
                &inner.device,
            );
            loaded.map(Arc::new).map_err(|e| e.to_string())
        };
        shared(
            &inner.decoder,
            || inner.busy.time(load),
            &source.identity.name,
        )
    }

    /// Time spent in the models so far, loading them included; splitting texts into tokens is not counted.
    pub fn busy(&self) -> Duration {
        self.inner.busy.read()
    }

    /// Length of an embedding, known without reading the weights.
    pub fn dim(&self) -> usize {
        self.inner.embedder_source.dim
    }
}

impl Inner {
    fn watched<T>(&self, model: Arc<T>) -> Watched<T> {
        Watched {
            model,
            busy: self.busy.clone(),
        }
    }
}

/// A model whose time is added up.
struct Watched<T> {
    model: Arc<T>,
    busy: Clock,
}

impl<T: Embed> Embed for Watched<T> {
    fn identity(&self) -> &ModelIdentity {
        self.model.identity()
    }

    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn max_text_tokens(&self) -> usize {
        self.model.max_text_tokens()
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        self.model.token_offsets(text)
    }

    fn embed(&self, texts: &[&str], kind: TextKind) -> Result<Embedded, ModelError> {
        self.busy.time(|| self.model.embed(texts, kind))
    }
}

impl<T: Generate> Generate for Watched<T> {
    fn identity(&self) -> &ModelIdentity {
        self.model.identity()
    }

    fn context_tokens(&self) -> usize {
        self.model.context_tokens()
    }

    fn requests_at_once(&self) -> usize {
        self.model.requests_at_once()
    }

    fn token_offsets(&self, text: &str) -> Result<Vec<(usize, usize)>, ModelError> {
        self.model.token_offsets(text)
    }

    fn generate(
        &self,
        requests: &[(Prompt, Sampling)],
    ) -> Vec<Result<Vec<Completion>, ModelError>> {
        self.busy.time(|| self.model.generate(requests))
    }
}

impl<T: Score> Score for Watched<T> {
    fn score(&self, requests: &[(Prompt, Vec<String>)]) -> Vec<Result<Vec<LogProb>, ModelError>> {
        self.busy.time(|| self.model.score(requests))
    }
}

fn shared<T: Clone>(
    cell: &Shared<T>,
    load: impl FnOnce() -> Result<T, String>,
    model: &str,
) -> Result<T, ModelError> {
    let failed = |message: &String| ModelError::Model {
        model: model.to_owned(),
        message: message.clone(),
    };
    cell.get_or_init(load)
        .clone()
        .map_err(|message| failed(&message))
}

/// What stands before a chunk when it is embedded: its document's title, cut to a few tokens, and a line break.
pub fn title_prefix(title: &str, embedder: &dyn Embed) -> Result<String, ModelError> {
    let tokens = embedder.token_offsets(title)?;
    let end = tokens
        .get(TITLE_TOKENS)
        .map_or(title.len(), |&(start, _)| title.floor_char_boundary(start));
    Ok(format!("{}\n", title[..end].trim_end()))
}

/// Tokens that the title takes of every chunk's embedding.
pub fn title_tokens(title: Option<&str>, embedder: &dyn Embed) -> Result<usize, ModelError> {
    let prefix = with_title(title, "", embedder)?;
    Ok(embedder.token_offsets(&prefix)?.len())
}

/// The text as embedded: under its title, unless that is missing or empty.
pub fn with_title(
    title: Option<&str>,
    text: &str,
    embedder: &dyn Embed,
) -> Result<String, ModelError> {
    match title.filter(|t| !t.trim().is_empty()) {
        Some(title) => Ok(title_prefix(title, embedder)? + text),
        None => Ok(text.to_owned()),
    }
}
