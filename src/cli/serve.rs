//! `glmbench serve`: the engine behind the HTTP routes of TGI and OpenAI.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;

use glmbench_engine::Scheduling;
use glmbench_engine::load::ModelPath;
use glmbench_engine::model::Capacity;
use glmbench_serve::{Described, Key, Loading, ServeError, ServeLimits, Settings, bind, serve};

use crate::bounded;

use super::bars::Bars;
use super::engine::EngineArgs;
use super::files::make_room;
use super::signals::Watch;
use super::{Exit, emit, say};

/// Environment variable of the key.
const KEY_VARIABLE: &str = "GLMBENCH_SERVE_KEY";
/// Largest file of a key, in bytes.
const MAX_KEY_BYTES: u64 = 4096;
/// Longest sequence unless a flag says otherwise, in tokens.
const CONTEXT: usize = 8192;

/// Serve a model over HTTP, to clients of TGI and OpenAI
///
/// Prints the server's address on stdout once it listens. The log, one JSON object a line, goes to stderr or to --log.
/// SIGTERM or SIGINT end the server: after --drain-delay it takes no new requests, finishes those that run, and exits with 0. A
/// second signal ends it at once. Routes, defaults and limits are in docs/SERVING.md.
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench serve --model demo\n  glmbench serve --model chatglm2-6b --max-batch 16 --port 1025\n  \
                  glmbench serve --model chatglm2-6b --host 0.0.0.0 --key-file key.txt"
)]
pub struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Address to listen on; one that other machines reach needs a key, or --no-auth
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8000)]
    port: u16,
    /// File with the key that requests must carry as `Authorization: Bearer KEY` [default: GLMBENCH_SERVE_KEY]
    #[arg(long, value_name = "FILE", conflicts_with = "no_auth")]
    key_file: Option<PathBuf>,
    /// Serve other machines without a key
    #[arg(long)]
    no_auth: bool,
    /// The model's name in requests and replies [default: the name of its folder]
    #[arg(long, value_name = "NAME")]
    served_name: Option<String>,
    /// Accept requests for a model of any name
    #[arg(long)]
    any_model: bool,
    /// Share the KV cache of what prompts begin with alike; replies stay the same, their times depend on earlier requests
    #[arg(long)]
    prefix_cache: bool,
    /// Most prompt tokens of a step that also has a token of every running stream; 0 alternates steps of prompts and of tokens
    #[arg(long, value_name = "N", default_value_t = Scheduling::DEFAULT_CHUNK as u16)]
    prefill_chunk: u16,
    /// Put the model's prefix ([gMASK] sop) before prompts of token ids that lack it
    #[arg(long)]
    prefix_ids: bool,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_batch: u16,
    /// Longest sequence, prompt and output, in tokens [default: the model's own limit, at most 8192]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_context: Option<u32>,
    /// Sequences that may wait
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(0..=16384))]
    max_queue: u16,
    /// Prompts of one request
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    max_prompts: u16,
    /// Connections at once, each of which needs an open file [default: 1024, or what the limit of open files allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_connections: Option<u32>,
    /// Largest request body, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_body: u32,
    /// Most new tokens of a chat request that does not say how many
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    chat_tokens: u32,
    /// Longest time of a request, in seconds
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86400))]
    request_timeout: u32,
    /// Longest time that a stream's reader may be behind, in seconds
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    slow_reader: u32,
    /// Seconds for which the server works on after the first signal while /health says 503, so that a load balancer sends its
    /// clients elsewhere
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=3600))]
    drain_delay: u32,
    /// Longest wait for running requests when the server ends, in seconds
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=3600))]
    drain: u32,
    /// File to append the log to
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let key = args.key()?;
    if !args.host.is_loopback() && key.is_none() && !args.no_auth {
        bail!(
            "--host {}: other machines reach this address; expected --key-file or {KEY_VARIABLE}, or --no-auth to serve \
             without a key",
            args.host
        );
    }
    let model = args.engine.find()?;
    let compute = args.engine.compute()?;
    let tokenizer = model
        .tokenizer()?
        .context("random weights have no tokenizer and cannot be served; give a model folder")?;
    let context = args.context(model.config.seq_length)?;
    let mut capacity = Capacity::for_batch(&model.config, usize::from(args.max_batch), context);
    let chunk = Some(usize::from(args.prefill_chunk)).filter(|tokens| *tokens > 0);
    // The chunk has room beside a token of every sequence.
    capacity.max_step_tokens =
        compute.device.step_tokens().max(capacity.max_batch + chunk.unwrap_or_default());
    // Log-probabilities of prompts need the logits of many rows.
    capacity.max_logit_rows = capacity.max_logit_rows.max(64);
    let log = args.log()?;
    let connections = args.connections()?;
    // Before the weights are read: an address that is taken is known at once.
    let listener = bind(SocketAddr::new(args.host, args.port))?;
    let loading = Loading::answer(&listener).context("the server cannot run")?;
    let engine = model.load(&compute, capacity, &mut Bars::default())?;
    drop(loading);
    let settings = Settings {
        model: args.name(&model.path),
        any_model: args.any_model,
        prefix_cache: args.prefix_cache,
        prefill_chunk: chunk,
        prefix_ids: args.prefix_ids,
        key,
        drain_delay: Duration::from_secs(args.drain_delay.into()),
        drain: Duration::from_secs(args.drain.into()),
        described: Described {
            dtype: compute.precision,
            device: compute.device,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        limits: ServeLimits { connections, ..args.limits() },
    };
    let watch = Watch::new();
    let address = listener.local_addr()?;
    emit(&format!("http://{address}"))?;
    if args.no_auth && !args.host.is_loopback() {
        say(
            "glmbench: warning: every machine that reaches this address can use the model, because of --no-auth",
        );
    }
    let stop = || watch.flag().load(Ordering::SeqCst);
    match serve(engine, Arc::new(tokenizer), listener, settings, log, &stop) {
        Ok(()) => Ok(Exit::Done.into()),
        Err(ServeError::Engine(error)) => Err(error.into()),
        Err(error) => Err(error.into()),
    }
}

