//! `glmbench probe`: what a server is, and what it really can do.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args as ClapArgs;
use serde::Serialize;

use glmbench_remote::{Api, Probe, Url};

use super::endpoint::{ReachArgs, ServedModel, ask, parse_api, parse_url};
use super::{Exit, emit, emit_json, say};

/// Ask a server what it is and what it can do
///
/// About a dozen short requests. Each capability is checked with a known prompt, never assumed: a server may accept a field
/// and ignore it. Without --api every protocol is tried.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench probe http://127.0.0.1:1025 --api mindie --tokenizer chatglm2-6b\n  \
    glmbench probe http://127.0.0.1:8000"
)]
pub struct Args {
    /// Base URL of the server
    #[arg(value_name = "URL", value_parser = parse_url)]
    url: Url,
    /// Protocol: mindie, tgi, openai, vllm or llama.cpp [default: tries all]
    #[arg(long, value_name = "API", value_parser = parse_api)]
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
    let mut refused = Vec::new();
    for api in apis {
        let client = args.reach.client(&args.url, api)?;
        match ask(&client, model.as_ref().map(|model| &model.tokenizer)) {
            Ok(probe) => probes.push(probe),
            Err(error) => refused.push(format!("{api}: {error:#}")),
        }
    }
    if probes.is_empty() {
        bail!("{} answers to no protocol\n{}", args.url, refused.join("\n"));
    }
    if args.json {
        emit_json(&probes.iter().map(Shown::of).collect::<Vec<_>>())?;
    } else {
        let texts: Vec<String> = probes.iter().map(text).collect();
        emit(texts.join("\n").trim_end())?;
        refused.iter().for_each(|words| say(&format!("glmbench: not spoken: {words}")));
        if probes.len() > 1 {
            say(&format!("glmbench: most works with --api {}", best(&probes).api));
        }
    }
    Ok(Exit::Done.into())
}

/// The probe with the most capabilities; the first of several.
fn best(probes: &[Probe]) -> &Probe {
    let works = |probe: &Probe| probe.capabilities.all().iter().filter(|(_, can)| can.works()).count();
    let most = probes.iter().map(works).max();
    probes.iter().find(|probe| Some(works(probe)) == most).unwrap_or(&probes[0])
}

fn text(probe: &Probe) -> String {
    let or_unknown = |part: &Option<String>| part.clone().unwrap_or_else(|| "not told".into());
    let limit = |limit: Option<u64>| limit.map_or_else(|| "not told".to_owned(), |n| n.to_string());
    let limits = probe.limits;
    let mut text = format!(
        "{}\nserver    {}, version {}\nmodels    {}\nlimits    prompt {} tokens, prompt and output {} tokens, {} requests at a time, batch {} tokens\n",
        probe.api,
        or_unknown(&probe.server),
        or_unknown(&probe.version),
        if probe.models.is_empty() { "not told".to_owned() } else { probe.models.join(", ") },
        limit(limits.max_input),
        limit(limits.max_total),
        limit(limits.max_concurrent),
        limit(limits.max_batch_tokens),
    );
    for (name, can) in probe.capabilities.all() {
        let value = can.value.map_or_else(String::new, |value| format!(" ({value})"));
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
