//! Executors: the two stages of every operator.
//!
//! The first stage checks the arguments and stores views, kernel and cost. The second stage checks addresses, dates the
//! operator on the virtual clock and, in compute mode, submits it to the stream's worker.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::Arc;

use crate::clock::{Cost, Entry, Work};
use crate::faults::LaunchFault;
use crate::half::DType;
use crate::memory::Allocation;
use crate::ops::Kernel;
use crate::pool::{self, Slot, pooled};
use crate::registry::{Device, with_device};
use crate::settings::{Soc, Strict};
use crate::status::{
    Failure, NN_EXECUTOR, NN_FIND_KERNEL, NN_INNER, NN_PARAM_INVALID, NN_PARAM_NULLPTR, NN_RUNTIME,
    NN_TILING, Outcome, RT_AICORE_EXCEPTION, RT_AICORE_TIMEOUT, RT_CONTEXT_NULL, RT_UNSUPPORTED, entry, fail,
};
use crate::stream::{RawStream, Stream};
use crate::tensor::{Format, RawTensor, RawTensorList, Tensor, View, live, members};

/// How an operator uses a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Input,
    Output,
    Both,
    Absent,
}

/// One tensor argument.
#[derive(Debug, Clone, Copy)]
struct Arg {
    name: &'static str,
    role: Role,
    view: View,
    tensor: *const Slot<Tensor>,
    uses: u32,
}

/// Contents of an executor handle.
#[derive(Default)]
pub(crate) struct Executor {
    operator: &'static str,
    args: Vec<Arg>,
    order: &'static [usize],
    kernel: Kernel,
    cost: Cost,
    workspace: u64,
    repeatable: bool,
    cached: bool,
    device: i32,
}

impl Executor {
    /// Returns why the executor cannot be made repeatable, if so (opbase, `op_executor.cpp`).
    fn single_use(&self, device: &Device) -> Option<&'static str> {
        if self.kernel.writes_back() {
            // ScatterUpdate returns its own input (ops-nn, `aclnn_index_copy.cpp`).
            return Some("its plan copies a view onto itself");
        }
        if self.cached {
            return Some("its first stage was served from the cache");
        }
        device.config.faults.is_single_use(self.operator).then_some("injected fault")
    }
}

pooled!(Executor, b"exec", "executor", |executor| {
    executor.args.clear();
    executor.kernel = Kernel::default();
    executor.repeatable = false;
    executor.cached = false;
});

/// C handle of an executor.
pub(crate) type RawExecutor = *mut Slot<Executor>;

thread_local! {
    static SCRATCH: RefCell<Vec<Arg>> = const { RefCell::new(Vec::new()) };
}

/// Minimum workspace of every operator in bytes. CANN's kernels need a system workspace even if they compute in place.
const LEAST_WORKSPACE: u64 = 16_384;

/// Result of a first stage.
pub(crate) struct Planned {
    /// The computation.
    pub kernel: Kernel,
    /// Its cost.
    pub cost: Cost,
    /// Workspace in bytes, besides the tensors.
    pub workspace: u64,
}

/// State of a running first stage.
pub(crate) struct Plan<'a> {
    /// The device.
    pub device: &'a Device,
    operator: &'static str,
    args: Vec<Arg>,
    order: &'static [usize],
}

