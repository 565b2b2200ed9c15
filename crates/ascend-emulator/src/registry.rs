//! The global state: the machine (settings and devices), and the current device of each thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use crate::clock::Work;
use crate::faults::FaultCounters;
use crate::memory::Allocation;
use crate::pool::EPOCH;
use crate::settings::{Config, Mode};
use crate::status::{
    INVALID_PARAM, Outcome, REPEAT_INITIALIZE, RT_CAPTURE_MODE, RT_CONTEXT_NULL, RT_INVALID_DEVICE,
    RT_LOST_HEARTBEAT, UNINITIALIZED, fail,
};
use crate::stream::Stream;

/// Settings and devices.
pub(crate) struct Machine {
    /// The settings.
    pub config: Arc<Config>,
    /// The devices, by id.
    pub devices: Vec<Arc<Device>>,
}

/// One chip.
pub(crate) struct Device {
    /// The device id.
    pub id: i32,
    /// The settings.
    pub config: Arc<Config>,
    /// Counters for the injected faults, shared by all devices.
    pub faults: Arc<FaultCounters>,
    /// Virtual time of the host thread that drives the device.
    pub host_ns: AtomicU64,
    /// Virtual time at which the compute units are free, whatever the stream.
    pub cores_free_ns: Arc<AtomicU64>,
    /// Live allocations by address.
    pub memory: RwLock<BTreeMap<usize, Arc<Allocation>>>,
    /// Bytes allocated.
    pub used_bytes: AtomicU64,
    /// Live streams, without the default stream.
    pub streams: Mutex<Vec<Arc<Stream>>>,
    /// Number of live events.
    pub events: AtomicU32,
    /// Number of live graphs.
    pub graphs: AtomicU32,
    /// Work since it was last taken, each kind with its count; empty without `record = on`.
    pub work: Mutex<Vec<(Work, u64)>>,
    /// Keys of the first stages done so far. The executor cache serves a repeated one.
    first_stages: Mutex<HashSet<String>>,
    default_stream: OnceLock<Arc<Stream>>,
    references: AtomicU32,
    lost: AtomicI32,
}

/// Locks a mutex and ignores poisoning: panics are caught at the ABI.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static MACHINE: RwLock<Option<Arc<Machine>>> = RwLock::new(None);
static INITIALISED: AtomicBool = AtomicBool::new(false);

struct Current {
    epoch: u64,
    device: Arc<Device>,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Sets the settings. Allowed only before aclInit.
pub(crate) fn configure(config: Config) -> Outcome {
    if INITIALISED.load(Ordering::Acquire) {
        return fail(REPEAT_INITIALIZE, "settings come before aclInit");
    }
    install(config);
    Ok(())
}

fn install(config: Config) -> Arc<Machine> {
    let config = Arc::new(config);
    let faults = Arc::new(FaultCounters::new(&config.faults));
    let devices = (0..config.devices).map(|id| Arc::new(Device::new(id as i32, &config, &faults))).collect();
    let machine = Arc::new(Machine { config, devices });
    *MACHINE.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&machine));
    machine
}

/// Returns the machine. Creates it with default settings if there is none.
pub(crate) fn machine() -> Outcome<Arc<Machine>> {
    if let Some(machine) = existing() {
        return Ok(machine);
    }
    let mut config = match Config::parse("") {
        Ok(config) => config,
        Err(problem) => return fail(INVALID_PARAM, problem),
    };
    faults_of_environment(&mut config)?;
    Ok(install(config))
}

/// Adds the faults named in `GLMBENCH_ASCEND_FAULT`.
pub(crate) fn faults_of_environment(config: &mut Config) -> Outcome {
    let Ok(words) = std::env::var("GLMBENCH_ASCEND_FAULT") else { return Ok(()) };
    for fault in words.split(',').map(str::trim).filter(|w| !w.is_empty()) {
        if let Err(problem) = config.faults.add(fault) {
            return fail(INVALID_PARAM, format!("GLMBENCH_ASCEND_FAULT: {problem}"));
        }
    }
    Ok(())
}

