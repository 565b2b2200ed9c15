//! A run on a server: the probe, the plan for what the server can do, and the record of what is known of it.
//!
//! [`RunRequest::endpoint`](super::RunRequest::endpoint) names the server:
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::atomic::AtomicBool;
//!
//! use glmbench::run::endpoint::EndpointChoice;
//! use glmbench::run::turns::InThisProcess;
//! use glmbench::run::{RunRequest, Silent};
//! use glmbench::suite::Suite;
//! use glmbench_remote::{Api, Endpoint};
//!
//! let suite = Suite::load(Path::new("suites/serving.toml"), &[])?;
//! let mut request = RunRequest::new(suite, "reports");
//! let endpoint = Endpoint::new("http://127.0.0.1:8000".parse()?, Api::Vllm);
//! request.endpoint = Some(EndpointChoice { max_requests: Some(10_000), ..EndpointChoice::new(endpoint) });
//! let end = request.run(&mut InThisProcess(&request), &mut Silent, &AtomicBool::new(false))?;
//! println!("{:?} in {}", end.verdict, end.runs[0].display());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::{Path, PathBuf};

use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, Precision};
use glmbench_engine::EngineError;
use glmbench_engine::config::{ModelConfig, RopeScaling};
use glmbench_engine::load::{ModelPath, load_tokenizer};
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_remote::{Client, Endpoint, FailureKind, KnownPrompt, Phase, Probe, RemoteError};

use crate::backend::{Backend, MOST_UNDER_WAY, Remote, RemoteFacts};
use crate::record::RunRecord;
use crate::suite::Suite;

use super::error::RunError;
use super::found::model_path;
use super::model::ModelFacts;
use super::plan::Plan;
use super::provenance::{Origin, record};
use super::requests::{CaseWanted, total};
use super::setup::SetupChoice;
use super::shard::Shard;
use super::telemetry;

/// A server that answers a run instead of the engine.
#[derive(Debug, Clone)]
pub struct EndpointChoice {
    /// The server, and how it is reached.
    pub endpoint: Endpoint,
    /// Folder with the served model's `tokenizer.model`, and its `config.json` if there is one. `None` for the model folder in
    /// the suite.
    pub tokenizer: Option<PathBuf>,
    /// Most requests that a run sends, retries and the probe apart. Beyond it, the run stops and can be resumed.
    pub max_requests: Option<u64>,
    /// Most requests under way at once, each of which needs an open file. A run that needs more is refused.
    pub max_connections: usize,
}

impl EndpointChoice {
    /// Returns the choice of a server, with the tokenizer of the model in the suite and any number of requests.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, tokenizer: None, max_requests: None, max_connections: MOST_UNDER_WAY }
    }

    /// Returns the folder with the tokenizer.
    fn folder(&self, choice: &SetupChoice, suite: &Suite) -> Result<PathBuf, RunError> {
        let word = choice.model.as_ref().or(suite.model.path.as_ref());
        match (&self.tokenizer, word) {
            (Some(dir), _) => Ok(dir.clone()),
            (None, Some(word)) => match model_path(word)?.tokenizer_dir() {
                Some(dir) => Ok(dir.to_owned()),
                None => Err(RunError::Request(format!(
                    "{}: random weights have no tokenizer; give the served model's with --tokenizer DIR",
                    word.display()
                ))),
            },
            (None, None) => Err(RunError::Request(
                "--endpoint needs --tokenizer DIR, a folder with the served model's tokenizer.model: prompts are built and \
                 their tokens counted with it"
                    .into(),
            )),
        }
    }
}

/// What this program knows of the model behind a server: its tokenizer, and its shape if there is a `config.json`.
pub struct ServedModel {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The shape. Only its vocabulary, end ids and longest sequence are used.
    pub config: ModelConfig,
}