impl Plan<'_> {
    /// The chip.
    pub(crate) fn soc(&self) -> Soc {
        self.device.config.soc
    }

    /// Whether the chip is a 310P.
    pub(crate) fn is_310p(&self) -> bool {
        self.soc() == Soc::Ascend310P3
    }

    /// Whether the operators' pages apply to the letter.
    pub(crate) fn by_the_book(&self) -> bool {
        self.device.config.strict == Strict::Doc || self.device.config.faults.strict
    }

    fn push(&mut self, handle: RawTensor, name: &'static str, role: Role) -> Outcome<View> {
        // SAFETY: the caller of the exported function passed a tensor handle.
        let slot = unsafe { live(handle, name)? };
        let view = slot.value().view;
        let (_, end) = view.reach();
        if end > view.storage && view.format == Format::Nd {
            return fail(
                NN_PARAM_INVALID,
                format!(
                    "{name}: the view {:?} with strides {:?} reaches element {end}, the storage has {}",
                    view.dims(),
                    view.strides(),
                    view.storage
                ),
            );
        }
        self.args.push(Arg { name, role, view, tensor: slot, uses: slot.uses() });
        Ok(view)
    }

    /// Adds a tensor that is read.
    pub(crate) fn input(&mut self, handle: RawTensor, name: &'static str) -> Outcome<View> {
        self.push(handle, name, Role::Input)
    }

    /// Adds a tensor that is written.
    pub(crate) fn output(&mut self, handle: RawTensor, name: &'static str) -> Outcome<View> {
        self.push(handle, name, Role::Output)
    }

    /// Adds a tensor that is read and written.
    pub(crate) fn both(&mut self, handle: RawTensor, name: &'static str) -> Outcome<View> {
        self.push(handle, name, Role::Both)
    }

    /// Adds a tensor that may be null. It keeps its place among the kernel's views.
    pub(crate) fn optional(&mut self, handle: RawTensor, name: &'static str) -> Outcome<Option<View>> {
        if !handle.is_null() {
            return self.push(handle, name, Role::Input).map(Some);
        }
        self.args.push(Arg { name, role: Role::Absent, view: View::NONE, tensor: std::ptr::null(), uses: 0 });
        Ok(None)
    }

    /// Marks the first tensor's memory as holding blocks, now or after the launch.
    pub(crate) fn as_blocks(&mut self) {
        if let Some(arg) = self.args.first_mut() {
            arg.view.format = Format::Nz;
        }
    }

    /// Sets the view that the kernel has of the `index`-th tensor.
    pub(crate) fn reshape(&mut self, index: usize, view: &View) {
        if let Some(arg) = self.args.get_mut(index) {
            arg.view = *view;
        }
    }

    /// Sets the order in which the caller names the tensors, if the kernel uses another. `order[i]` is the position at
    /// which the caller names the `i`-th view of the kernel.
    pub(crate) fn order(&mut self, order: &'static [usize]) {
        self.order = order;
    }

    /// Adds the tensors of a list, all of them read.
    pub(crate) fn list(&mut self, handle: RawTensorList, name: &'static str) -> Outcome<Vec<View>> {
        members(handle, name)?
            .iter()
            .map(|member| self.push(*member as RawTensor, name, Role::Input))
            .collect()
    }

    /// Adds tensors that must be null, because the emulator does not support their features.
    pub(crate) fn absent(&mut self, tensors: &[(&'static str, RawTensor)]) -> Outcome {
        for (name, handle) in tensors {
            if !handle.is_null() {
                return fail(
                    NN_PARAM_INVALID,
                    format!("{name}: not supported by the emulator, expected null"),
                );
            }
            self.optional(*handle, name)?;
        }
        Ok(())
    }

    /// Fails with 161002 unless the condition holds.
    pub(crate) fn require(&self, holds: bool, message: impl FnOnce() -> String) -> Outcome {
        if holds { Ok(()) } else { fail(NN_PARAM_INVALID, message()) }
    }

    /// Fails with 561002 unless the tiling accepts.
    pub(crate) fn tiling(&self, holds: bool, message: impl FnOnce() -> String) -> Outcome {
        if holds { Ok(()) } else { fail(NN_TILING, format!("{} (on {})", message(), self.soc().name())) }
    }

    /// Fails with 561003 if the settings refuse this form of the arguments.
    pub(crate) fn form(&self, form: &str) -> Outcome {
        if self.device.config.faults.is_form_refused(self.operator, form) {
            return fail(NN_FIND_KERNEL, format!("no kernel for {form} (injected fault)"));
        }
        Ok(())
    }

    /// Fails with 561003, because the chip has no such kernel.
    pub(crate) fn no_kernel<T>(&self) -> Outcome<T> {
        fail(NN_FIND_KERNEL, format!("{} has no kernel of this operator", self.soc().name()))
    }

    /// Fails unless the tensor has one of the types and the chip supports it.
    pub(crate) fn dtype(&self, view: &View, name: &str, types: &[DType]) -> Outcome {
        let known = !(self.is_310p() && view.dtype == DType::Bf16);
        self.require(known && types.contains(&view.dtype), || {
            let words: Vec<&str> =
                types.iter().filter(|t| !(self.is_310p() && **t == DType::Bf16)).map(|t| t.name()).collect();
            format!(
                "{name}: data type {} is not supported on {}, expected {}",
                view.dtype.name(),
                self.soc().name(),
                words.join(" or ")
            )
        })
    }

    /// Fails unless the type is FLOAT16, FLOAT, or BFLOAT16 on a chip that supports it.
    pub(crate) fn float(&self, view: &View, name: &str) -> Outcome {
        self.dtype(view, name, &[DType::Float16, DType::Float, DType::Bf16])
    }

    /// Fails unless both tensors have the same type.
    pub(crate) fn same_dtype(&self, a: (&View, &str), b: (&View, &str)) -> Outcome {
        self.require(a.0.dtype == b.0.dtype, || {
            format!("{} has data type {}, {} has {}", b.1, b.0.dtype.name(), a.1, a.0.dtype.name())
        })
    }

    /// Fails unless the tensor has this shape.
    pub(crate) fn shape(&self, view: &View, name: &str, dims: &[i64]) -> Outcome {
        self.require(view.dims() == dims, || format!("{name} has shape {:?}, expected {dims:?}", view.dims()))
    }

    /// Checks a rule that the operators' pages have and their sources do not.
    pub(crate) fn page(&self, holds: bool, message: impl FnOnce() -> String) -> Outcome {
        self.require(holds || !self.by_the_book(), || format!("{} (as its page says)", message()))
    }

    /// Fails unless the tensor is contiguous.
    pub(crate) fn contiguous(&self, view: &View, name: &str) -> Outcome {
        self.require(view.is_contiguous(), || {
            format!("{name}: strides {:?} of shape {:?} are not contiguous", view.strides(), view.dims())
        })
    }
}

/// Runs a first stage.
pub(crate) fn plan(
    operator: &'static str,
    workspace_size: *mut u64,
    executor: *mut RawExecutor,
    body: impl FnOnce(&mut Plan<'_>) -> Outcome<Planned>,
) -> i32 {
    let outcome = with_device(|device| {
        if workspace_size.is_null() || executor.is_null() {
            return fail(NN_PARAM_NULLPTR, "workspaceSize or executor is null");
        }
        device.check_alive()?;
        let mut args = SCRATCH.try_with(|scratch| scratch.take()).unwrap_or_default();
        args.clear();
        let mut plan = Plan { device, operator, args, order: &[] };
        let mut planned = body(&mut plan)?;
        if device.config.faults.is_refused(operator) {
            return plan.no_kernel();
        }
        planned.workspace = planned.workspace.max(LEAST_WORKSPACE);
        device.spend_host(device.config.profile.host_plan_ns);
        let mut args = plan.args;
        let cached = device.config.executor_cache
            && device.is_again(operator, &args.iter().map(|arg| arg.view).collect::<Vec<_>>());
        let handle = pool::create::<Executor>(|executor| {
            executor.operator = plan.operator;
            std::mem::swap(&mut executor.args, &mut args);
            executor.order = plan.order;
            executor.kernel = planned.kernel;
            executor.cost = planned.cost;
            executor.workspace = planned.workspace;
            executor.cached = cached;
            executor.device = device.id;
        });
        let _ = SCRATCH.try_with(|scratch| scratch.replace(args));
        // SAFETY: not null; the caller's pointers.
        unsafe {
            workspace_size.write(planned.workspace);
            executor.write(handle);
        }
        Ok(())
    });
    finish(operator, "GetWorkspaceSize", outcome)
}

/// Turns an outcome into a status. For an operator, a thread without a device is a runtime failure.
fn finish(operator: &str, stage: &str, outcome: Outcome) -> i32 {
    match outcome {
        Ok(()) => 0,
        Err(failure) => {
            let inside = failure.code == RT_CONTEXT_NULL;
            let failure = if inside {
                Failure { code: NN_RUNTIME, message: format!("{} ({})", failure.message, failure.code) }
            } else {
                failure
            };
            entry(&format!("{operator}{stage}"), || Err(failure))
        }
    }
}

/// # Safety
/// As [`pool::get`].
unsafe fn executor_of<'a>(executor: RawExecutor) -> Outcome<&'a Slot<Executor>> {
    // SAFETY: the caller's promise.
    match unsafe { pool::get(executor) } {
        Ok(slot) => Ok(slot),
        Err(pool::Dead::Destroyed) => fail(
            NN_EXECUTOR,
            "the executor was consumed or destroyed before (set it repeatable to use it again)",
        ),
        Err(dead) => fail(NN_EXECUTOR, format!("executor {}", dead.words())),
    }
}

/// Runs a second stage.
pub(crate) fn launch(
    operator: &'static str,
    workspace: *mut c_void,
    workspace_size: u64,
    executor: RawExecutor,
    stream: RawStream,
) -> i32 {
    let outcome = with_device(|device| {
        device.check_alive()?;
        // SAFETY: the caller's pointers are handles (the stream may be null).
        let (slot, stream) = unsafe { (executor_of(executor)?, Stream::of(stream, device)?) };
        let planned = slot.value();
        let checked = planned.check(operator, device, workspace, workspace_size);
        let outcome = match checked {
            Err(failure) => Err(failure),
            Ok(()) if stream.is_captured() => planned.capture(device, &stream, workspace),
            Ok(()) => {
                let host_ns = device.spend_host(device.config.profile.host_launch_ns);
                planned.start(device, &stream, host_ns, true)
            }
        };
        if !planned.repeatable {
            slot.destroy();
        }
        outcome
    });
    finish(operator, "", outcome)
}

impl Executor {
    /// Position of the `index`-th tensor, in the caller's order, among those with one of the roles.
    fn place(&self, index: usize, roles: &[Role]) -> Option<usize> {
        let mut places: Vec<usize> = (0..self.args.len()).collect();
        if !self.order.is_empty() {
            places.sort_by_key(|place| self.order.get(*place));
        }
        places.into_iter().filter(|place| roles.contains(&self.args[*place].role)).nth(index)
    }

    fn check(&self, operator: &str, device: &Device, workspace: *mut c_void, workspace_size: u64) -> Outcome {
        if self.operator != operator {
            return fail(NN_PARAM_INVALID, format!("the executor was made for {}", self.operator));
        }
        if self.device != device.id {
            return fail(NN_PARAM_INVALID, format!("the executor was made on device {}", self.device));
        }
        if self.workspace > 0 {
            if workspace.is_null() || workspace_size < self.workspace {
                return fail(
                    NN_PARAM_INVALID,
                    format!(
                        "workspace is {workspace:p} with {workspace_size} bytes, expected {}",
                        self.workspace
                    ),
                );
            }
            if !device.holds(workspace as usize, self.workspace as usize) {
                return fail(NN_RUNTIME, "workspace: not inside live memory of the device".to_owned());
            }
        }
        self.args.iter().try_for_each(|arg| arg.check(device))
    }

    fn capture(&self, device: &Device, stream: &Stream, workspace: *mut c_void) -> Outcome {
        if let Kernel::ToBlocks = self.kernel {
            return fail(RT_UNSUPPORTED, format!("{}: not captured by the emulator", self.operator));
        }
        device.spend_host(device.config.profile.host_launch_ns);
        let executor = Self {
            operator: self.operator,
            args: self.args.clone(),
            kernel: self.kernel.clone(),
            cost: self.cost,
            workspace: self.workspace,
            device: self.device,
            ..Self::default()
        };
        stream.capture(Captured { executor, workspace: workspace as usize });
        Ok(())
    }

    /// Starts the operator, by itself (`single`) or as part of a graph.
    fn start(&self, device: &Device, stream: &Arc<Stream>, host_ns: u64, single: bool) -> Outcome {
        let fault = device.faults.launch(&device.config.faults, self.operator);
        match fault {
            LaunchFault::Lost => {
                device.lose();
                return device.check_alive();
            }
            LaunchFault::Timeout => {
                stream.break_down(
                    RT_AICORE_TIMEOUT,
                    format!("{} does not end (injected fault)", self.operator),
                );
            }
            LaunchFault::None | LaunchFault::Wrong => {}
        }
        if device.computes() && !matches!(self.kernel, Kernel::Nothing) {
            self.submit(device, stream, fault == LaunchFault::Wrong);
        }
        let duration_ns = device.charge(Work::Operator { cost: self.cost, single });
        stream.enter(host_ns, Entry::Work { duration_ns, cores: true });
        if let Kernel::ToBlocks = self.kernel
            && let Some(arg) = self.args.first()
        {
            // SAFETY: the tensor is alive (checked), and nobody else uses it during the call.
            unsafe { (*arg.tensor).update(|tensor| tensor.view.format = Format::Nz) };
        }
        Ok(())
    }

    fn submit(&self, device: &Device, stream: &Stream, corrupt: bool) {
        let views: Vec<View> = self.args.iter().map(|arg| arg.view).collect();
        let shares: Vec<Arc<Allocation>> =
            self.args.iter().filter_map(|arg| device.find(arg.address(), arg.bytes())).collect();
        let outputs: Vec<View> = self
            .args
            .iter()
            .filter(|arg| matches!(arg.role, Role::Output | Role::Both))
            .map(|arg| arg.view)
            .collect();
        let kernel = self.kernel.clone();
        let operator = self.operator;
        stream.submit(Box::new(move || {
            if shares.iter().any(|share| share.is_freed()) {
                return fail(
                    RT_AICORE_EXCEPTION,
                    format!("{operator}: memory was freed before the operator ran"),
                );
            }
            // SAFETY: every view lies inside an allocation whose share is held here.
            if let Err(problem) = unsafe { kernel.run(&views) } {
                return fail(RT_AICORE_EXCEPTION, format!("{operator}: {problem}"));
            }
            if corrupt && let Some(view) = outputs.first() {
                // SAFETY: as above.
                unsafe { crate::ops::corrupt(view) };
            }
            Ok(())
        }));
    }
}

/// An operator of a graph: a copy of its executor at the launch. The executor itself may be gone.
pub(crate) struct Captured {
    executor: Executor,
    workspace: usize,
}

// SAFETY: the pointers are handles of tensors, which are not followed again; all else is plain data.
unsafe impl Send for Captured {}

impl Captured {
    /// Runs the operator, issued by the host at `host_ns`. Its memory must still be alive.
    pub(crate) fn run(&self, device: &Device, stream: &Arc<Stream>, host_ns: u64) -> Outcome {
        let executor = &self.executor;
        if !device.holds(self.workspace, executor.workspace as usize) {
            return fail(RT_AICORE_EXCEPTION, format!("{}: the workspace was freed", executor.operator));
        }
        executor.args.iter().try_for_each(|arg| arg.check_memory(device))?;
        executor.start(device, stream, host_ns, false)
    }
}

impl Arg {
    fn address(&self) -> usize {
        self.view.at(0) as usize
    }

    fn bytes(&self) -> usize {
        let (first, end) = self.view.reach();
        (end - first) as usize * self.view.dtype.bytes()
    }

    fn check(&self, device: &Device) -> Outcome {
        if self.role == Role::Absent || self.view.is_empty() {
            return Ok(());
        }
        // SAFETY: the pointer was a handle in the first stage; slots stay.
        let alive = unsafe { pool::get(self.tensor) }.is_ok_and(|slot| slot.uses() == self.uses);
        if !alive {
            return fail(
                NN_PARAM_INVALID,
                format!("{}: the tensor was destroyed before the second stage", self.name),
            );
        }
        self.check_memory(device)
    }

    fn check_memory(&self, device: &Device) -> Outcome {
        if self.role == Role::Absent || self.view.is_empty() || device.holds(self.address(), self.bytes()) {
            return Ok(());
        }
        fail(
            NN_RUNTIME,
            format!(
                "{}: {} bytes at {:#x} are not inside live memory of device {}",
                self.name,
                self.bytes(),
                self.address(),
                device.id
            ),
        )
    }
}

/// Makes an executor usable for many second stages.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclSetAclOpExecutorRepeatable(executor: RawExecutor) -> i32 {
    entry("aclSetAclOpExecutorRepeatable", || {
        // SAFETY: the caller's pointer is an executor handle, used by this thread only.
        let slot = unsafe { executor_of(executor)? };
        with_device(|device| match slot.value().single_use(device) {
            Some(why) => {
                let operator = slot.value().operator;
                fail(NN_INNER, format!("{operator}: the executor cannot be set repeatable: {why}"))
            }
            None => Ok(()),
        })?;
        // SAFETY: as above.
        unsafe { slot.update(|executor| executor.repeatable = true) };
        Ok(())
    })
}

/// Destroys an executor that is repeatable or was never launched.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclDestroyAclOpExecutor(executor: RawExecutor) -> i32 {
    entry("aclDestroyAclOpExecutor", || {
        // SAFETY: the caller's pointer is an executor handle.
        unsafe { executor_of(executor)? }.destroy();
        Ok(())
    })
}

