//! `glmbench run --endpoint`: a suite on a server.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args as ClapArgs;

use glmbench_device::rotary::RotaryMode;
use glmbench_engine::EngineError;
use glmbench_remote::{Api, Client, Probe, Url};

use crate::backend::{Backend, Remote, RemoteFacts};
use crate::cli::endpoint::{ReachArgs, ServedModel, ask, facts, parse_api, parse_url};
use crate::cli::{Exit, command_line, emit, report, say, signals};
use crate::record::RunRecord;
use crate::run::found::model_path;
use crate::run::model::ModelFacts;
use crate::run::plan::Plan;
use crate::run::provenance::{Origin, record};
use crate::run::requests::{Wanted, total};
use crate::run::{GivenRun, Observer, RunError, RunRequest, telemetry};
use crate::suite::Suite;
use crate::text::one_line;

use super::{Args, Terminal};

/// A server that runs the suite instead of the engine.
#[derive(Debug, Clone, ClapArgs)]
pub(super) struct EndpointArgs {
    /// Run the suite on the server at this URL; `glmbench probe URL` shows what it can do
    #[arg(
        long, value_name = "URL", value_parser = parse_url, requires = "api", help_heading = "Endpoint",
        conflicts_with_all = [
            "device", "configuration", "only", "ptuning", "rope_scaling", "emulate", "profile", "tp", "dtype", "kv", "rope",
            "threads", "kernel", "bind", "profile_operators", "interleave", "blocks", "over_budget",
        ]
    )]
    endpoint: Option<Url>,
    /// Protocol of the server: mindie, tgi, openai, vllm or llama.cpp
    #[arg(long, value_name = "API", value_parser = parse_api, requires = "endpoint", help_heading = "Endpoint")]
    api: Option<Api>,
    /// Folder with the served model's tokenizer.model, and its config.json if there is one; --model unless given
    #[arg(long, value_name = "DIR", requires = "endpoint", help_heading = "Endpoint")]
    tokenizer: Option<PathBuf>,
    /// Send no more than this many requests, the probe's dozen apart
    #[arg(
        long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "endpoint", help_heading = "Endpoint"
    )]
    max_requests: Option<u64>,
    /// How to reach the server
    #[command(flatten)]
    reach: ReachArgs,
}

impl EndpointArgs {
    /// Whether the suite runs on a server.
    pub(super) fn is_given(&self) -> bool {
        self.endpoint.is_some()
    }

    /// Returns the folder with the tokenizer.
    fn tokenizer(&self, args: &Args, suite: &Suite) -> anyhow::Result<PathBuf> {
        let word = args.setup.model.as_ref().or(suite.model.path.as_ref());
        match (&self.tokenizer, word) {
            (Some(dir), _) => Ok(dir.clone()),
            (None, Some(word)) => match model_path(word)?.tokenizer_dir() {
                Some(dir) => Ok(dir.to_owned()),
                None => bail!(
                    "{}: random weights have no tokenizer; give the served model's with --tokenizer DIR",
                    word.display()
                ),
            },
            (None, None) => bail!(
                "--endpoint needs --tokenizer DIR, a folder with the served model's tokenizer.model: prompts are built and \
                 their tokens counted with it"
            ),
        }
    }
}

/// Tokens of a step, of which a server tells nothing. Only costs depend on it, and they are left out.
const STEP_TOKENS: usize = 512;

/// A server, probed, and the suite to run on it.
struct Target {
    client: Client,
    facts: RemoteFacts,
    probe: Probe,
    model: ServedModel,
    /// Folder of the tokenizer.
    folder: PathBuf,
    suite: Suite,
}

impl Target {
    fn find(args: &Args, suite: &Suite) -> anyhow::Result<Self> {
        let of = &args.endpoint;
        let (Some(url), Some(api)) = (&of.endpoint, of.api) else { bail!("--endpoint needs --api") };
        let folder = of.tokenizer(args, suite)?;
        let mut model = ServedModel::read(&folder)?;
        let client = of.reach.client(url, api)?;
        let probe = ask(&client, Some(&model.tokenizer))?;
        if let Some(most) = probe.limits.max_total {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            model.config.seq_length = model.config.seq_length.min(most);
        }
        let facts = facts(&client, &probe)?;
        Ok(Self { client, facts, probe, model, folder, suite: on_server(suite.clone()) })
    }

