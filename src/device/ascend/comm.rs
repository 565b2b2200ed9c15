//! Communicators: each is made, used and ended on its rank's own thread.
//!
//! Every call of HCCL wants a device that is set on the calling thread; `HcclCommInitAll` for all ranks on one that has none fails with
//! 15 on a card. So the first rank asks for a name (`HcclGetRootInfo`), and each joins under it (`HcclCommInitRootInfo`), which is
//! documented for a thread a card.

use std::ptr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ascend_sys::{Ccl, HcclRootInfo, call};

use super::super::DeviceError;
use super::api::{Api, acl};

/// How long the ranks wait for one another: HCCL's own limit (`HCCL_CONNECT_TIMEOUT`) unless it is set.
const PATIENCE: Duration = Duration::from_mins(2);

/// A communicator of one rank.
pub(super) struct Comm {
    api: Arc<Api>,
    pub(super) handle: *mut std::ffi::c_void,
}

// SAFETY: a handle that is used by one thread at a time; the library knows it by value.
unsafe impl Send for Comm {}

impl Drop for Comm {
    fn drop(&mut self) {
        if let Ok(ccl) = &self.api.libraries.ccl {
            // SAFETY: created by us, and this is the last use; the rank's device is still set on its thread.
            let _ = unsafe { call!(ccl, HcclCommDestroy(self.handle)) };
        }
    }
}

/// The library of collectives.
///
/// # Errors
/// There is none.
pub(super) fn collectives(api: &Api, world: usize) -> Result<&Ccl, DeviceError> {
    api.libraries.ccl.as_ref().map_err(|e| DeviceError::Unsupported {
        device: api.device,
        problem: format!("{world} ranks need collectives: {e}"),
    })
}

/// Where ranks wait until all have their devices: a rank that fails before it joins calls the others off, for which HCCL would wait two
/// minutes.
#[derive(Default)]
pub(super) struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    arrived: usize,
    root: Option<Box<HcclRootInfo>>,
    called_off: Option<String>,
}

impl Meeting {
    /// Joins rank `rank` of `world`, whose device is set on the calling thread.
    ///
    /// # Errors
    /// HCCL refuses, or not all ranks come.
    pub(super) fn join(&self, api: &Arc<Api>, rank: usize, world: usize) -> Result<Comm, DeviceError> {
        let ccl = collectives(api, world)?;
        let root = self.meet(api, ccl, rank, world)?;
        let mut handle = ptr::null_mut();
        // SAFETY: what the first rank was given goes in, a place for the handle.
        unsafe {
            acl!(api, ccl, HcclCommInitRootInfo(world as u32, &raw const *root, rank as u32, &raw mut handle))
        }?;
        Ok(Comm { api: api.clone(), handle })
    }

    /// Nobody waits any longer.
    pub(super) fn call_off(&self, why: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.called_off.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    fn meet(
        &self,
        api: &Api,
        ccl: &Ccl,
        rank: usize,
        world: usize,
    ) -> Result<Box<HcclRootInfo>, DeviceError> {
        let mut root = Box::new(HcclRootInfo { internal: [0; _] });
        if rank == 0 {
            // SAFETY: a place for the name.
            let named = unsafe { acl!(api, ccl, HcclGetRootInfo(&raw mut *root)) };
            named.inspect_err(|error| self.call_off(&error.to_string()))?;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.arrived += 1;
        if rank == 0 {
            state.root = Some(root);
        }
        self.changed.notify_all();
        let waits =
            |state: &mut State| state.called_off.is_none() && (state.arrived < world || state.root.is_none());
        let (state, _) =
            self.changed.wait_timeout_while(state, PATIENCE, waits).unwrap_or_else(PoisonError::into_inner);
        match (&state.called_off, &state.root) {
            (None, Some(root)) if state.arrived >= world => Ok(root.clone()),
            (Some(why), _) => Err(DeviceError::Lost { device: api.device, message: why.clone() }),
            _ => Err(DeviceError::Lost {
                device: api.device,
                message: format!(
                    "{} of {world} ranks came to join within {} s",
                    state.arrived,
                    PATIENCE.as_secs()
                ),
            }),
        }
    }
}
