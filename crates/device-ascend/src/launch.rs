//! Operators in two stages: the first checks and plans, the second runs on the stream.
//!
//! A plan with recurring arguments is kept: it is set repeatable right after its first stage, and then run any number of
//! times. Other plans are created for each launch. So are those that CANN refuses to set repeatable. These copy a view
//! onto itself, hold an AICPU kernel or a copy, or come from CANN's own cache. All plans share one growing workspace,
//! because work on a stream runs in order.

use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::ptr;

use ascend_sys::{aclOpExecutor, call};

use glmbench_device::DeviceError;

use super::api::{Api, acl};
use super::memory::{Buffer, Slab};
use super::runtime::Stream;
use super::second_stage::{Key, Launch, SecondStage};
use super::tensor::Held;

/// The result of a first stage, and everything that it refers to.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) run: SecondStage,
    pub(super) executor: *mut aclOpExecutor,
    pub(super) workspace: u64,
    pub(super) held: Vec<Held>,
}

impl Plan {
    /// Returns its second stage, ready to be called with `workspace`, which holds as many bytes as the plan asks for.
    pub(super) fn launch(&self, key: Key, workspace: *mut c_void) -> Launch {
        let Self { name, run, executor, workspace: bytes, .. } = *self;
        Launch { key, name, run, executor, workspace, bytes }
    }
}

/// Runs an operator's first stage: `plan!(api, aclnnX, aclnnXGetWorkspaceSize, (arguments), held)` returns `Result<Plan,
/// DeviceError>`. Must be in an `unsafe` block.
macro_rules! plan {
    ($api:expr, $second:ident, $first:ident, ($($argument:expr),* $(,)?), $held:expr) => {{
        let api: &$crate::api::Api = $api;
        let (mut workspace, mut executor) = (0u64, std::ptr::null_mut());
        let second = &api.libraries.nn.$second;
        let made = match second {
            Err(_) => Err(api.missing(stringify!($second))),
            Ok(_) => $crate::api::acl!(
                api,
                api.libraries.nn,
                $first($($argument,)* &raw mut workspace, &raw mut executor)
            ),
        };
        if api.trace.is_on() {
            let arguments = vec![$($crate::trace::Argument::text(&$argument, &api.trace)),*];
            api.trace.call(stringify!($second), arguments, made.as_ref().copied());
        }
        match (second, made) {
            (_, Err(error)) => Err(error),
            (Err(_), Ok(())) => Err(api.missing(stringify!($second))),
            (Ok(run), Ok(())) => Ok($crate::launch::Plan {
                name: stringify!($second),
                run: *run,
                executor,
                workspace,
                held: $held,
            }),
        }
    }};
}
pub(super) use plan;

/// Maximum number of kept plans. Beyond it, all are dropped and created again.
const MAX_KEPT: usize = 8192;

/// Runs plans on a stream.
pub(super) struct Launcher {
    kept: HashMap<Key, Plan>,
    /// Keys of the plans that cannot be kept.
    single_use: HashSet<Key>,
    workspace: Option<Buffer>,
    /// True if plans may be kept.
    pub(super) reuse: bool,
}

impl Launcher {
    pub(super) fn new() -> Self {
        Self { kept: HashMap::new(), single_use: HashSet::new(), workspace: None, reuse: true }
    }

    /// Runs a plan once.
    pub(super) fn run(
        &mut self,
        api: &Api,
        slab: &Slab,
        stream: &Stream,
        plan: Result<Plan, DeviceError>,
    ) -> Result<(), DeviceError> {
        let plan = plan?;
        if let Err(error) = self.reserve(slab, stream, plan.workspace) {
            // Without its workspace the plan cannot run. If it cannot be destroyed either, the library keeps it.
            let _ = given_back(api, plan);
            return Err(error);
        }
        stream.launch_once(self.launch((plan.name, [0; 4]), &plan))
    }

