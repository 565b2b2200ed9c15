//! `glmbench probe`: what a server is, and what it really can do.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde::Serialize;

use glmbench_remote::{Api, Client, Limits, Probe, RemoteError, Url};

use crate::run::endpoint::{ServedModel, ask};

use super::endpoint::{ReachArgs, parse_api, parse_url};
use super::{Exit, complain, emit, emit_json, say};

/// Ask a server what it is and what it can do
///
/// About a dozen short requests. Each capability is checked with a known prompt, never assumed: a server may accept a field
/// and ignore it. Without --api every protocol is tried.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Exit codes: 0 a protocol is spoken, 2 none is, 5 no connection\n\nExamples:\n  \
    glmbench probe http://127.0.0.1:1025 --api mindie --tokenizer chatglm2-6b\n  \
    glmbench probe http://127.0.0.1:8000")]
pub struct Args {
    /// Base URL of the server
    #[arg(value_name = "URL", value_parser = parse_url)]
    url: Url,
    /// Protocol
    #[arg(long, value_name = "API", value_parser = parse_api, help = format!("Protocol: {} [default: tries all]", Api::words()))]
    api: Option<Api>,
    /// Folder with the served model's tokenizer.model: checks the server's counts and token ids
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How to reach it
    #[command(flatten)]
    reach: ReachArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let model = args.tokenizer.as_deref().map(ServedModel::read).transpose()?;
    let apis = args.api.map_or_else(|| Api::ALL.to_vec(), |api| vec![api]);
    let mut probes = Vec::new();
    let (mut refused, mut is_reached) = (Vec::new(), false);
    for api in apis {
        let client = Client::new(args.reach.endpoint(&args.url, api)?)?;
        match ask(&client, model.as_ref().map(|model| &model.tokenizer)) {
            Ok(probe) => probes.push(probe),
            Err(error) => {
                is_reached |= !is_unreachable(&error);
                refused.push(format!("{api}: {error}"));
            }
        }
    }
    if probes.is_empty() {
        complain(&format!("{} answers to no protocol\n{}", args.url, refused.join("\n")));
        return Ok(if is_reached { Exit::Usage } else { Exit::Device }.into());
    }
    // What works best comes first; of equals, the order of the protocols stays.
    probes.sort_by_key(|probe| std::cmp::Reverse(working(probe)));
    if args.json {
        emit_json(&probes.iter().map(Shown::of).collect::<Vec<_>>())?;
    } else {
        let texts: Vec<String> = probes.iter().map(text).collect();
        emit(texts.join("\n").trim_end())?;
        refused.iter().for_each(|words| say(&format!("glmbench: not spoken: {words}")));
        if probes.len() > 1 {
            say(&format!("glmbench: most works with --api {}", probes[0].api));
        }
    }
    Ok(Exit::Done.into())
}

/// Whether an error says that no connection was made.
fn is_unreachable(error: &RemoteError) -> bool {
    use glmbench_remote::{FailureKind, Phase};
    let RemoteError::Request { failure, .. } = error else { return false };
    matches!(failure.kind, FailureKind::Connect | FailureKind::Timeout(Phase::Connect))
}

/// How many capabilities work.
fn working(probe: &Probe) -> usize {
    probe.capabilities.all().iter().filter(|(_, can)| can.works()).count()
}

/// What a capability's value counts, in words. Empty if the evidence has it, as that of the depth of candidates.
fn value_words(name: &str, value: f64) -> String {
    match name {
        "events_per_token" => format!(" ({value:.2} events a token)"),
        "usage" if value != 0.0 => format!(" ({value:+} against the tokenizer)"),
        _ => String::new(),
    }
}

/// `prompt 2048 tokens, 4 requests at a time`: the limits that the server tells.
fn limit_words(limits: &Limits) -> String {
    let told = [
        ("prompt ", limits.max_input, " tokens"),
        ("prompt and output ", limits.max_total, " tokens"),
        ("", limits.max_concurrent, " requests at a time"),
        ("batch ", limits.max_batch_tokens, " tokens"),
    ];
    let told = told.into_iter().filter_map(|(what, limit, unit)| Some(format!("{what}{}{unit}", limit?)));
    let told: Vec<String> = told.collect();
    if told.is_empty() { "not told".to_owned() } else { told.join(", ") }
}

fn text(probe: &Probe) -> String {
    let or_unknown = |part: &Option<String>| part.clone().unwrap_or_else(|| "not told".into());
    let mut text = format!(
        "{}\nserver    {}, version {}\nmodels    {}\nlimits    {}\n",
        probe.api,
        or_unknown(&probe.server),
        or_unknown(&probe.version),
        if probe.models.is_empty() { "not told".to_owned() } else { probe.models.join(", ") },
        limit_words(&probe.limits),
    );
    for (name, can) in probe.capabilities.all() {
        let value = can.value.map_or_else(String::new, |value| value_words(name, value));
        text += &format!("{:<20} {:<8} {}{value}\n", name, can.standing.word(), can.evidence);
    }
    probe.notes.iter().for_each(|note| text += &format!("note      {note}\n"));
    text
}

/// A probe as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    api: &'a str,
    server: Option<&'a str>,
    version: Option<&'a str>,
    models: &'a [String],
    max_input_tokens: Option<u64>,
    max_total_tokens: Option<u64>,
    max_concurrent_requests: Option<u64>,
    max_batch_tokens: Option<u64>,
    capabilities: Vec<ShownCapability<'a>>,
    notes: &'a [String],
}

/// A capability as JSON.
#[derive(Serialize)]
struct ShownCapability<'a> {
    name: &'a str,
    standing: &'a str,
    value: Option<f64>,
    evidence: &'a str,
}

impl<'a> Shown<'a> {
    fn of(probe: &'a Probe) -> Self {
        let capability = |(name, can): (&'static str, &'a glmbench_remote::Capability)| ShownCapability {
            name,
            standing: can.standing.word(),
            value: can.value,
            evidence: &can.evidence,
        };
        Self {
            api: probe.api.word(),
            server: probe.server.as_deref(),
            version: probe.version.as_deref(),
            models: &probe.models,
            max_input_tokens: probe.limits.max_input,
            max_total_tokens: probe.limits.max_total,
            max_concurrent_requests: probe.limits.max_concurrent,
            max_batch_tokens: probe.limits.max_batch_tokens,
            capabilities: probe.capabilities.all().into_iter().map(capability).collect(),
            notes: &probe.notes,
        }
    }
}
