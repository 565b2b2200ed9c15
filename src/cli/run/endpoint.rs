//! `glmbench run --endpoint`, and what `check` and `--dry-run` say of it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args as ClapArgs, Command, Id};

use glmbench_remote::{Api, Url};

use crate::backend::MOST_UNDER_WAY;
use crate::cli::endpoint::{ReachArgs, parse_api, parse_url};
use crate::cli::engine::{ComputeFlags, OverModel};
use crate::cli::files::make_room;
use crate::cli::{Exit, emit, exit_of, say};
use crate::record::grouped;
use crate::run::RunRequest;
use crate::run::endpoint::{EndpointChoice, Target};
use crate::run::requests::{CaseWanted, Wanted, total};
use crate::text::one_line;

/// A server that runs the suite instead of the engine.
#[derive(Debug, Clone, ClapArgs)]
pub(in crate::cli) struct EndpointArgs {
    /// Run the suite on the server at this URL; `glmbench probe URL` shows what it can do
    #[arg(
        long, value_name = "URL", value_parser = parse_url, requires = "api", help_heading = "Endpoint",
        conflicts_with_all = of_the_engine()
    )]
    endpoint: Option<Url>,
    /// Protocol of the server
    #[arg(
        long, value_name = "API", value_parser = parse_api, requires = "endpoint", help_heading = "Endpoint",
        help = format!("Protocol of the server: {}", Api::words())
    )]
    api: Option<Api>,
    /// Folder with the served model's tokenizer.model, and its config.json if there is one [default: --model]
    #[arg(long, value_name = "DIR", requires = "endpoint", help_heading = "Endpoint")]
    tokenizer: Option<PathBuf>,
    /// Stop, to be resumed, before more than this many requests are sent; the probe's dozen and retries are not counted
    #[arg(
        long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "endpoint", help_heading = "Endpoint"
    )]
    max_requests: Option<u64>,
    /// How to reach the server
    #[command(flatten)]
    reach: ReachArgs,
}

impl EndpointArgs {
    /// Whether a server is named.
    pub(in crate::cli) fn is_given(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Returns the server that the flags name, and raises the limit of open files for its connections. Nothing is sent.
    pub(in crate::cli) fn choice(&self) -> anyhow::Result<Option<EndpointChoice>> {
        let Some(url) = &self.endpoint else { return Ok(None) };
        let Some(api) = self.api else { bail!("--endpoint needs --api") };
        Ok(Some(EndpointChoice {
            tokenizer: self.tokenizer.clone(),
            max_requests: self.max_requests,
            max_connections: make_room(MOST_UNDER_WAY).connections,
            ..EndpointChoice::new(self.reach.endpoint(url, api)?)
        }))
    }
}

/// Returns the flags that say something of this program's own engine. A server has settings of its own.
fn of_the_engine() -> Vec<Id> {
    let flags = ComputeFlags::augment_args(OverModel::augment_args(Command::new("engine")));
    let ids = flags.get_arguments().map(|flag| flag.get_id().clone());
    ids.chain(["configuration", "only", "profile_operators"].map(Id::from)).collect()
}

/// Prints what the run would ask of the server. Returns the exit code of a run that would be refused.
pub(in crate::cli) fn dry_run(of: &EndpointChoice, request: &RunRequest) -> anyhow::Result<ExitCode> {
    let target = Target::find(of, &request.choice, &request.suite)?;
    let plan = target.plan(request.shard)?;
    if let Some(words) = plan.share_words() {
        say(&words);
    }
    emit(describe(&target, &target.wanted(&plan)).trim_end())?;
    match target.refusal(&plan, request.resume.is_some()) {
        Some(problem) => {
            say(&format!("glmbench: the run would be refused: {problem}"));
            Ok(exit_of(&problem.into()).into())
        }
        None => Ok(Exit::Done.into()),
    }
}

/// Describes the server and the costs.
fn describe(target: &Target, cases: &[CaseWanted]) -> String {
    let (server, suite) = (target.server(), target.suite());
    let (facts, probe) = (server.facts(), server.probe());
    let mut text = format!("suite     {}: {}\n", suite.name, one_line(&suite.about));
    text += &format!(
        "server    {} at {}, protocol {}\n",
        one_line(&facts.server),
        server.endpoint().url,
        facts.api
    );
    for (name, can) in probe.capabilities.all() {
        text += &format!("          {name:<20} {:<8} {}\n", can.standing.word(), one_line(&can.evidence));
    }
    probe.notes.iter().for_each(|note| text += &format!("note      {}\n", one_line(note)));
    text.push('\n');
    for CaseWanted { case, wanted } in cases {
        text += &format!("case      {}: {}\n", one_line(case), cost(wanted));
    }
    text += &format!("total     {}\n", cost(&total(cases)));
    text
}

/// `64 to 96 requests, up to 8,000 prompt tokens and 640 generated tokens`.
fn cost(wanted: &Wanted) -> String {
    let requests = match (grouped(wanted.least_requests), grouped(wanted.requests)) {
        (least, most) if least == most => most,
        (least, most) => format!("{least} to {most}"),
    };
    format!(
        "{requests} requests, up to {} prompt tokens and {} generated tokens",
        grouped(wanted.prompt_tokens),
        grouped(wanted.output_tokens)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_a_number_or_a_range() {
        let wanted = |least_requests, requests| {
            cost(&Wanted { least_requests, requests, prompt_tokens: 1_234_567, output_tokens: 100 })
        };
        assert_eq!(wanted(64, 64), "64 requests, up to 1,234,567 prompt tokens and 100 generated tokens");
        assert!(wanted(1_234, 2_468).starts_with("1,234 to 2,468 requests"));
    }
}