fn set_address(
    api: &str,
    executor: RawExecutor,
    index: usize,
    tensor: RawTensor,
    address: *mut c_void,
    roles: &[Role],
) -> i32 {
    entry(api, || {
        // SAFETY: the caller's pointer is an executor handle.
        let slot = unsafe { executor_of(executor)? };
        if tensor.is_null() {
            return fail(NN_EXECUTOR, "tensor is null");
        }
        // SAFETY: the caller's pointer is a tensor handle.
        let tensor = unsafe { live(tensor, "tensor")? };
        if !slot.value().repeatable {
            return fail(NN_PARAM_INVALID, "the executor is not repeatable");
        }
        if !(address as usize).is_multiple_of(32) {
            return fail(NN_PARAM_INVALID, format!("addr is {address:p}, expected a multiple of 32"));
        }
        // SAFETY: one thread uses an executor and its tensors at a time.
        unsafe {
            slot.update(|executor| {
                let Some(at) = executor.place(index, roles) else {
                    return fail(NN_PARAM_INVALID, format!("index {index} is out of range"));
                };
                let arg = &mut executor.args[at];
                if arg.role == Role::Absent {
                    return fail(NN_PARAM_INVALID, format!("{} was null in the first stage", arg.name));
                }
                arg.view.data = address as usize;
                Ok(())
            })?;
            tensor.update(|tensor| tensor.view.data = address as usize);
        }
        Ok(())
    })
}

/// Sets the address of the `index`-th input tensor. Absent tensors and list members count.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclSetInputTensorAddr(
    executor: RawExecutor,
    index: usize,
    tensor: RawTensor,
    address: *mut c_void,
) -> i32 {
    let roles = [Role::Input, Role::Both, Role::Absent];
    set_address("aclSetInputTensorAddr", executor, index, tensor, address, &roles)
}

/// Sets the address of the `index`-th output tensor.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclSetOutputTensorAddr(
    executor: RawExecutor,
    index: usize,
    tensor: RawTensor,
    address: *mut c_void,
) -> i32 {
    let roles = [Role::Output, Role::Both];
    set_address("aclSetOutputTensorAddr", executor, index, tensor, address, &roles)
}

/// Sets the address of the `index`-th tensor in the order of the arguments.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclSetTensorAddr(
    executor: RawExecutor,
    index: usize,
    tensor: RawTensor,
    address: *mut c_void,
) -> i32 {
    let roles = [Role::Input, Role::Output, Role::Both, Role::Absent];
    set_address("aclSetTensorAddr", executor, index, tensor, address, &roles)
}
