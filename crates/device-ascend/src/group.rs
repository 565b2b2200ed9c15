//! The chips of one run: loads the libraries, checks the chips, and creates a handle for every rank's thread.

use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use ascend_sys::{Libraries, SearchPath, call};

use glmbench_device::group::DeviceGroup;
use glmbench_device::sensors::Sensors;
use glmbench_device::{DType, DeviceError};

use super::api::{Api, acl};
use super::comm::{Rendezvous, collectives};
use super::device::{Ascend, RankHandle};
use super::emulated::{EmulatedError, Image};
use super::settings::{Chip, Emulation, GroupSettings};
use super::telemetry::TelemetrySource;
use super::trace::{self, Call};
use super::visible::{VISIBLE_DEVICES, visible_ids};
use super::work::WorkCounter;

/// The ranks of one run.
pub struct AscendGroup {
    settings: Arc<GroupSettings>,
    api: Arc<Api>,
    rendezvous: Arc<Rendezvous>,
    handles: Mutex<Vec<Option<RankHandle>>>,
}

impl AscendGroup {
    /// Checks what [`AscendGroup::new`] would refuse, before a model is loaded.
    ///
    /// # Errors
    /// Fails on a type that the chip does not support, and on libraries that are missing, mixed or fail to open. Also
    /// fails on invalid settings of the emulator, another chip, or too few chips.
    pub fn check(
        chip: Chip,
        dtype: DType,
        tp: usize,
        emulation: Option<&Emulation>,
    ) -> Result<(), DeviceError> {
        ready(chip, dtype, tp, emulation).map(drop)
    }

    /// Loads the libraries, and checks the kind and number of chips.
    ///
    /// # Errors
    /// Fails as [`AscendGroup::check`] does, and if several ranks lack a library of collectives.
    pub fn new(settings: GroupSettings) -> Result<Self, DeviceError> {
        let GroupSettings { chip, dtype, kv, tp, .. } = settings;
        super::probe::check_kv(chip, dtype, kv)?;
        let (api, soc) = ready(chip, dtype, tp, settings.emulation.as_ref())?;
        if tp > 1 {
            collectives(&api, tp)?;
        }
        let (settings, rendezvous) = (Arc::new(settings), Arc::new(Rendezvous::default()));
        let handle = |rank| {
            let (api, settings, rendezvous) = (api.clone(), settings.clone(), rendezvous.clone());
            Some(RankHandle { api, settings, soc: soc.clone(), rank, rendezvous })
        };
        let handles = (0..tp).map(handle).collect();
        Ok(Self { settings, api, rendezvous, handles: Mutex::new(handles) })
    }

    /// Returns the settings of the group.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Creates the device of one rank. Call it once per rank, on the thread that uses and drops the device. With several
    /// ranks, it returns when all of them have called it.
    ///
    /// # Errors
    /// Fails if the device cannot be set, a needed operator is missing, a communicator fails, or the rank was taken
    /// before.
    pub fn rank(&self, rank: usize) -> Result<Ascend, DeviceError> {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let handle =
            handles.get_mut(rank).and_then(Option::take).ok_or_else(|| DeviceError::Unsupported {
                device: self.settings.chip.name(),
                problem: format!("rank {rank} is taken, or is none of {}", self.settings.tp),
            })?;
        drop(handles);
        Ascend::new(handle)
    }

    /// Returns a source of samples of the chips, for use beside the ranks.
    pub fn telemetry(&self) -> TelemetrySource {
        TelemetrySource { api: self.api.clone(), chip: self.settings.chip, tp: self.settings.tp }
    }

    /// Records first stages from now on, as those of a start.
    pub fn record_start(&self) {
        self.api.trace.begin(trace::START);
    }

    /// Takes the first stages of a start that failed.
    pub fn recorded(&self) -> Vec<Call> {
        self.api.trace.take()
    }

    /// Returns a counter of rank 0's work, for use beside the ranks; counts nothing on hardware.
    pub fn work(&self) -> WorkCounter {
        WorkCounter { api: self.api.clone() }
    }

    /// Returns the emulator's counts of live objects, by name; `None` on hardware.
    pub fn live(&self) -> Option<Vec<(&'static str, u64)>> {
        let emulator = self.api.libraries.emu.as_ref()?;
        let mut counts = [0u64; LIVE.len()];
        // SAFETY: as many places as said.
        unsafe { call!(emulator, ascend_emulator_counts(counts.as_mut_ptr(), counts.len() as u64)) }.ok()?;
        Some(LIVE.into_iter().zip(counts).collect())
    }
}

/// Names of the counts that the emulator returns, in its order.
const LIVE: [&str; 12] = [
    "device allocations",
    "device bytes",
    "host allocations",
    "streams",
    "events",
    "tensors",
    "scalars",
    "integer arrays",
    "tensor lists",
    "executors",
    "communicators",
    "graphs",
];

impl DeviceGroup for AscendGroup {
    type Device = Ascend;

    fn name(&self) -> &'static str {
        self.settings.chip.name()
    }

    fn tp(&self) -> usize {
        self.settings.tp
    }

    fn device(&self, rank: usize) -> Result<Ascend, DeviceError> {
        self.rank(rank)
    }

    /// Makes every later call of every rank fail at once. A rank waiting inside a collective returns within a second, and
    /// releases what the collective holds. The library's own limit (`HCCL_EXEC_TIMEOUT`) is half an hour.
    fn abort(&self) {
        self.api.call_off("another rank failed");
        self.rendezvous.abort("another rank failed");
    }

    fn sensors(&self) -> Option<Box<dyn Sensors>> {
        Some(Box::new(self.telemetry()))
    }
}

