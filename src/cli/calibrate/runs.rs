//! The timed cases of runs on a card.

use std::path::Path;

use anyhow::bail;

use glmbench_ascend::profile::Profile;
use glmbench_ascend::{Chip, Pricer};
use glmbench_calibrate::counted::Machine;
use glmbench_calibrate::measured::{Predicted, Timed, cases};
use glmbench_calibrate::published::Phase;
use glmbench_device::{DType, DeviceKind};
use glmbench_engine::load::ModelPath;

use crate::cli::runs::find_run;
use crate::record::{Clock, Contents, PerfRow, Phase as TimedPhase, RunDir, RunRecord, Status};
use crate::report::perf_rows;

use super::card::{Held, Source};

/// A run with its timed rows, and the beginning of the hash of its lines.
struct Measured {
    run: RunRecord,
    rows: Vec<PerfRow>,
    hash: String,
}

/// Returns the timed phases of a run.
pub(super) fn read(word: &Path, of: &Source<'_>, pricer: &Pricer) -> anyhow::Result<(Vec<Held>, String)> {
    let measured = Measured::read(word, of.rehearsal)?;
    let machine = measured.machine(of.profile, of.model)?;
    let graph = measured.ran_graphs();
    // Work does not depend on the profile; the built-in one of the card is at hand by name.
    let machine = Machine { profile: of.base.to_owned(), ..machine };
    let parameters = machine.config.parameters() as f64;
    let held = cases(pricer, &machine, &measured.timed(), graph)?.into_iter().map(|(timed, case)| Held {
        label: case.model.clone(),
        case,
        step: Some(Predicted { timed, graph, parameters, left_out: 1.0 }),
    });
    Ok((held.collect(), format!("run {}", measured.hash)))
}

impl Measured {
    fn read(word: &Path, rehearsal: bool) -> anyhow::Result<Self> {
        let path = find_run(word)?;
        let dir = RunDir::open(&path)?;
        let Contents { run, requests, audit, .. } = Contents::read(&dir)?;
        if let Some(faults) = audit.words() {
            bail!("{}: not what the plan says: {faults}; a fit needs an unchanged run", run.run_id);
        }
        if run.status != Status::Complete {
            bail!(
                "{}: incomplete; a fit needs a complete run; glmbench run --resume goes on with it",
                run.run_id
            );
        }
        if run.provenance.clock == Clock::Modelled && !rehearsal {
            bail!(
                "{}: its times are modelled by {}; a fit needs measured runs: those on a card. --rehearsal takes modelled ones",
                run.run_id,
                run.provenance.clock_profile.as_deref().unwrap_or("a chip profile")
            );
        }
        let rows = perf_rows(&run, &requests);
        // A complete run without a seal is old.
        let seal = run.seal.clone().map_or_else(|| dir.seal(), Ok)?;
        let Some(lines) = seal.get("requests.jsonl") else {
            bail!("{}: expected a run with timed shapes; suites/calibrate-card.toml has them", run.run_id);
        };
        let hash = lines.sha256.chars().take(16).collect();
        Ok(Self { run, rows, hash })
    }

    /// Returns the machine that the run was made on.
    fn machine(&self, profile: &Profile, model: Option<&Path>) -> anyhow::Result<Machine> {
        let from = &self.run.provenance;
        let Some(chip) = from.device.known().and_then(|device| Chip::of(device.kind)) else {
            let cards = DeviceKind::words(true);
            bail!("{}: run on {}; expected a run on {cards}", self.run.run_id, from.device);
        };
        super::card::check_chip(
            profile,
            chip,
            &format!("the run {} is of {}", self.run.run_id, from.device),
        )?;
        let word = model.map_or_else(|| from.model.clone().into(), |path| path.as_os_str().to_owned());
        let path = ModelPath::parse(&word);
        let config = match path {
            ModelPath::Folder(_) if model.is_none() => ModelPath::DummyChatglm2.config(None)?,
            path => path.config(None)?,
        };
        let shape = config.shape();
        if let Some(own) = from.model_details.get("shape").filter(|own| **own != shape) {
            bail!("{}: its model has {own}, not {shape}; give it with --model", self.run.run_id);
        }
        let precision = from.dtype.known().unwrap_or_else(|| DType::Fp16.into());
        Ok(Machine { config, precision, chip, chips: 1, profile: profile.name.clone() })
    }

    fn timed(&self) -> Vec<Timed> {
        let of = |row: &PerfRow| {
            let median = row.median_ns.filter(|_| row.valid == Some(true))? as f64;
            let steps = f64::from(row.output_tokens.saturating_sub(1).max(1));
            let (phase, ns) = match row.phase {
                TimedPhase::Prefill => (Phase::Prefill, median),
                TimedPhase::Decode => (Phase::Decode, median / steps),
                TimedPhase::E2e => return None,
            };
            let (batch, chips) = (row.batch as usize, row.tp as usize);
            let (input_tokens, output_tokens) = (row.input_tokens as usize, row.output_tokens as usize);
            Some(Timed { phase, chips, batch, input_tokens, output_tokens, ns })
        };
        self.rows.iter().filter_map(of).collect()
    }

    /// Whether decode steps ran as graphs.
    fn ran_graphs(&self) -> bool {
        self.run.provenance.device_details.get("graph").is_some_and(|word| word != "off")
    }
}
