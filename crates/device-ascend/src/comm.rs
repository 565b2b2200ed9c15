//! Communicators. Each is created, used and destroyed on its rank's own thread.
//!
//! Every HCCL call requires that a device is set on the calling thread. On a card, `HcclCommInitAll` fails with 15 without
//! a device. So the first rank obtains a root (`HcclGetRootInfo`), and each rank joins it on its own thread
//! (`HcclCommInitRootInfo`).

use std::ptr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ascend_sys::{Ccl, HcclRootInfo, call};

use glmbench_device::DeviceError;

use super::api::{Api, acl};
use super::context::Context;
use super::trace;

/// How long ranks wait for one another: HCCL's default (`HCCL_CONNECT_TIMEOUT`).
const PATIENCE: Duration = Duration::from_mins(2);

/// A communicator of one rank.
pub(super) struct Comm {
    context: Arc<Context>,
    pub(super) handle: *mut std::ffi::c_void,
}

impl Drop for Comm {
    fn drop(&mut self) {
        if self.context.is_abandoned() {
            return;
        }
        if let Ok(ccl) = &self.context.api.libraries.ccl {
            // SAFETY: created by us, and this is the last use; the rank's device is still set on its thread.
            let _ = unsafe { call!(ccl, HcclCommDestroy(self.handle)) };
        }
    }
}

/// Returns the library of collectives.
///
/// # Errors
/// Fails if there is no such library.
pub(super) fn collectives(api: &Api, tp: usize) -> Result<&Ccl, DeviceError> {
    api.libraries.ccl.as_ref().map_err(|e| DeviceError::Unsupported {
        device: api.device,
        problem: format!("{tp} ranks need collectives: {e}"),
    })
}

/// The place where ranks wait until all have their devices. A rank that fails before it joins aborts the others; HCCL
/// itself would let them wait for two minutes.
#[derive(Default)]
pub(super) struct Rendezvous {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    arrived: usize,
    root: Option<Box<HcclRootInfo>>,
    aborted: Option<String>,
}

impl Rendezvous {
    /// Joins rank `rank` of `tp`, whose device is set on the calling thread by `context`.
    ///
    /// # Errors
    /// Fails if HCCL refuses, or if not all ranks arrive.
    pub(super) fn join(&self, context: &Arc<Context>, rank: usize, tp: usize) -> Result<Comm, DeviceError> {
        let api = &context.api;
        let ccl = collectives(api, tp)?;
        let root = self.root(api, ccl, rank, tp)?;
        let mut handle = ptr::null_mut();
        // SAFETY: the first rank's root goes in, a place for the handle.
        unsafe {
            acl!(api, ccl, HcclCommInitRootInfo(tp as u32, &raw const *root, rank as u32, &raw mut handle))
        }
        .inspect_err(|_| trace::argue("HcclCommInitRootInfo", &[&tp, &"the first rank's root", &rank]))?;
        Ok(Comm { context: context.clone(), handle })
    }

    /// Ends the wait of all ranks.
    pub(super) fn abort(&self, why: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.aborted.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    fn root(&self, api: &Api, ccl: &Ccl, rank: usize, tp: usize) -> Result<Box<HcclRootInfo>, DeviceError> {
        let mut root = Box::new(HcclRootInfo { internal: [0; _] });
        if rank == 0 {
            // SAFETY: a place for the name.
            unsafe { acl!(api, ccl, HcclGetRootInfo(&raw mut *root)) }?;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrived += 1;
        if rank == 0 {
            state.root = Some(root);
        }
        self.changed.notify_all();
        let waits =
            |state: &mut State| state.aborted.is_none() && (state.arrived < tp || state.root.is_none());
        let (state, _) =
            self.changed.wait_timeout_while(state, PATIENCE, waits).unwrap_or_else(PoisonError::into_inner);
        match (&state.aborted, &state.root) {
            (None, Some(root)) if state.arrived >= tp => Ok(root.clone()),
            (Some(why), _) => Err(DeviceError::Lost { device: api.device, message: why.clone() }),
            _ => Err(DeviceError::Unsupported {
                device: api.device,
                problem: format!(
                    "{} of {tp} ranks came to join within {} s",
                    state.arrived,
                    PATIENCE.as_secs()
                ),
            }),
        }
    }
}
