//! The flags of verbs that take a suite.

use std::ffi::OsString;

use clap::Args as ClapArgs;

use glmbench_engine::{PromptLookup, Savings};

use crate::cli::engine::{ComputeFlags, OverModel};
use crate::compute::ComputeSpec;
use crate::run::setup::{Answering, SetupChoice};
use crate::suite::{Configuration, SuiteError};

/// Which model runs a suite's cases, and what computes.
#[derive(Debug, Clone, ClapArgs)]
pub(in crate::cli) struct SetupArgs {
    /// Model folder, `demo`, `dummy:chatglm2-6b` or `dummy:PATH/config.json` [default: the suite's model]
    #[arg(long, value_name = "DIR|demo|dummy:…")]
    pub(in crate::cli) model: Option<OsString>,
    /// What changes the model
    #[command(flatten)]
    over: OverModel,
    /// How to compute
    #[command(flatten)]
    compute: ComputeFlags,
    /// Run on this instead of the suite's configurations: `device=cpu,dtype=bf16,threads=1`; several make several runs
    #[arg(long, value_name = "KEY=VALUE,…", conflicts_with_all = ["device", "only"])]
    configuration: Vec<String>,
    /// Of the suite's configurations, run these alone
    #[arg(long, value_name = "NAME", conflicts_with = "device")]
    only: Vec<String>,
    /// Time every operator of the forward pass: operators.csv, and a table in the report
    #[arg(long)]
    profile_operators: bool,
    /// Compute every prompt of accuracy cases from its first token, even if an earlier one begins alike. The results are the
    /// same
    #[arg(long)]
    no_prefix_cache: bool,
    /// Generate one token at a time in accuracy cases, without guesses from the text so far. The results are the same
    #[arg(long)]
    no_prompt_lookup: bool,
}

impl SetupArgs {
    /// Returns the choice that the flags make.
    pub(in crate::cli) fn choice(&self) -> Result<SetupChoice, SuiteError> {
        let typed = self.configuration.iter().map(|words| Configuration::from_words(words));
        Ok(SetupChoice {
            model: self.model.clone(),
            ptuning: self.over.ptuning.clone(),
            rope_scaling: self.over.rope_scaling,
            compute: ComputeSpec {
                profile_operators: self.profile_operators.then_some(true),
                ..self.compute.spec()
            },
            configurations: typed.collect::<Result<_, _>>()?,
            only: self.only.clone(),
            savings: Savings {
                shared_prefixes: !self.no_prefix_cache,
                prompt_lookup: if self.no_prompt_lookup {
                    PromptLookup::Never
                } else {
                    PromptLookup::WhereItGains
                },
            },
            answering: Answering::Engine,
            verify_weights: false,
        })
    }
}