impl Args {
    /// Reads the key from its file or the environment.
    fn key(&self) -> anyhow::Result<Option<Key>> {
        let (key, from) = match &self.key_file {
            Some(path) => {
                let from = format!("--key-file {}", path.display());
                (bounded::text(path, MAX_KEY_BYTES).with_context(|| from.clone())?, from)
            }
            None => match std::env::var(KEY_VARIABLE) {
                Ok(key) if !self.no_auth => (key, KEY_VARIABLE.to_owned()),
                _ => return Ok(None),
            },
        };
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(
                "{from}: the key is empty or has characters that no header can carry; expected printable ASCII"
            );
        }
        Ok(Some(Key::new(key)))
    }

    fn context(&self, longest: usize) -> anyhow::Result<usize> {
        match self.max_context.map(|tokens| tokens as usize) {
            Some(tokens) if tokens > longest => {
                bail!("--max-context {tokens}: the model's seq_length is {longest}, expected at most that")
            }
            Some(tokens) => Ok(tokens),
            None => Ok(longest.min(CONTEXT)),
        }
    }

    /// Returns the most connections at once, and raises the limit of open files for them.
    fn connections(&self) -> anyhow::Result<usize> {
        let wanted =
            self.max_connections.map_or(ServeLimits::default().connections, |wanted| wanted as usize);
        let room = make_room(wanted);
        let Some(lack) = room.lack(wanted) else { return Ok(wanted) };
        if self.max_connections.is_some() || room.connections == 0 {
            bail!("--max-connections {wanted}: {lack}");
        }
        say(&format!("glmbench: warning: fewer connections than usual: {lack}"));
        Ok(room.connections)
    }

    /// Opens the log.
    fn log(&self) -> anyhow::Result<Box<dyn Write + Send>> {
        let Some(path) = &self.log else { return Ok(Box::new(io::stderr())) };
        let file = File::options().create(true).append(true).open(path);
        Ok(Box::new(file.with_context(|| format!("--log {}: cannot be written", path.display()))?))
    }

    fn name(&self, model: &ModelPath) -> String {
        let folder = match model {
            ModelPath::Folder(dir) => dir.canonicalize().unwrap_or_else(|_| dir.clone()),
            ModelPath::DummyChatglm2 | ModelPath::Dummy(_) => PathBuf::new(),
        };
        let name = || Path::file_name(&folder).map(|name| name.to_string_lossy().into_owned());
        self.served_name.clone().or_else(name).unwrap_or_else(|| "model".to_owned())
    }

    fn limits(&self) -> ServeLimits {
        ServeLimits {
            body_bytes: (self.max_body as usize) << 10,
            prompts: usize::from(self.max_prompts),
            queue: usize::from(self.max_queue),
            request: Duration::from_secs(self.request_timeout.into()),
            slow_reader: Duration::from_secs(self.slow_reader.into()),
            chat_tokens: self.chat_tokens as usize,
            ..ServeLimits::default()
        }
    }
}