    /// Returns a backend with connections of its own.
    fn backend(&self, args: &Args) -> anyhow::Result<Remote> {
        let endpoint = self.client.endpoint();
        let client = args.endpoint.reach.client(&endpoint.url, endpoint.api)?;
        Ok(Remote::new(
            client,
            self.facts.clone(),
            ServedModel::read(&self.folder)?.tokenizer,
            self.model.config.eos_token_ids.clone(),
            args.endpoint.max_requests,
        )?)
    }

    fn plan(&self) -> Result<Plan<'_>, RunError> {
        let plan = Plan::new(&self.suite, &self.model.config, Some(&self.model.tokenizer), STEP_TOKENS)?;
        if plan.cases() == 0 {
            let problem = "the suite has no cases that a server could run".into();
            return Err(RunError::Suite { suite: self.suite.path.clone(), problem });
        }
        Ok(plan)
    }

    /// Returns the first `run.json`. What only the engine's own runs know is left out of it, or said to be untold.
    fn record(&self, plan: &Plan<'_>, backend: &dyn Backend) -> RunRecord {
        let (config, tokenizer) = (&self.model.config, &self.model.tokenizer);
        let served = self.client.model().ok().flatten().unwrap_or_else(|| "served model".into());
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
            command_line: command_line(),
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
        first.plan.targets.clear();
        for case in &mut first.plan.performance {
            (case.prefill_cost, case.decode_cost) = (None, None);
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

/// Runs the suite on the server.
pub(super) fn run(args: &Args, request: &RunRequest) -> anyhow::Result<ExitCode> {
    let target = Target::find(args, &request.suite)?;
    let plan = target.plan()?;
    let wanted_requests = plan.wanted();
    let sum = total(&wanted_requests);
    let refused = too_many(args, sum).or_else(|| beyond(&target, &plan));
    if args.dry_run {
        emit(describe(&target, &wanted_requests, sum).trim_end())?;
        if let Some(problem) = refused {
            say(&format!("glmbench: the run would be refused: {problem}"));
            return Ok(Exit::Usage.into());
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(problem) = refused {
        bail!(problem);
    }
    measure(args, request, &target, &plan)
}

/// Runs what the run directory does not contain yet, and reports.
fn measure(args: &Args, request: &RunRequest, target: &Target, plan: &Plan<'_>) -> anyhow::Result<ExitCode> {
    let backend = target.backend(args)?;
    let record = target.record(plan, &backend);
    // The files were read once; reading them again fails only if they are gone.
    let gone = |error: anyhow::Error| RunError::from(EngineError::Option(format!("{error:#}")));
    let mut reload =
        |_, _: &mut dyn Observer| Ok(Box::new(target.backend(args).map_err(gone)?) as Box<dyn Backend>);
    let given = GivenRun { plan, record, backend: Box::new(backend), reload: &mut reload };
    let end = request.run_given(given, &mut Terminal::default(), signals::flag())?;
    Ok(report::exit_code(end.verdict).into())
}

/// Returns why the run would send too many requests.
fn too_many(args: &Args, sum: Wanted) -> Option<String> {
    let most = args.endpoint.max_requests.filter(|most| sum.requests > *most)?;
    Some(format!(
        "the suite may send {} requests; --max-requests allows {most}; --limit, fewer repetitions or a larger bound would do",
        sum.requests
    ))
}

/// Returns what the suite needs beyond the server.
fn beyond(target: &Target, plan: &Plan<'_>) -> Option<String> {
    let problem = plan.beyond(target.facts.capabilities())?;
    Some(format!("{}: {problem}", target.client.endpoint().url))
}

/// The output of `--dry-run`.
fn describe(target: &Target, parts: &[(String, Wanted)], sum: Wanted) -> String {
    let cost = |wanted: &Wanted| {
        format!(
            "at most {} requests, {} prompt tokens, {} generated tokens",
            wanted.requests, wanted.prompt_tokens, wanted.output_tokens
        )
    };
    let mut text = format!("suite     {}: {}\n", target.suite.name, one_line(&target.suite.about));
    text += &format!(
        "server    {} at {}, protocol {}\n",
        one_line(&target.facts.server),
        target.client.endpoint().url,
        target.facts.api
    );
    for (name, can) in target.probe.capabilities.all() {
        text += &format!("          {name:<20} {:<8} {}\n", can.standing.word(), one_line(&can.evidence));
    }
    target.probe.notes.iter().for_each(|note| text += &format!("note      {}\n", one_line(note)));
    for (name, wanted) in parts {
        text += &format!("case      {}: {}\n", one_line(name), cost(wanted));
    }
    text += &format!("total     {}\n", cost(&sum));
    text
}