impl ServedModel {
    /// Reads a folder with `tokenizer.model`, and `config.json` if it is there.
    ///
    /// # Errors
    /// One of them cannot be read, or they contradict each other.
    pub fn read(dir: &Path) -> Result<Self, RunError> {
        let has_config = dir.join("config.json").is_file();
        let config = if has_config {
            let path = ModelPath::Folder(dir.to_owned());
            // The server rotates: what a rope_ratio scales is its own, and either meaning reads the rest.
            path.config(None).or_else(|error| path.config(Some(RopeScaling::Base)).map_err(|_| error))?
        } else {
            ModelConfig::chatglm2_6b()
        };
        let tokenizer = load_tokenizer(dir, has_config.then_some(&config))
            .map_err(|error| RunError::Request(format!("--tokenizer {}: {error}", dir.display())))?;
        let config = if has_config {
            config
        } else {
            // Nothing says the shape.
            ModelConfig {
                padded_vocab_size: tokenizer.vocab_size(),
                eos_token_ids: tokenizer.eos_id().into_iter().collect(),
                ..config
            }
        };
        Ok(Self { tokenizer, config })
    }
}

/// Text of the prompt that checks counts and capabilities of a server.
const KNOWN: &str = "The capital of France is";

/// Asks what a server can do.
///
/// # Errors
/// The server cannot be reached, or does not generate.
pub fn ask(client: &Client, tokenizer: Option<&Tokenizer>) -> Result<Probe, RemoteError> {
    let ids = tokenizer.map(|tokenizer| tokenizer.encode_prompt(KNOWN));
    client.probe(&KnownPrompt { text: KNOWN.into(), ids })
}

/// Names the server in an error of a request, and asks whether it runs if there was no connection.
fn located(error: RemoteError, at: &Endpoint) -> RemoteError {
    match error {
        RemoteError::Request { what, mut failure } => {
            if matches!(failure.kind, FailureKind::Connect | FailureKind::Timeout(Phase::Connect)) {
                let stop = if failure.text.is_empty() { "" } else { "; " };
                failure.text += &format!("{stop}is the server running?");
            }
            RemoteError::Request { what: format!("{}: {what}", at.url), failure }
        }
        RemoteError::Option(_) => error,
    }
}

/// Tokens of a step. A server does not tell them. Only costs depend on them, and costs are left out.
const STEP_TOKENS: usize = 512;

/// A probed server.
pub struct Server {
    client: Client,
    facts: RemoteFacts,
    probe: Probe,
    model: ServedModel,
    /// Folder of the tokenizer.
    folder: PathBuf,
    max_requests: Option<u64>,
    max_connections: usize,
}

impl Server {
    /// Probes the server. `folder` has the served model's tokenizer.
    ///
    /// # Errors
    /// The tokenizer cannot be read, or the server cannot be reached or does not stream.
    pub fn find(of: &EndpointChoice, folder: &Path) -> Result<Self, RunError> {
        let mut model = ServedModel::read(folder)?;
        let client = Client::new(of.endpoint.clone())?;
        let probe =
            ask(&client, Some(&model.tokenizer)).map_err(|error| located(error, client.endpoint()))?;
        if let Some(most) = probe.limits.max_total {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            model.config.seq_length = model.config.seq_length.min(most);
        }
        let facts = facts(&client, &probe)?;
        let (max_requests, max_connections) = (of.max_requests, of.max_connections);
        Ok(Self { client, facts, probe, model, folder: folder.to_owned(), max_requests, max_connections })
    }

    /// Returns the server.
    pub fn endpoint(&self) -> &Endpoint {
        self.client.endpoint()
    }

    /// Returns what the server showed.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Returns what a run has to know of the server.
    pub fn facts(&self) -> &RemoteFacts {
        &self.facts
    }

    /// Returns the model behind the server.
    pub fn model(&self) -> &ServedModel {
        &self.model
    }