/// Returns the machine, if there is one.
pub(crate) fn existing() -> Option<Arc<Machine>> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Implements aclInit.
pub(crate) fn initialise() -> Outcome {
    machine()?;
    if INITIALISED.swap(true, Ordering::AcqRel) {
        return fail(REPEAT_INITIALIZE, "aclInit was called before");
    }
    Ok(())
}

/// Implements aclFinalize.
pub(crate) fn finalise() -> Outcome {
    if !INITIALISED.swap(false, Ordering::AcqRel) {
        return fail(UNINITIALIZED, "aclInit was not called");
    }
    Ok(())
}

/// Fails if aclInit was not called.
pub(crate) fn require_initialised() -> Outcome {
    if INITIALISED.load(Ordering::Acquire) { Ok(()) } else { fail(UNINITIALIZED, "aclInit was not called") }
}

/// Restores the state of a freshly loaded library: all handles are dead and all workers have ended.
pub(crate) fn reset() {
    INITIALISED.store(false, Ordering::Release);
    let machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner).take();
    EPOCH.fetch_add(1, Ordering::AcqRel);
    for device in machine.iter().flat_map(|m| &m.devices) {
        let streams: Vec<_> = lock(&device.streams).drain(..).collect();
        streams.iter().chain(device.default_stream.get()).for_each(|stream| stream.stop());
    }
}

/// Makes a device the calling thread's current one.
pub(crate) fn set_current(id: i32) -> Outcome {
    require_initialised()?;
    let device = device(id)?;
    device.check_alive()?;
    device.references.fetch_add(1, Ordering::AcqRel);
    let current = Current { epoch: EPOCH.load(Ordering::Acquire), device };
    let _ = CURRENT.try_with(|slot| slot.borrow_mut().replace(current));
    Ok(())
}

/// Releases one reference to a device. After the last one, the device is no longer this thread's current one.
pub(crate) fn release(id: i32) -> Outcome {
    require_initialised()?;
    let device = device(id)?;
    let before = device.references.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
    if before.is_err() {
        return fail(RT_CONTEXT_NULL, format!("device {id} was not set"));
    }
    let _ = CURRENT.try_with(|slot| {
        let mut slot = slot.borrow_mut();
        if slot.as_ref().is_some_and(|c| c.device.id == id) && before == Ok(1) {
            *slot = None;
        }
    });
    Ok(())
}

/// Returns the device with this id.
pub(crate) fn device(id: i32) -> Outcome<Arc<Device>> {
    let machine = machine()?;
    let found = usize::try_from(id).ok().filter(|id| *id < visible_devices(&machine));
    match found.and_then(|id| machine.devices.get(id)) {
        Some(device) => Ok(Arc::clone(device)),
        None => fail(
            RT_INVALID_DEVICE,
            format!("deviceId is {id}, expected 0 to {}", visible_devices(&machine).saturating_sub(1)),
        ),
    }
}

/// Number of devices that `ASCEND_RT_VISIBLE_DEVICES` leaves visible. The list ends at the first space or the first
/// invalid id. Descending or repeated ids leave no device, because the runtime treats them as an error.
pub(crate) fn visible_devices(machine: &Machine) -> usize {
    let list = std::env::var("ASCEND_RT_VISIBLE_DEVICES").ok().filter(|list| !list.is_empty());
    list.map_or(machine.devices.len(), |list| listed(&list, machine.devices.len()))
}

fn listed(list: &str, devices: usize) -> usize {
    let list = list.split(' ').next().unwrap_or_default();
    let ids: Vec<usize> =
        list.split(',').map_while(|word| word.parse().ok().filter(|id| *id < devices)).collect();
    if ids.is_sorted_by(|a, b| a < b) { ids.len() } else { 0 }
}

/// Calls `body` with the thread's current device.
pub(crate) fn with_device<R>(body: impl FnOnce(&Arc<Device>) -> Outcome<R>) -> Outcome<R> {
    CURRENT
        .try_with(|slot| {
            let slot = slot.borrow();
            match slot.as_ref().filter(|c| c.epoch == EPOCH.load(Ordering::Relaxed)) {
                Some(current) if current.device.references.load(Ordering::Relaxed) > 0 => {
                    body(&current.device)
                }
                _ => {
                    require_initialised()?;
                    fail(RT_CONTEXT_NULL, "no device is set on this thread (aclrtSetDevice)")
                }
            }
        })
        .unwrap_or_else(|_| fail(RT_CONTEXT_NULL, "the thread is ending"))
}

