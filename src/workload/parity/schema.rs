//! Converts `[[parity]]` to its type.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Value, json};

use glmbench_device::{DType, DeviceKind, Precision};

use crate::compute::Against;
use crate::suite::cases::Schema;
use crate::suite::prompts::prompts;
use crate::suite::table::{Table, count, found, model_path, optional_count, seed, string};
use crate::suite::{CaseScope, CaseTable, ModelChoice, PromptSource, SuiteError};

/// Default number of prompts.
const DEFAULT_PROMPTS: usize = 20;
/// Most prompts of a case.
const MAX_PROMPTS: usize = 10_000;
/// Default of the most tokens of a prompt.
const DEFAULT_TOKENS: usize = 256;
/// Default number of tokens of the reference's continuation.
const DEFAULT_CONTINUATION: usize = 32;

/// One `[[parity]]` table: compares the logits of each configuration with those of a reference.
#[derive(Debug, Clone, PartialEq)]
pub struct ParityTable {
    /// Device of the reference, and its type if the table says it.
    pub against: Against,
    /// Model of the reference; `None` for the suite's own.
    pub reference: Option<OsString>,
    /// The suite's own model, whatever a configuration runs.
    pub own: ModelChoice,
    /// Source of real prompts; random tokens if `None`.
    pub prompts: Option<PromptSource>,
    /// Number of prompts.
    pub count: usize,
    /// Most tokens of a prompt; of random tokens, all of them.
    pub tokens: usize,
    /// Tokens of the reference's greedy continuation, which both are fed after the prompt.
    pub continuation: usize,
    /// Seed of the random tokens.
    pub seed: u64,
    /// Where the cases run.
    pub scope: CaseScope,
}

impl ParityTable {
    /// Returns the type of the reference: that of the table, or else the float type of the suite's own model.
    pub fn dtype(&self) -> Precision {
        let device = self.against.device;
        let own = || self.own.compute.dtype.map(|own| own.dtype);
        let float = || device.only_type().or_else(own).unwrap_or_else(|| device.main_type());
        self.against.dtype.unwrap_or_else(|| float().into())
    }

    /// Returns the model of the reference, as a value of `--model`.
    pub fn model(&self) -> OsString {
        self.reference.clone().or_else(|| self.own.path.clone()).unwrap_or_else(|| "demo".into())
    }
}

impl CaseTable for ParityTable {
    fn scope(&self) -> &CaseScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut CaseScope {
        &mut self.scope
    }

    fn cases(&self) -> usize {
        self.scope.tp_ranks.len()
    }

    fn of_model(&mut self, model: &ModelChoice) {
        self.own.path = model.path.clone().or(self.own.path.take());
        self.own.compute.dtype = model.compute.dtype.or(self.own.compute.dtype);
    }

    fn words(&self, _modelled: &[bool]) -> String {
        let (device, dtype) = (self.against.device.name(), self.dtype());
        format!(
            "parity       {} prompts of {} tokens at most, against {device} {dtype}",
            self.count, self.tokens
        )
    }

    fn content(&self) -> Value {
        let dtype = self.dtype().to_string();
        let numbers = [self.count, self.tokens, self.continuation];
        let prompts = self.prompts.as_ref().map(PromptSource::content);
        json!([self.against.device.name(), dtype, numbers, self.seed, prompts])
    }
}

impl Schema for ParityTable {
    const HAS_PROMPTS: bool = true;

    fn read(table: Table, dir: &Path) -> Result<Self, SuiteError> {
        parity(table, dir)
    }
}

fn parity(mut table: Table, dir: &Path) -> Result<ParityTable, SuiteError> {
    let against = against(&mut table)?;
    let reference = table.take("reference").map(|node| model_path(&node, dir)).transpose()?;
    let count_node = table.take("prompts");
    let prompts_wanted = count_node.as_ref().map(|node| count(node, 1)).transpose()?;
    let prompts_wanted = prompts_wanted.map_or(DEFAULT_PROMPTS, |count| count as usize);
    if let (Some(node), true) = (&count_node, prompts_wanted > MAX_PROMPTS) {
        return Err(found(node, &prompts_wanted.to_string(), &format!("{MAX_PROMPTS} prompts at most")));
    }
    let parity = ParityTable {
        against,
        reference,
        own: ModelChoice::default(),
        prompts: prompts(&mut table, dir, false)?,
        count: prompts_wanted,
        tokens: optional_count(&mut table, "tokens", 1)?.unwrap_or(DEFAULT_TOKENS),
        continuation: optional_count(&mut table, "continuation", 0)?.unwrap_or(DEFAULT_CONTINUATION),
        seed: seed(&mut table)?,
        scope: CaseScope::read(&mut table)?,
    };
    table.finish()?;
    Ok(parity)
}

/// Reads `against`. A reference computes on this host, so a card is none.
fn against(table: &mut Table) -> Result<Against, SuiteError> {
    let Some(node) = table.take("against") else {
        return Ok(Against { device: DeviceKind::Cpu, dtype: None });
    };
    let hosts: Vec<&str> =
        DeviceKind::ALL.into_iter().filter(|kind| !kind.is_card()).map(DeviceKind::name).collect();
    let expected = format!("{}, and where wanted a type behind it, such as cpu:fp32", hosts.join(" or "));
    let word = string(&node)?;
    let refuse = |_| found(&node, &format!("\"{word}\""), &expected);
    let against: Against = word.parse().map_err(refuse)?;
    if against.device.is_card() {
        return Err(refuse(String::new()));
    }
    let only: Option<DType> = against.device.only_type();
    match (only, against.dtype) {
        (Some(only), Some(dtype)) if dtype != Precision::from(only) => Err(found(
            &node,
            &format!("\"{word}\""),
            &format!("{}:{only}, its only type", against.device.name()),
        )),
        _ => Ok(against),
    }
}
