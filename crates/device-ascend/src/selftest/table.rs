//! The table of operators: runs each, compares it with plain loops, and notes its time.

use glmbench_device::reference::Reference;
use glmbench_device::{DType, Device, DeviceError};

use super::super::compare::{bound, largest_error};
use super::super::device::INT8_ROUNDINGS;
use super::super::probe::{Alternative, survey};
use super::super::{Ascend, Telemetry};
use super::collective::Sum;
use super::timings::Timings;
use super::{Scope, SelftestRow, Status, Widths, timed};

impl SelftestRow {
    pub(super) fn unsupported(operator: &str, variant: &str, note: &str) -> Self {
        Self {
            operator: operator.into(),
            variant: variant.into(),
            shape: String::new(),
            status: Status::Unsupported,
            max_error: None,
            bound: None,
            time_ns: None,
            modelled: false,
            note: note.into(),
        }
    }
}

/// Whether an error says that the card or its libraries lack something: a function, or a first stage that accepts.
fn is_refusal(error: &DeviceError) -> bool {
    match error {
        DeviceError::Unsupported { .. } => true,
        DeviceError::Failed { api, .. } => api.ends_with("GetWorkspaceSize"),
        _ => false,
    }
}

/// Whether a card that lacks an operator can still run models: those without quantised weights or cache.
fn is_optional(operator: &str) -> bool {
    operator.starts_with("linear w8") || operator.ends_with("c8")
}

/// Runs a row's operator.
type Run = fn(&mut Table) -> Result<Pair, DeviceError>;

/// The table under construction.
pub(super) struct Table {
    pub(super) device: Ascend,
    pub(super) widths: Widths,
    pub(super) dtype: DType,
    scope: Scope,
    modelled: bool,
    pub(super) rows: Vec<SelftestRow>,
    pub(super) alternatives: Vec<Alternative>,
    pub(super) timings: Timings,
    pub(super) lost: Option<DeviceError>,
}

/// An operator's results on the device and in the reference, and its time.
pub(super) struct Pair {
    pub(super) ours: Vec<f32>,
    pub(super) theirs: Vec<f32>,
    pub(super) time_ns: u64,
}

impl Pair {
    /// Creates a pair from two equal runs on the device and the reference's result in `out`.
    pub(super) fn of(
        (ours, time_ns): (Vec<f32>, u64),
        reference: &mut Reference,
        out: &<Reference as Device>::Activation,
    ) -> Result<Self, DeviceError> {
        let mut theirs = Vec::new();
        reference.download(out, &mut theirs)?;
        Ok(Self { ours, theirs: theirs.repeat(2), time_ns })
    }
}

impl Table {
    pub(super) fn new(device: Ascend, widths: Widths, scope: Scope) -> Self {
        let (dtype, modelled) = (device.core.dtype, device.modelled_ns().is_some());
        let (rows, alternatives, timings) = (Vec::new(), Vec::new(), Timings::default());
        Self { device, widths, dtype, scope, modelled, rows, alternatives, timings, lost: None }
    }

    /// Does what the scope says.
    pub(super) fn run(&mut self) {
        if self.scope.records() {
            self.survey();
        }
        if self.scope.compares() && self.lost.is_none() {
            self.operators();
        }
        // Timed calls are not recorded: there are many of them, and they differ in their rows alone.
        if self.scope.times() && self.lost.is_none() {
            self.times();
        }
    }

    /// Asks for all alternatives at the model's shapes.
    fn survey(&mut self) {
        self.device.core.api().trace.begin("survey");
        let (chip, layout) = (self.device.settings.chip, self.device.layout);
        match survey(&self.device.core, chip, layout) {
            Ok(alternatives) => self.alternatives = alternatives,
            Err(error) => {
                let mut row = SelftestRow::unsupported("survey", "first stages", "");
                self.failed(&mut row, error);
                self.push(row);
            }
        }
    }

    fn times(&mut self) {
        let calls = self.device.core.api().trace.pause();
        let mut timings = Timings::default();
        let outcome = timings.measure(&mut self.device, self.widths);
        self.timings = timings;
        self.device.core.api().trace.resume(calls);
        if let Err(error) = outcome {
            let mut row = SelftestRow::unsupported("times over shapes", "events", "");
            self.failed(&mut row, error);
            self.push(row);
        }
    }