impl Device {
    /// Returns whether this first stage was done before, and records it.
    pub(crate) fn is_again(&self, operator: &str, views: &dyn std::fmt::Debug) -> bool {
        !lock(&self.first_stages).insert(format!("{operator} {views:?}"))
    }

    fn new(id: i32, config: &Arc<Config>, faults: &Arc<FaultCounters>) -> Self {
        Self {
            id,
            config: Arc::clone(config),
            faults: Arc::clone(faults),
            host_ns: AtomicU64::new(0),
            cores_free_ns: Arc::new(AtomicU64::new(0)),
            memory: RwLock::new(BTreeMap::new()),
            used_bytes: AtomicU64::new(0),
            streams: Mutex::new(Vec::new()),
            events: AtomicU32::new(0),
            graphs: AtomicU32::new(0),
            work: Mutex::default(),
            first_stages: Mutex::default(),
            default_stream: OnceLock::new(),
            references: AtomicU32::new(0),
            lost: AtomicI32::new(0),
        }
    }

    /// Returns the duration of a piece of work in ns, and counts the work if that was asked for.
    pub(crate) fn charge(&self, work: Work) -> u64 {
        if self.config.record {
            let mut counts = lock(&self.work);
            match counts.iter_mut().rev().find(|(known, _)| *known == work) {
                Some((_, count)) => *count += 1,
                None => counts.push((work, 1)),
            }
        }
        self.config.profile.work_ns(&work)
    }

    /// Whether operators compute, rather than only advance the clock.
    pub(crate) fn computes(&self) -> bool {
        self.config.mode == Mode::Compute
    }

    /// Fails while a stream of the device is being captured: copies and memsets without a stream are then unsafe.
    pub(crate) fn require_no_capture(&self) -> Outcome {
        if lock(&self.streams).iter().any(|stream| stream.forbids_copies()) {
            return fail(RT_CAPTURE_MODE, "not permitted while a stream is being captured");
        }
        Ok(())
    }

    /// The stream that a null handle stands for.
    pub(crate) fn default_stream(&self) -> &Arc<Stream> {
        self.default_stream.get_or_init(|| Stream::start(self))
    }

    /// Fails if the device is lost.
    pub(crate) fn check_alive(&self) -> Outcome {
        if self.lost.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        fail(RT_LOST_HEARTBEAT, format!("device {} is lost (injected fault)", self.id))
    }

    /// Marks the device as lost for good.
    pub(crate) fn lose(&self) {
        self.lost.store(1, Ordering::Relaxed);
    }

    /// Advances the host's virtual time by `ns`, and returns the new time.
    pub(crate) fn spend_host(&self, ns: f64) -> u64 {
        let ns = ns as u64;
        self.host_ns.fetch_add(ns, Ordering::Relaxed) + ns
    }

    /// Advances the host's virtual time to at least `ns`.
    pub(crate) fn host_until(&self, ns: u64) {
        self.host_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// Finds the allocation that contains `bytes` bytes from `address`.
    pub(crate) fn find(&self, address: usize, bytes: usize) -> Option<Arc<Allocation>> {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        let (base, allocation) = memory.range(..=address).next_back()?;
        (address.checked_add(bytes)? <= base + allocation.bytes).then(|| Arc::clone(allocation))
    }

    /// Like [`Device::find`], but only says whether there is one.
    pub(crate) fn holds(&self, address: usize, bytes: usize) -> bool {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        let found = memory.range(..=address).next_back();
        found.is_some_and(|(base, allocation)| {
            address.checked_add(bytes).is_some_and(|end| end <= base + allocation.bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn visible_devices_are_read_as_the_runtime_reads_them() {
        let counts = ["0,1", "0, 1", "1,0", "1,1", "3", "x", "0,9,1", ""].map(|list| listed(list, 8));
        assert_eq!(counts, [2, 1, 0, 0, 1, 0, 1, 0]);
    }
}
