//! The device of one rank: how it is set up, and what it found.

mod forward;
mod rehearsal;

pub(super) use self::rehearsal::INT8_ROUNDINGS;

use std::sync::Arc;

use glmbench_device::{Device, DeviceError, KvForm};

use super::api::Api;
use super::attention::Attention;
use super::choice::Choices;
use super::comm::{Comm, Rendezvous};
use super::context::Context;
use super::core::{Core, Words};
use super::kv::KvWriter;
use super::layout::HeadLayout;
use super::memory::Outbox;
use super::rotate::Rotator;
use super::settings::GroupSettings;
use super::telemetry::Telemetry;
use super::{numa, probe, telemetry};

/// What a rank's thread creates its device from.
pub struct RankHandle {
    pub(super) api: Arc<Api>,
    pub(super) settings: Arc<GroupSettings>,
    pub(super) soc: String,
    pub(super) rank: usize,
    pub(super) rendezvous: Arc<Rendezvous>,
}

/// One rank's chip.
pub struct Ascend {
    rotator: Rotator,
    attention: Attention,
    writer: KvWriter,
    ids: Words,
    rows: Words,
    outbox: Outbox,
    comm: Option<Comm>,
    pub(super) rank: usize,
    pub(super) layout: HeadLayout,
    pub(super) choices: Choices,
    /// The form of cache that the operators were chosen for.
    kv: KvForm,
    details: Vec<(String, String)>,
    pub(super) settings: Arc<GroupSettings>,
    pub(super) core: Core,
}

// SAFETY: handles and addresses of the device, used by whichever thread owns the value. A thread on which the device is not
// set gets an error from every call, not undefined behaviour.
unsafe impl Send for Ascend {}

impl Drop for Ascend {
    fn drop(&mut self) {
        // The fields before `core` hold memory and a communicator that queued work may still use.
        let _ = self.core.stream.quiesce();
    }
}

impl Ascend {
    /// Sets the device on the calling thread and probes what it supports.
    ///
    /// # Errors
    /// Fails if the device cannot be set, or supports no variant of something that the model needs.
    pub fn new(rank: RankHandle) -> Result<Self, DeviceError> {
        let RankHandle { api, settings, soc, rank, rendezvous } = rank;
        let layout = HeadLayout::new(settings.attention, api.device)?;
        let bound = settings.bind.then(|| match &settings.emulation {
            None => numa::bind(&api, rank),
            Some(_) => numa::bind_emulated(rank, settings.tp),
        });
        let context = Context::new(api, rank as i32)?;
        let timing_only = settings.emulation.as_ref().is_some_and(|e| e.timing_only);
        let core = Core::new(context, settings.dtype, timing_only)?;
        let kv = settings.kv;
        let probed = probe::probe(&core, settings.chip, layout, kv, settings.forced, &[])?;
        core.choose(probed.choices);
        let (choices, layout) = (probed.choices, probed.layout);
        let mut device = Self {
            rotator: Rotator::new(choices.rotary, layout),
            attention: Attention::new(choices, layout),
            writer: KvWriter::new(choices.kv, layout),
            ids: Words::new("token ids"),
            rows: Words::new("row numbers"),
            outbox: Outbox::default(),
            comm: None,
            rank,
            layout,
            choices,
            kv,
            details: Vec::new(),
            settings,
            core,
        };
        let probed = if timing_only { probed } else { device.trusted(probed)? };
        device.details = details(&device.core, &soc, &probed);
        device.details.extend(bound);
        let tp = device.settings.tp;
        if tp > 1 {
            device.comm = Some(rendezvous.join(&device.core.context, rank, tp)?);
        }
        Ok(device)
    }

    /// Returns the selected variants, and statistics of the graphs so far.
    fn details(&self) -> Vec<(String, String)> {
        let graphs = self.core.stream.graphs().map(|words| ("graphs".to_owned(), words));
        self.details.iter().cloned().chain(graphs).collect()
    }

    /// Rehearses the selected variants on a small case. Discards a wrong one and probes again, until all results are
    /// right.
    fn trusted(&mut self, mut probed: probe::Probed) -> Result<probe::Probed, DeviceError> {
        let mut discarded = Vec::new();
        // A later probe starts from heads that are already padded, so the reason for padding is carried over.
        let filled: Vec<_> = probed.refused.iter().filter(|(name, _)| *name == "heads").cloned().collect();
        while let Some(wrong) = self.rehearse()? {
            discarded.push(wrong);
            let (chip, forced) = (self.settings.chip, self.settings.forced);
            probed = probe::probe(&self.core, chip, self.layout, self.kv, forced, &discarded)?;
            probed.refused.extend(filled.iter().cloned());
            self.choices = probed.choices;
            self.release_cached()?;
        }
        // Later work starts from a clean state.
        self.release_cached()?;
        Ok(probed)
    }

    /// Chooses operators for a cache of another form, runs `work`, and returns to the form before.
    ///
    /// # Errors
    /// Fails if no operator takes such a cache, and as `work` does.
    pub(super) fn with_cache<T>(
        &mut self,
        kv: KvForm,
        work: impl FnOnce(&mut Self) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let (chip, forced) = (self.settings.chip, self.settings.forced);
        probe::check_kv(chip, self.core.dtype, kv)?;
        let before = (self.choices, self.kv);
        let probed = probe::probe(&self.core, chip, self.layout, kv, forced, &[])?;
        (self.choices, self.kv) = (probed.choices, kv);
        let found = self.release_cached().and_then(|()| self.trusted(probed)).and_then(|_| work(self));
        (self.choices, self.kv) = before;
        let released = self.release_cached();
        found.and_then(|found| released.map(|()| found))
    }

    /// Reads power, temperature, utilisation and memory.
    pub fn telemetry(&self) -> Telemetry {
        telemetry::read(self.core.api(), self.settings.chip, self.rank)
    }
}

/// Returns the details that the run's record keeps.
fn details(core: &Core, soc: &str, probed: &probe::Probed) -> Vec<(String, String)> {
    let (api, layout) = (core.api(), &probed.layout);
    let mut details = vec![("chip".to_owned(), soc.to_owned())];
    details.extend(api.version().map(|version| ("runtime".to_owned(), version)));
    let libraries: Vec<String> =
        api.libraries.found.iter().map(|found| found.path.display().to_string()).collect();
    if api.libraries.emu.is_none() {
        details.push(("libraries".to_owned(), libraries.join(" ")));
    }
    let skipped: Vec<String> = api.libraries.skipped.iter().map(ToString::to_string).collect();
    if !skipped.is_empty() {
        details.push(("libraries left out".to_owned(), skipped.join("; ")));
    }
    let words = probed.choices.words();
    details.extend(words.map(|(name, word)| (name.to_owned(), word.to_owned())));
    for (name, reason) in &probed.refused {
        details.push((format!("{name} refused"), reason.clone()));
    }
    if layout.padded() {
        let heads = format!(
            "{} of {} channels filled to {}",
            layout.shape.heads, layout.shape.channels, layout.channels
        );
        details.push(("heads".to_owned(), heads));
    }
    details
}
