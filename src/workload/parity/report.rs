//! Parity cases: turns lines into the rows of `parity.csv`, one table, sentences and a condition.

use super::record::{ParityCase, ParityRecord, ParityRow};
use crate::language::{Text, cells, joined, text, texts};
use crate::record::{RunRecord, SCHEMA, Status};
use crate::report::check::{Check, Outcome, yes_if};
use crate::report::csv_file::Csv;
use crate::report::format::{nats, or_none, percent};
use crate::report::table::Table;
use crate::report::validity::found_in;
use crate::report::workloads::{Part, Reported};
use crate::stats::parity::KlSummary;

/// Definitions at the foot of a report with such cases.
const DEFINITIONS: &[(Text, Text)] = &[(
    text!("KL, top-1"),
    text!(
        "KL(reference || run) of the distribution of the next token, in nat, over the whole vocabulary. Both are fed the same tokens: a \
     prompt, and what the reference generates after it, greedily. Mean, 99 % quantile and maximum are over all positions of all \
     prompts. Top-1 is the share of positions with the same likeliest token."
    ),
)];

/// The compared prompts of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct ParityReport {
    found: Vec<ParityFound>,
    rows: Vec<ParityRow>,
}

/// A case of the plan, and what its lines say.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParityFound {
    /// The case.
    pub(super) case: ParityCase,
    /// Number of lines.
    pub(super) prompts: u64,
    /// What the first failed prompt failed of.
    error: Option<String>,
    /// Hash of the reference's weights.
    pub(super) reference: Option<String>,
    /// The KL of all positions. `None` without any.
    pub(super) kl: Option<KlSummary>,
    /// Share of positions with the same likeliest token.
    pub(super) top1: Option<f64>,
}

impl ParityFound {
    fn of(case: &ParityCase, lines: &[ParityRecord]) -> Self {
        let own: Vec<&ParityRecord> = lines.iter().filter(|line| line.parity_id == case.parity_id).collect();
        let kl = KlSummary::new(own.iter().flat_map(|line| line.kl.iter().copied()).collect());
        let equal: u64 = own.iter().map(|line| u64::from(line.top1_equal)).sum();
        Self {
            case: case.clone(),
            prompts: own.len() as u64,
            error: own.iter().find_map(|line| line.error.clone()),
            reference: own.first().map(|line| line.reference.clone()),
            top1: kl.map(|kl| equal as f64 / kl.positions as f64),
            kl,
        }
    }

    /// Whether both are compared with the same weights, on the same device and in the same type.
    pub(crate) fn is_against_the_same(&self, other: &Self) -> bool {
        self.reference == other.reference && self.case.reference == other.case.reference
    }

    /// Mean KL of all positions, in nats.
    pub(crate) fn mean_kl(&self) -> Option<f64> {
        self.kl.map(|kl| kl.mean)
    }

    /// Mean, 99 % quantile and maximum of the KL, and top-1 in percent.
    pub(crate) fn figures(&self) -> [Text; 4] {
        let of = |value: fn(KlSummary) -> f64| or_none(self.kl, |kl| nats(value(kl)).into());
        [
            of(|kl| kl.mean),
            of(|kl| kl.p99),
            of(|kl| kl.max),
            or_none(self.top1, |share| percent(share).into()),
        ]
    }
}

impl ParityReport {
    /// What was found of a case, which another run may have on another number of ranks.
    pub(crate) fn found(&self, case: &ParityCase) -> Option<&ParityFound> {
        let exact = self.found.iter().find(|found| found.case.parity_id == case.parity_id);
        exact.or_else(|| self.found.iter().find(|found| found.case.name() == case.name()))
    }
}

impl Part for ParityReport {
    fn tables(&self, _run: &RunRecord) -> Vec<Table> {
        let mut table = Table::new(
            text!("Logits against a reference (KL in nat)"),
            &texts!["Case", "Reference"],
            &texts!["TP", "Prompts", "Positions", "KL mean", "KL 99 %", "KL max", "Top-1 %"],
        );
        for found in &self.found {
            let ParityFound { case, prompts, kl, .. } = found;
            let positions = or_none(*kl, |kl| kl.positions.to_string());
            let mut row = cells![case.parity_id, case.reference.words(), case.tp, prompts, positions];
            row.extend(found.figures());
            table.push(false, row);
        }
        vec![table]
    }