    fn operators(&mut self) {
        let w = self.widths;
        let choices = self.device.choices;
        let h = w.hidden;
        let operators: [(&str, &str, String, f64, Run); 13] = [
            ("embed", "aclnnEmbedding", format!("[{}, {h}] by 5", w.vocab), 0.0, Self::embed),
            ("rms_norm", "aclnnRmsNorm", format!("[3, {h}]"), 1.0, Self::rms_norm),
            ("linear", choices.weights.word(), format!("[3, {h}] x [{h}, {h}]"), 1.0, Self::linear),
            ("linear w8a8", "aclnnQuantMatmulV4", format!("[3, {h}] x [{h}, {h}]"), 6.0, Self::linear_static),
            (
                "linear w8a16",
                "aclnnWeightQuantBatchMatmulV2",
                format!("[3, {h}] x [{h}, {h}]"),
                3.0,
                Self::linear_weight_only,
            ),
            ("qkv with bias", choices.weights.word(), format!("[3, {h}]"), 2.0, Self::qkv),
            (
                "gate_up and swiglu",
                "aclnnSwiGlu",
                format!("[3, {h}] x [{}, {h}]", 2 * w.ffn),
                3.0,
                Self::swiglu,
            ),
            ("add", choices.add.word(), format!("[3, {h}]"), 1.0, Self::add),
            ("gather", "aclnnGatherV2", format!("[5, {h}] by 3"), 0.0, Self::gather),
            ("attention, prefill", choices.prefill.word(), "130 + 3 tokens".into(), 6.0, Self::prefill),
            ("attention, decode", choices.decode.word(), "contexts 131, 4".into(), 6.0, Self::decode),
            (
                "prefill, cache c8",
                "aclnnAscendQuantV3",
                "130 + 3 tokens".into(),
                INT8_ROUNDINGS,
                Self::prefill_c8,
            ),
            (
                "decode, cache c8",
                "aclnnAscendQuantV3",
                "contexts 131, 4".into(),
                INT8_ROUNDINGS,
                Self::decode_c8,
            ),
        ];
        for (operator, variant, shape, roundings, run) in operators {
            if self.scope.records() {
                self.device.core.api().trace.begin(operator);
            }
            match run(self) {
                // Models without quantised weights or cache do not need these operators.
                Err(error) if is_optional(operator) && is_refusal(&error) => {
                    let row = SelftestRow::unsupported(operator, variant, &error.to_string());
                    self.push(SelftestRow { shape, ..row });
                }
                outcome => self.compared(operator, variant, shape, roundings, outcome),
            }
            if self.lost.is_some() {
                return;
            }
        }
        self.memory();
        self.events();
        self.telemetry();
    }

    fn compared(
        &mut self,
        operator: &str,
        variant: &str,
        shape: String,
        roundings: f64,
        outcome: Result<Pair, DeviceError>,
    ) {
        let mut row = SelftestRow { shape, ..SelftestRow::unsupported(operator, variant, "") };
        match outcome {
            Err(error) => self.failed(&mut row, error),
            Ok(Pair { ours, theirs, time_ns }) => {
                let largest = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
                let error = largest_error(&ours, &theirs);
                let bound = if roundings == 0.0 { 0.0 } else { bound(self.dtype, roundings, largest) };
                let alike = ours.len() == theirs.len();
                row.status = if alike && error <= bound { Status::Pass } else { Status::Fail };
                (row.max_error, row.bound, row.time_ns) = (Some(error), Some(bound), Some(time_ns));
            }
        }
        self.push(row);
    }

    pub(super) fn collective(&mut self, tp: usize, sum: Result<Sum, DeviceError>) {
        let shape = format!("{tp} x [1, 256]");
        let mut row = SelftestRow { shape, ..SelftestRow::unsupported("all_reduce", "HcclAllReduce", "") };
        match sum {
            Err(error) => self.failed(&mut row, error),
            Ok(sum) => {
                row.status = if sum.error == 0.0 { Status::Pass } else { Status::Fail };
                (row.max_error, row.bound, row.time_ns) = (Some(sum.error), Some(0.0), Some(sum.time_ns));
                row.note = "whole numbers, so exact".into();
                self.timings.collectives = sum.sizes;
            }
        }
        self.push(row);
    }

    fn failed(&mut self, row: &mut SelftestRow, error: DeviceError) {
        (row.status, row.note) = (Status::Fail, error.to_string());
        if let DeviceError::Lost { .. } = error {
            self.lost = Some(error);
        }
    }

    fn push(&mut self, row: SelftestRow) {
        self.rows.push(SelftestRow { modelled: self.modelled, ..row });
    }

    fn memory(&mut self) {
        let bytes: Vec<u8> = (0..1u32 << 20).map(|i| (i * 7 % 251) as u8).collect();
        let outcome = self.device.core.slab.put(&bytes, "a test").and_then(|buffer| {
            let mut back = vec![0; bytes.len()];
            buffer.read(0, &mut back)?;
            Ok(back == bytes)
        });
        let shape = "1 MiB there and back".to_owned();
        let mut row = SelftestRow { shape, ..SelftestRow::unsupported("copies", "aclrtMemcpy", "") };
        match outcome {
            Err(error) => self.failed(&mut row, error),
            Ok(same) => {
                row.status = if same { Status::Pass } else { Status::Fail };
                let came = if same { "the same bytes came back" } else { "other bytes came back" };
                row.note = format!("{came}; not timed: such a copy stands in no stream");
            }
        }
        self.push(row);
    }

    fn events(&mut self) {
        let outcome = timed(&mut self.device, |_| Ok(()));
        let mut row =
            SelftestRow::unsupported("events", "aclrtEventElapsedTime", "nothing between two events");
        match outcome {
            Err(error) => self.failed(&mut row, error),
            Ok(time_ns) => (row.status, row.time_ns) = (Status::Pass, Some(time_ns)),
        }
        self.push(row);
    }

    fn telemetry(&mut self) {
        let told = self.device.telemetry();
        let chip = self.device.settings.chip;
        let values = [
            told.power_w.map(|v| format!("{v} W")),
            told.temp_c.map(|v| format!("{v} degrees Celsius")),
            told.utilisation.map(|v| format!("{v}")),
            told.memory.map(|m| format!("{} of {} bytes free", m.free_bytes, m.total_bytes)),
        ];
        for ((name, method), value) in Telemetry::methods(chip).into_iter().zip(values) {
            let (status, note) = match value {
                Ok(value) => (Status::Pass, value),
                Err(reason) => (Status::Unsupported, reason),
            };
            self.push(SelftestRow { status, ..SelftestRow::unsupported(name, method, &note) });
        }
    }
}
