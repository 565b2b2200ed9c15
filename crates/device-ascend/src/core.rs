//! What every operator of a rank needs: its thread's context, memory, the stream, kept plans.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::sync::Arc;

use ascend_sys::{ACL_BF16, ACL_FLOAT16, aclDataType};

use glmbench_device::{DType, DeviceError};

use super::api::Api;
use super::choice::{Addition, Choices, Graph, Reuse};
use super::context::Context;
use super::launch::{Launcher, Plan};
use super::memory::{Buffer, Inbox, Slab};
use super::runtime::Stream;
use super::second_stage::Key;
use super::tensor::Element;

/// The shared state of one rank. Fields are dropped in order: plans before memory, memory before the context.
pub(super) struct Core {
    launcher: RefCell<Launcher>,
    /// The addition operator.
    pub(super) addition: Cell<Addition>,
    /// Working memory of additions.
    pub(super) sums: RefCell<SumMemory>,
    /// The buffer of widened rows.
    pub(super) wide: RefCell<Option<Wide>>,
    /// The buffer of quantised rows.
    pub(super) quantised: RefCell<Option<Buffer>>,
    pub(super) stream: Stream,
    pub(super) slab: Slab,
    pub(super) context: Arc<Context>,
    pub(super) dtype: DType,
    /// True if results are not computed, so weights need not be copied.
    pub(super) timing_only: bool,
}

impl Core {
    pub(super) fn new(context: Arc<Context>, dtype: DType, timing_only: bool) -> Result<Self, DeviceError> {
        Ok(Self {
            launcher: RefCell::new(Launcher::new()),
            addition: Cell::new(Addition::Add),
            sums: RefCell::default(),
            wide: RefCell::default(),
            quantised: RefCell::default(),
            stream: Stream::new(&context)?,
            slab: Slab::new(&context),
            context,
            dtype,
            timing_only,
        })
    }

    pub(super) fn api(&self) -> &Api {
        &self.context.api
    }

    /// The type of activations, weights and cache.
    pub(super) fn element(&self) -> Element {
        Element::Model(self.dtype)
    }

    /// Returns the code of that type.
    pub(super) fn code(&self) -> aclDataType {
        if self.dtype == DType::Bf16 { ACL_BF16 } else { ACL_FLOAT16 }
    }

    /// Runs the plan with the key `key`, creating it with `make` if there is none.
    pub(super) fn run_cached(
        &self,
        key: Key,
        make: impl FnOnce(&Api) -> Result<Plan, DeviceError>,
    ) -> Result<(), DeviceError> {
        let api = self.api();
        let run = self.launcher.borrow_mut().run_cached(api, &self.slab, &self.stream, key, || make(api));
        self.settled(run)
    }

    /// Runs a plan once.
    pub(super) fn run(&self, plan: Result<Plan, DeviceError>) -> Result<(), DeviceError> {
        let run = self.launcher.borrow_mut().run(self.api(), &self.slab, &self.stream, plan);
        self.settled(run)
    }

    /// Waits for queued work if a call was refused: the caller gives up, and releases memory that earlier calls use. If that work
    /// lost the device, this is the error.
    fn settled(&self, call: Result<(), DeviceError>) -> Result<(), DeviceError> {
        match call {
            Err(refused) if !matches!(refused, DeviceError::Lost { .. }) => match self.stream.quiesce() {
                Err(lost @ DeviceError::Lost { .. }) => Err(lost),
                _ => Err(refused),
            },
            // Nothing runs on a lost device, and the other ranks must hear of it first.
            other => other,
        }
    }

    /// Applies the choices that concern all operators.
    pub(super) fn choose(&self, choices: Choices) {
        self.launcher.borrow_mut().reuse = choices.reuse == Reuse::Kept;
        self.stream.set_graphs(choices.graph == Graph::Segments);
        self.addition.set(choices.add);
        self.sums.take();
    }

    /// Waits for queued work, and releases plans and working memory. The next small allocation begins a new chunk. So the
    /// memory taken does not depend on earlier allocations.
    pub(super) fn release_cached(&self) -> Result<(), DeviceError> {
        self.stream.synchronize()?;
        self.stream.forget_graphs();
        self.launcher.borrow_mut().release(self.api());
        self.wide.take();
        self.quantised.take();
        self.slab.close();
        Ok(())
    }

    /// Sends words to the device, unless it already has them.
    pub(super) fn send_words(&self, to: &mut Words) -> Result<(), DeviceError> {
        if to.sent != to.words {
            // If sending fails, the device has neither the old nor the new words.
            to.sent.clear();
            to.inbox.send_words(&self.slab, &self.stream, &to.words)?;
            to.sent.clone_from(&to.words);
        }
        Ok(())
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = self.stream.quiesce();
        if !self.context.is_abandoned() {
            self.stream.forget_graphs();
            self.launcher.borrow_mut().forget(&self.context.api);
        }
    }
}

/// Words that change between steps but not between the layers of one step. They are sent only when they change.
pub(super) struct Words {
    /// Filled by the caller.
    pub(super) words: Vec<i32>,
    sent: Vec<i32>,
    pub(super) inbox: Inbox,
}

impl Words {
    pub(super) fn new(what: &'static str) -> Self {
        Self { words: Vec::new(), sent: Vec::new(), inbox: Inbox::new(what) }
    }
}

/// Reusable working memory of an operator. It grows on demand.
#[derive(Default)]
pub(super) struct Scratch(Option<Buffer>);

impl Scratch {
    /// Returns at least `bytes` bytes. They are zero if nothing was written since the memory grew.
    pub(super) fn reserve(&mut self, core: &Core, bytes: usize) -> Result<*mut c_void, DeviceError> {
        if self.0.as_ref().is_none_or(|buffer| buffer.len() < bytes) {
            // Queued work may still use the old buffer.
            core.stream.synchronize()?;
            self.0 = None;
            let buffer = core.slab.take(bytes.next_power_of_two(), "an operator's working memory")?;
            buffer.clear()?;
            self.0 = Some(buffer);
        }
        Ok(self.0.as_ref().expect("invariant: just taken").at(0))
    }
}

/// Working memory of additions that need more than one operator.
#[derive(Default)]
pub(super) struct SumMemory {
    pub(super) sum: Scratch,
    pub(super) norm: Scratch,
    pub(super) rstd: Scratch,
    pub(super) repeated: Scratch,
}

/// A buffer `[rows, k + extra]` of input rows with a one behind them. The ones and zeros are already written.
pub(super) struct Wide {
    pub(super) buffer: Buffer,
    pub(super) rows: usize,
    pub(super) k: usize,
}