    fn checks(&self, run: &RunRecord) -> Vec<Check> {
        let run_cases = || self.found.iter().filter(|found| found.case.unfit.is_none());
        let (cases, complete) = (run_cases().count(), run.status == Status::Complete);
        if cases == 0 {
            return Vec::new();
        }
        let begun = complete || run_cases().any(|found| found.prompts > 0);
        let spoilt = |found: &&ParityFound| {
            found.error.is_some() || (complete && found.prompts < u64::from(found.case.prompts))
        };
        let broken: Vec<&str> = run_cases().filter(spoilt).map(|found| &*found.case.parity_id).collect();
        let first = run_cases().find_map(|found| found.error.clone());
        vec![Check {
            name: text!("logits compared"),
            condition: text!("The logits of every prompt were compared with the reference's"),
            outcome: if begun { yes_if(broken.is_empty()) } else { Outcome::Unknown },
            found: match first {
                _ if !begun => text!("no prompt is compared yet"),
                Some(first) => text!("{first}; {cases}", first, cases = found_in(&broken, cases)),
                None => found_in(&broken, cases),
            },
            advice: text!("The prompts concerned say why in parity.jsonl; they stand outside all figures."),
            required: true,
        }]
    }

    fn sentences(&self, _run: &RunRecord) -> Vec<Text> {
        let compared = |found: &ParityFound| {
            let (kl, [mean, p99, _, top1]) = (found.kl?, found.figures());
            Some(text!(
                "{case}: mean KL {mean} nat, 99 % {p99}, top-1 {top1} % over {positions} position{positions:s}, against {reference}.",
                case = found.case.parity_id,
                mean,
                p99,
                top1,
                positions = kl.positions,
                reference = found.case.reference.words()
            ))
        };
        let left_out = |found: &ParityFound| {
            let reason = found.case.unfit.as_ref()?;
            Some(text!(
                "Left out: {cases} ({reason}).",
                cases = joined([&*found.case.parity_id], ", "),
                reason
            ))
        };
        self.found.iter().filter_map(|found| compared(found).or_else(|| left_out(found))).collect()
    }

    fn csv(&self) -> Result<Option<Csv>, csv::Error> {
        Csv::of("parity.csv", ParityRow::HEADER, &self.rows).map(Some)
    }
}

impl Reported for ParityReport {
    type Case = ParityCase;
    const DEFINITIONS: &'static [(Text, Text)] = DEFINITIONS;
    const NAMES: [&'static str; 2] = ["parity case", "parity cases"];

    fn of(run: &RunRecord, lines: &[ParityRecord]) -> Self {
        let cases = &run.plan.parity;
        Self {
            found: cases.iter().map(|case| ParityFound::of(case, lines)).collect(),
            rows: rows(run, lines),
        }
    }
}

/// Returns a row for each prompt, case by case in plan order.
fn rows(run: &RunRecord, lines: &[ParityRecord]) -> Vec<ParityRow> {
    let from = &run.provenance;
    let row = |(case, line): (&ParityCase, &ParityRecord)| {
        let kl = KlSummary::new(line.kl.clone());
        ParityRow {
            schema: SCHEMA,
            run_id: run.run_id.clone(),
            parity_id: case.parity_id.clone(),
            engine: from.engine.clone(),
            device: from.device.clone(),
            clock: line.clock,
            dtype: from.dtype.clone(),
            tp: case.tp,
            reference_model: case.reference.model.clone(),
            reference_device: case.reference.device.clone(),
            reference_dtype: case.reference.dtype.clone(),
            prompt: line.prompt,
            positions: line.kl.len() as u64,
            kl_mean: kl.map(|kl| kl.mean),
            kl_p99: kl.map(|kl| kl.p99),
            kl_max: kl.map(|kl| kl.max),
            top1_agreement: kl.map(|kl| f64::from(line.top1_equal) / kl.positions as f64),
            error: line.error.clone(),
            host: run.host_of(&case.parity_id).to_owned(),
        }
    };
    let of_case = |case: &'_ ParityCase| {
        let own = lines.iter().filter(|line| line.parity_id == case.parity_id);
        own.map(|line| row((case, line))).collect::<Vec<_>>()
    };
    run.plan.parity.iter().flat_map(of_case).collect()
}
