//! `glmbench verify --endpoint`: puts a sample of the items of a server to a server again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use serde_json::json;

use glmbench_device::DType;
use glmbench_remote::{Api, Url};

use crate::cli::data::dataset_folder;
use crate::cli::endpoint::{ReachArgs, parse_api, parse_url};
use crate::cli::progress;
use crate::cli::{emit, emit_json};
use crate::record::{Contents, RunRecord};
use crate::run::endpoint::{EndpointChoice, Server};
use crate::run::verify::{Bound, Picked, Verified, items, task_run};

use super::{Args, same_hash};

/// A server to put the items of a server's run to.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct ServerArgs {
    /// Put the items to the server at this URL, for a run that a server answered
    #[arg(
        long, value_name = "URL", value_parser = parse_url, requires = "api", help_heading = "Endpoint",
        conflicts_with_all = ["device", "ptuning", "rope_scaling", "emulate", "profile", "tp", "threads", "kernel"]
    )]
    endpoint: Option<Url>,
    /// Protocol of the server: mindie, tgi, openai, vllm or llama.cpp
    #[arg(long, value_name = "API", value_parser = parse_api, requires = "endpoint", help_heading = "Endpoint")]
    api: Option<Api>,
    /// Folder with the served model's tokenizer.model [default: --model]
    #[arg(long, value_name = "DIR", requires = "endpoint", help_heading = "Endpoint")]
    tokenizer: Option<PathBuf>,
    /// How to reach the server
    #[command(flatten)]
    reach: ReachArgs,
}

/// Checks that the flags fit the run: a server's items go to a server, the engine's to the engine.
pub(super) fn check(args: &Args, run: &RunRecord) -> anyhow::Result<()> {
    let details = &run.provenance.device_details;
    let recorded = details.get("served model").and(details.get("url"));
    match (recorded, &args.server.endpoint) {
        (Some(url), None) => bail!(
            "run {} was answered by the server at {url}; put its items to a server with --endpoint URL --api {} --tokenizer DIR",
            run.run_id,
            details.get("api").map_or("API", String::as_str)
        ),
        (None, Some(_)) => bail!(
            "run {} was computed by this program's engine; leave out --endpoint, or run the suite on the server and compare",
            run.run_id
        ),
        _ => Ok(()),
    }
}

/// Whether the flags name a server.
pub(super) fn is_given(args: &Args) -> bool {
    args.server.endpoint.is_some()
}

/// Puts the items to the server and prints the result. Returns whether all answers are as recorded.
pub(super) fn run(
    args: &Args,
    contents: &Contents,
    picked: &Picked,
    seed: u64,
    faults: Option<&str>,
) -> anyhow::Result<bool> {
    let of = &args.server;
    let (Some(url), Some(api)) = (&of.endpoint, of.api) else { bail!("--endpoint needs --api") };
    let Some(folder) = of.tokenizer.clone().or_else(|| args.model.as_ref().map(PathBuf::from)) else {
        bail!("--endpoint needs --tokenizer DIR, a folder with the served model's tokenizer.model")
    };
    let server = Server::find(&EndpointChoice::new(of.reach.endpoint(url, api)?), &folder)?;
    let model = server.model();
    same_hash(&contents.run, "tokenizer", model.tokenizer.sha256(), &folder.display().to_string())?;
    let bound = Bound::across(DType::Fp16);
    let bar = progress::bar("verifying", "items");
    bar.set_length(picked.item_count() as u64);
    let mut backend = server.backend()?;
    let mut found = Verified::default();
    for case in &contents.run.plan.accuracy {
        let Some(samples) = picked.items.get(&case.task) else { continue };
        let folder = dataset_folder(&args.set, None, case)
            .with_context(|| format!("task {} was of {}; --set names its folder", case.task, case.dataset))?;
        let seq_length = model.config.seq_length;
        let task = task_run(contents, case, samples, &folder, &model.tokenizer, seq_length)?;
        if !task.evaluation.choices().is_empty() && !server.facts().choice_logprobs {
            bail!("task {}: {url} returns no log-probabilities of choices", case.task);
        }
        let verified = items(&task, samples, &BTreeMap::new(), &mut backend, bound, &mut || bar.inc(1))?;
        found.differences.extend(verified.differences);
        found.largest = found.largest.max(verified.largest);
    }
    bar.finish_and_clear();
    let shown = Shown { contents, picked, server: &server, found: &found, bound, seed };
    if args.json {
        emit_json(&shown.data(faults))?;
    } else {
        emit(&shown.words())?;
    }
    Ok(found.differences.is_empty())
}

/// A result to print.
struct Shown<'a> {
    contents: &'a Contents,
    picked: &'a Picked,
    server: &'a Server,
    found: &'a Verified,
    bound: Bound,
    seed: u64,
}

impl Shown<'_> {
    fn words(&self) -> String {
        let (run, facts, items) = (&self.contents.run, self.server.facts(), self.picked.item_count());
        let mut lines = vec![
            format!("Run {}: tokenizer and data as recorded; a server does not tell its weights", run.run_id),
            format!(
                "put again: {items} of {} items (--seed {}) to {} at {}",
                self.contents.samples.len(),
                self.seed,
                facts.server,
                self.server.endpoint().url
            ),
        ];
        let recorded = &run.provenance.device_details;
        for (name, value) in facts.details.iter().filter(|(name, _)| name.starts_with("serve")) {
            match recorded.get(name) {
                Some(then) if then != value => {
                    lines.push(format!("another {name}: recorded {then}, found {value}"));
                }
                _ => {}
            }
        }
        if let Bound::Within(most) = self.bound {
            lines.push(format!(
                "held: tokens and text as recorded, log-probabilities within {most} nat; largest difference {:.2e} nat",
                self.found.largest
            ));
        }
        let timed = run.plan.performance.len() + run.plan.loads.len();
        if timed > 0 {
            lines
                .push(format!("not put again: {timed} timed cases: a server's times are those of that hour"));
        }
        let differences = &self.found.differences;
        lines.extend(
            differences.iter().map(|difference| format!("DIFFERS: {}: {}", difference.of, difference.what)),
        );
        lines.push(match differences.len() {
            0 => "everything that was put again is as recorded".to_owned(),
            n => format!("{n} of {items} differ from the record"),
        });
        lines.join("\n")
    }

    fn data(&self, faults: Option<&str>) -> serde_json::Value {
        let bound = match self.bound {
            Bound::Exact => None,
            Bound::Within(most) => Some(most),
        };
        json!({
            "schema": 1,
            "run": self.contents.run.run_id,
            "seed": self.seed,
            "items": self.picked.item_count(),
            "timed_cases": 0,
            "bound_nat": { self.server.facts().server.clone(): bound },
            "largest_difference_nat": self.found.largest,
            "other_tokens_within_bound": 0,
            "not_put_again": [],
            "differences": self.found.differences,
            "record_faults": faults,
        })
    }
}