    /// Returns a backend with connections of its own. None is kept where the server closes each: a request over one that is
    /// closed too late would have to be sent again.
    ///
    /// # Errors
    /// The files of key, certificates or tokenizer are gone.
    pub fn backend(&self) -> Result<Remote, RunError> {
        let endpoint = self.endpoint().clone();
        let keep_alive = endpoint.keep_alive && self.probe.keeps_connections;
        Ok(Remote::new(
            Client::new(Endpoint { keep_alive, ..endpoint })?,
            self.facts.clone(),
            ServedModel::read(&self.folder)?.tokenizer,
            self.model.config.eos_token_ids.clone(),
            self.max_requests,
        )?)
    }
}

/// A probed server, and the cases to run on it.
pub struct Target {
    server: Server,
    suite: Suite,
}

impl Target {
    /// Probes the server, and takes the cases of the first configuration in the suite, on one rank.
    ///
    /// # Errors
    /// Those of [`Server::find`].
    pub fn find(of: &EndpointChoice, choice: &SetupChoice, suite: &Suite) -> Result<Self, RunError> {
        let server = Server::find(of, &of.folder(choice, suite)?)?;
        Ok(Self { server, suite: on_server(suite.clone()) })
    }

    /// Returns the server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns the suite with the cases that the server gets.
    pub fn suite(&self) -> &Suite {
        &self.suite
    }

    /// Returns the plan of the cases, or of those of a shard.
    ///
    /// # Errors
    /// There is none, or one does not fit the tokenizer, the data sets or the server's longest sequence.
    pub fn plan(&self, shard: Option<Shard>) -> Result<Plan<'_>, RunError> {
        let model = &self.server.model;
        let mut plan = Plan::new(&self.suite, &model.config, Some(&model.tokenizer), STEP_TOKENS)?;
        if plan.cases() == 0 {
            let problem = "the suite has no cases that a server could run".into();
            return Err(RunError::Suite { suite: self.suite.path.clone(), problem });
        }
        if let Some(shard) = shard {
            plan.keep_shard(shard, &self.suite, &model.config, Precision::from(DType::Fp16), false)?;
        }
        Ok(plan)
    }

    /// Returns what each case costs at most.
    pub fn wanted(&self, plan: &Plan<'_>) -> Vec<CaseWanted> {
        plan.wanted(u64::from(self.server.client.most_choice_requests()))
    }

    /// Returns why the run is refused before its first request; `None` if it is not. A resumed run may need fewer requests than
    /// its plan.
    pub fn refusal(&self, plan: &Plan<'_>, resumes: bool) -> Option<RunError> {
        if let Some((id, count)) = plan.more_at_once_than(MOST_UNDER_WAY) {
            return Some(RunError::Suite {
                suite: self.suite.path.clone(),
                problem: format!(
                    "{id}: {count} requests would be under way at once; expected at most {MOST_UNDER_WAY}, because each has a \
                     thread. Give fewer requests, a lower rate or a smaller batch"
                ),
            });
        }
        let room = self.server.max_connections;
        if let Some((id, count)) = plan.more_at_once_than(room) {
            return Some(RunError::Request(format!(
                "{id}: {count} requests would be under way at once, each with a connection; the limit of open files leaves room for \
                 {room}. Raise the hard limit (`ulimit -Hn`), or give fewer requests, a lower rate or a smaller batch"
            )));
        }
        let least = total(&self.wanted(plan)).least_requests;
        if let Some(most) = self.server.max_requests.filter(|most| least > *most && !resumes) {
            return Some(RunError::Request(format!(
                "the suite may send {least} requests; --max-requests allows {most}; --limit, fewer repetitions or a larger bound \
                 would do"
            )));
        }
        let problem = plan.beyond(self.server.facts.capabilities())?;
        Some(RunError::Request(format!("{}: {problem}", self.server.endpoint().url)))
    }

    /// Returns the first `run.json`. What only the engine's own runs know is left out of it, or said to be untold.
    pub(super) fn record(
        &self,
        plan: &Plan<'_>,
        backend: &dyn Backend,
        command_line: Vec<String>,
    ) -> RunRecord {
        let ServedModel { config, tokenizer } = &self.server.model;
        let served = self.server.client.model().ok().flatten().unwrap_or_else(|| "served model".into());
        let origin = Origin {
            suite: &self.suite,
            model: served,
            facts: ModelFacts::new(config, Some(tokenizer), "with the server".into(), false),
            weights: String::new(),
            tokenizer: Some(tokenizer.sha256().to_owned()),
            rotary: RotaryMode::Model,
            device: backend.device_info(),
            telemetry: telemetry::methods(backend),
            roofline: None,
            load: None,
            weight_faults: None,
            command_line,
            group: None,
        };
        let mut first = record(&origin, plan, config);
        first.identity = first.identity.without(&[
            "weights",
            "dtype",
            "quantisation",
            "rope",
            "rotary_scaling",
            "config_words",
            "end_ids",
        ]);
        first.provenance.dtype = "served type".into();
        for untold in ["shape", "weights", "rotary_scaling", "config_words"] {
            first.provenance.model_details.remove(untold);
        }
        let whole = first.shards.as_mut().and_then(|shards| shards.whole.as_mut());
        for plan in [Some(&mut first.plan), whole].into_iter().flatten() {
            plan.targets.clear();
            for case in &mut plan.performance {
                (case.prefill_cost, case.decode_cost) = (None, None);
            }
        }
        first
    }
}

