//! The flags that name a server, and finding out what it can do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{ModelPath, load_tokenizer};
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_remote::{
    Api, Client, Endpoint, Key, KnownPrompt, Probe, RemoteError, Route, Timeouts, Tls, Url,
};

use crate::backend::RemoteFacts;

/// The environment variable that holds a key, if no file does.
const KEY_VARIABLE: &str = "GLMBENCH_ENDPOINT_KEY";

/// How a server is reached.
#[derive(Debug, Clone, Args)]
pub struct ReachArgs {
    /// Base URL of /info and /health if it is another (MindIE: port 1026)
    #[arg(long, value_name = "URL", value_parser = url, help_heading = "Endpoint")]
    management_url: Option<Url>,
    /// Base URL of /metrics if it is another (MindIE: port 1027)
    #[arg(long, value_name = "URL", value_parser = url, help_heading = "Endpoint")]
    metrics_url: Option<Url>,
    /// Generation route of MindIE: default (/v1/completions), infer, or generate
    #[arg(long, value_name = "ROUTE", value_parser = route, default_value = "default", help_heading = "Endpoint")]
    route: Route,
    /// Model id to ask for; the server's only model unless given
    #[arg(long, value_name = "ID", help_heading = "Endpoint")]
    served_model: Option<String>,
    /// File with the bearer key; GLMBENCH_ENDPOINT_KEY unless given
    #[arg(long, value_name = "FILE", help_heading = "Endpoint")]
    key_file: Option<PathBuf>,
    /// PEM file of the authorities to trust; the system's unless given
    #[arg(long, value_name = "FILE", help_heading = "Endpoint")]
    cacert: Option<PathBuf>,
    /// PEM file of this client's certificate (mutual TLS)
    #[arg(long, value_name = "FILE", requires = "cert_key", help_heading = "Endpoint")]
    cert: Option<PathBuf>,
    /// PEM file of this client's private key
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Endpoint")]
    cert_key: Option<PathBuf>,
    /// Seconds to wait for a connection, the first event, the next event, and the whole answer
    #[arg(long, value_name = "S,S,S,S", value_parser = timeouts, default_value = "10,600,120,1800", help_heading = "Endpoint")]
    timeouts: Timeouts,
    /// Open a connection for every request
    #[arg(long, help_heading = "Endpoint")]
    no_keep_alive: bool,
}

fn url(text: &str) -> Result<Url, RemoteError> {
    text.parse()
}

fn route(text: &str) -> Result<Route, RemoteError> {
    text.parse()
}

/// Parses a URL of the command line.
pub(super) fn parse_url(text: &str) -> Result<Url, RemoteError> {
    text.parse()
}

/// Parses a protocol of the command line.
pub(super) fn parse_api(text: &str) -> Result<Api, RemoteError> {
    text.parse()
}

fn timeouts(text: &str) -> Result<Timeouts, String> {
    let wrong =
        || format!("found `{text}`; expected four numbers of seconds above 0, such as 10,600,120,1800");
    let seconds = |word: &str| {
        let value: f64 = word.trim().parse().map_err(|_| wrong())?;
        if value > 0.0 && value <= 1e6 { Ok(Duration::from_secs_f64(value)) } else { Err(wrong()) }
    };
    let times = text.split(',').map(seconds).collect::<Result<Vec<_>, String>>()?;
    match times[..] {
        [connect, first_byte, between_events, whole] => {
            Ok(Timeouts { connect, first_byte, between_events, whole })
        }
        _ => Err(wrong()),
    }
}

impl ReachArgs {
    /// Prepares a client. Nothing is sent.
    pub fn client(&self, url: &Url, api: Api) -> anyhow::Result<Client> {
        let key = match &self.key_file {
            Some(file) => Some(Key::from_file(file)?),
            None if std::env::var_os(KEY_VARIABLE).is_some_and(|key| !key.is_empty()) => {
                Some(Key::from_env(KEY_VARIABLE)?)
            }
            None => None,
        };
        Ok(Client::new(Endpoint {
            management: self.management_url.clone(),
            metrics: self.metrics_url.clone(),
            route: self.route,
            model: self.served_model.clone(),
            key,
            tls: Tls { ca: self.cacert.clone(), certificate: self.cert.clone(), key: self.cert_key.clone() },
            timeouts: self.timeouts,
            keep_alive: !self.no_keep_alive,
            ..Endpoint::new(url.clone(), api)
        })?)
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
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let has_config = dir.join("config.json").is_file();
        let config =
            if has_config { ModelPath::Folder(dir.to_owned()).config(None)? } else { unknown_shape() };
        let tokenizer = load_tokenizer(dir, has_config.then_some(&config))
            .with_context(|| format!("--tokenizer {}", dir.display()))?;
        let config = if has_config {
            config
        } else {
            ModelConfig {
                padded_vocab_size: tokenizer.vocab_size(),
                eos_token_ids: tokenizer.eos_id().into_iter().collect(),
                ..config
            }
        };
        Ok(Self { tokenizer, config })
    }
}

/// The shape where nothing says it.
fn unknown_shape() -> ModelConfig {
    ModelConfig::chatglm2_6b()
}

/// Text of the prompt that checks a server's counts and capabilities.
const KNOWN: &str = "The capital of France is";

/// Asks what a server can do.
pub fn ask(client: &Client, tokenizer: Option<&Tokenizer>) -> anyhow::Result<Probe> {
    let ids = tokenizer.map(|tokenizer| tokenizer.encode_prompt(KNOWN));
    Ok(client.probe(&KnownPrompt { text: KNOWN.into(), ids })?)
}

/// Returns what a run has to know of a probed server.
///
/// # Errors
/// The server does not stream, so that nothing could be timed or trusted to be complete.
pub fn facts(client: &Client, probe: &Probe) -> anyhow::Result<RemoteFacts> {
    let can = &probe.capabilities;
    if !can.streams.works() {
        bail!(
            "{}: the server does not stream with an end marker and a reason ({}); nothing of it could be trusted",
            client.endpoint().url,
            can.streams.evidence
        );
    }
    if let Some(model) = client.endpoint().model.as_ref().filter(|_| !probe.models.is_empty())
        && !probe.models.contains(model)
    {
        bail!("--served-model {model}: the server has {}", probe.models.join(", "));
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