    /// Runs the plan of `key`, creating it with `make` if it is not kept yet.
    pub(super) fn run_cached(
        &mut self,
        api: &Api,
        slab: &Slab,
        stream: &Stream,
        key: Key,
        make: impl FnOnce() -> Result<Plan, DeviceError>,
    ) -> Result<(), DeviceError> {
        if !self.reuse || self.single_use.contains(&key) {
            return self.run(api, slab, stream, make());
        }
        if !self.kept.contains_key(&key) {
            if self.kept.len().max(self.single_use.len()) >= MAX_KEPT {
                stream.synchronize()?;
                stream.forget_graphs();
                self.forget(api);
            }
            let plan = make()?;
            if set_repeatable(api, &plan)?.is_err() {
                self.single_use.insert(key);
                return self.run(api, slab, stream, Ok(plan));
            }
            self.kept.insert(key, plan);
        }
        let wanted = self.kept.get(&key).map_or(0, |plan| plan.workspace);
        // The workspace may be missing: memory may have run out while it grew.
        self.reserve(slab, stream, wanted)?;
        let plan = self.kept.get(&key).expect("invariant: just seen or put there");
        stream.launch_kept(self.launch(key, plan))
    }

    fn launch(&self, key: Key, plan: &Plan) -> Launch {
        plan.launch(key, self.workspace.as_ref().map_or(ptr::null_mut(), |buffer| buffer.at(0)))
    }

    fn reserve(&mut self, slab: &Slab, stream: &Stream, bytes: u64) -> Result<(), DeviceError> {
        let have = self.workspace.as_ref().map_or(0, Buffer::len);
        if bytes as usize > have {
            // Queued work may still use the old workspace.
            stream.synchronize()?;
            stream.forget_graphs();
            self.workspace = None;
            self.workspace = Some(slab.take((bytes as usize).next_power_of_two(), "operators' workspace")?);
        }
        Ok(())
    }

    /// Drops all kept plans and the workspace. Queued work must have been waited for.
    pub(super) fn release(&mut self, api: &Api) {
        self.forget(api);
        self.workspace = None;
    }

    /// Drops all kept plans. Queued work must have been waited for.
    pub(super) fn forget(&mut self, api: &Api) {
        self.kept.drain().for_each(|(_, plan)| destroy(api, plan));
        self.single_use.clear();
    }
}

/// Codes of operators that fail internally. A refusal to set an executor repeatable has one of them.
const INNER: std::ops::Range<i32> = 561_000..562_000;

/// Makes a plan repeatable, or returns the reason for the refusal. Other failures are errors.
pub(super) fn set_repeatable(api: &Api, plan: &Plan) -> Result<Result<(), String>, DeviceError> {
    // SAFETY: the executor comes from its first stage and has not run.
    match unsafe { acl!(api, api.libraries.nn, aclSetAclOpExecutorRepeatable(plan.executor)) } {
        Ok(()) => Ok(Ok(())),
        Err(error @ DeviceError::Failed { code, .. }) if INNER.contains(&code) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// Destroys a plan that never ran. If that is impossible, returns the plan and the reason.
pub(super) fn given_back(api: &Api, plan: Plan) -> Result<Result<(), (Plan, String)>, DeviceError> {
    if api.libraries.nn.aclSetAclOpExecutorRepeatable.is_err() {
        return Ok(Err((plan, "aclSetAclOpExecutorRepeatable is missing".to_owned())));
    }
    match set_repeatable(api, &plan)? {
        Ok(()) => {
            destroy(api, plan);
            Ok(Ok(()))
        }
        Err(why) => Ok(Err((plan, why))),
    }
}

/// Destroys the executor of a repeatable plan.
pub(super) fn destroy(api: &Api, plan: Plan) {
    // SAFETY: made repeatable, so it is ours to destroy; nothing runs it any more.
    let _ = unsafe { call!(api.libraries.nn, aclDestroyAclOpExecutor(plan.executor)) };
    drop(plan.held);
}