/// Returns the initialised libraries, after checking the kind and number of chips, and the runtime's name of the chip.
fn ready(
    chip: Chip,
    dtype: DType,
    tp: usize,
    emulation: Option<&Emulation>,
) -> Result<(Arc<Api>, String), DeviceError> {
    super::probe::check_dtype(chip, dtype)?;
    let api = match emulation {
        None => installed(chip.name())?,
        Some(emulation) => emulated(chip.name(), emulation)?,
    };
    // The count goes first: a machine without a chip has no name of one.
    check_count(&api, tp)?;
    let soc = api.soc()?;
    if !soc.starts_with(chip.soc()) {
        let problem = format!("the chip is {soc}, expected {}…", chip.soc());
        return Err(DeviceError::Unsupported { device: chip.name(), problem });
    }
    Ok((api, soc))
}

/// The environment variable with faults for the emulator, comma-separated.
const FAULT_VARIABLE: &str = "GLMBENCH_ASCEND_FAULT";

/// Returns the initialised libraries of a separate emulated machine.
fn emulated(device: &'static str, emulation: &Emulation) -> Result<Arc<Api>, DeviceError> {
    let unsupported = |problem: String| DeviceError::Unsupported { device, problem };
    let wrong = |problem: String| DeviceError::Setting { device, problem };
    // The emulator itself reads the faults in the environment, except the symbols to be missing.
    let faults = std::env::var(FAULT_VARIABLE).unwrap_or_default();
    let faults = faults.split(',').map(|fault| format!("fault = {}\n", fault.trim()));
    let all: String = std::iter::once(emulation.settings.clone()).chain(faults).collect();
    let image = Image::new(&all).map_err(|e| match e {
        EmulatedError::NoSuchSymbol { .. } => wrong(e.to_string()),
        EmulatedError::NoPlace { .. } => unsupported(e.to_string()),
    })?;
    let libraries = Libraries::open(image.path()).map_err(|e| unsupported(e.to_string()))?;
    let Some(emulator) = &libraries.emu else {
        return Err(unsupported("the emulator inside this program has no ascend_emulator_info".into()));
    };
    let text = std::ffi::CString::new(emulation.settings.as_str())
        .map_err(|_| wrong("the emulator's settings hold a zero byte".into()))?;
    // SAFETY: a string that ends in a zero byte.
    let configured = unsafe { call!(emulator, ascend_emulator_configure(text.as_ptr())) };
    if configured != Ok(0) {
        // SAFETY: the function takes nothing; its result is a string or null.
        let said = unsafe { call!(libraries.rt, aclGetRecentErrMsg()) }.ok().filter(|text| !text.is_null());
        // SAFETY: documented to be a string that lives until the next call on this thread.
        let said = said.map(|text| unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned());
        let said = said.unwrap_or_else(|| "no message".into());
        return Err(wrong(format!("the emulator refuses its settings: {said}")));
    }
    Api::start(libraries, device, true)
}

/// Opens and initialises CANN once for the whole process. It is never finalised, because it cannot be initialised again.
pub(super) fn installed(device: &'static str) -> Result<Arc<Api>, DeviceError> {
    static INSTALLED: Mutex<Option<Arc<Api>>> = Mutex::new(None);
    let mut kept = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(api) = kept.as_ref().filter(|api| api.device == device && !api.is_lost()) {
        return Ok(api.clone());
    }
    let libraries = Libraries::find(&SearchPath::from_environment()).map_err(|e| {
        trace::note_failed("dlopen", None, &e.to_string());
        let problem = format!("{e} Without the card, --emulate runs the same on an emulated one");
        DeviceError::Unsupported { device, problem }
    })?;
    if libraries.emu.is_some() {
        let problem = "the libraries that were found are the emulator's: say --emulate".to_owned();
        return Err(DeviceError::Unsupported { device, problem });
    }
    let api = Api::start(libraries, device, false)?;
    *kept = Some(api.clone());
    Ok(api)
}

/// Returns the number of chips that this process may use.
pub(super) fn device_count(api: &Api) -> Result<u32, DeviceError> {
    let mut count = 0u32;
    // SAFETY: a place for the number.
    unsafe { acl!(api, api.libraries.rt, aclrtGetDeviceCount(ptr::from_mut(&mut count))) }?;
    Ok(count)
}

/// Rejects more ranks than there are chips.
fn check_count(api: &Api, tp: usize) -> Result<(), DeviceError> {
    let set = std::env::var(VISIBLE_DEVICES).ok().filter(|list| !list.is_empty());
    if let Some(list) = &set {
        let wrong = |problem: String| DeviceError::Setting { device: api.device, problem };
        if visible_ids(list).map_err(wrong)?.is_empty() {
            return Err(wrong(format!(
                "{VISIBLE_DEVICES}={list}: found no id; expected ids that ascend, such as 0,1"
            )));
        }
    }
    let count = device_count(api)?;
    if tp <= count as usize {
        return Ok(());
    }
    let possible = match count {
        0 => "none can be".to_owned(),
        1 => "tp 1 can be".to_owned(),
        n => format!("tp 1 to {n} can be, where the model's heads allow it"),
    };
    let set = set
        .map(|list| {
            let space = if list.contains(' ') { "; what follows the first space does not count" } else { "" };
            format!(" ({VISIBLE_DEVICES}={list}{space})")
        })
        .unwrap_or_default();
    let problem = format!("tp {tp} needs {tp} chips, visible is {count}{set}: {possible}");
    Err(DeviceError::Unsupported { device: api.device, problem })
}