/// Returns the suite for a server: the cases of its first configuration, on one rank.
fn on_server(suite: Suite) -> Suite {
    let mut suite = match suite.configurations.first() {
        Some(first) => Suite { model: suite.model.clone(), ..suite.of(first) },
        None => suite,
    };
    suite.set_tp(1);
    suite
}

/// Returns what a run has to know of a probed server.
///
/// # Errors
/// The server does not stream, so that nothing could be timed or trusted to be complete.
fn facts(client: &Client, probe: &Probe) -> Result<RemoteFacts, RunError> {
    let can = &probe.capabilities;
    if !can.streams.works() {
        return Err(RunError::Request(format!(
            "{}: the server does not stream with an end marker and a reason ({}); nothing of it could be trusted",
            client.endpoint().url,
            can.streams.evidence
        )));
    }
    if let Some(model) = client.endpoint().model.as_ref().filter(|_| !probe.models.is_empty())
        && !probe.models.contains(model)
    {
        return Err(RunError::Request(format!(
            "--served-model {model}: the server has {}",
            probe.models.join(", ")
        )));
    }
    let words = |part: &Option<String>| part.clone().unwrap_or_else(|| "not told".into());
    let mut details = vec![
        ("url".to_owned(), client.endpoint().url.to_string()),
        ("api".to_owned(), probe.api.to_string()),
        ("route".to_owned(), client.endpoint().route.word().to_owned()),
        ("server".to_owned(), words(&probe.server)),
        ("server version".to_owned(), words(&probe.version)),
        ("served model".to_owned(), words(&client.model()?)),
    ];
    details.extend(can.all().map(|(name, capability)| {
        (format!("can {name}"), format!("{}: {}", capability.standing.word(), capability.evidence))
    }));
    details.extend(probe.notes.iter().enumerate().map(|(i, note)| (format!("note {}", i + 1), note.clone())));
    let version = probe.version.as_ref().map_or_else(String::new, |version| format!(" {version}"));
    Ok(RemoteFacts {
        server: format!("{}{version}", probe.server.as_deref().unwrap_or("server not named")),
        api: probe.api.to_string(),
        ids_in: can.ids_in.works(),
        choice_logprobs: can.chosen_logprobs.works() || can.generated_logprobs.works(),
        ignores_end: can.ignores_end.works(),
        metrics: can.metrics.works(),
        details,
    })
}

/// Returns whether an error says that the bound on requests is used up.
pub(super) fn is_spent(error: &RunError) -> bool {
    matches!(error, RunError::Engine(EngineError::Spent(_)))
}
