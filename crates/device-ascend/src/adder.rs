//! `x = x + y`: residuals, biases, masks.

use ascend_sys::ACL_MEMCPY_DEVICE_TO_DEVICE;

use glmbench_device::DeviceError;

use super::choice::Addition;
use super::core::{Core, Scratch};
use super::ops;
use super::second_stage::Key;
use super::tensor::{Element, View};

/// Adds `y`, broadcast along axes of extent 1, to the contiguous `x`, with the selected operator. With a key, the plan is
/// kept.
pub(super) fn add(core: &Core, key: Option<Key>, x: View, y: View) -> Result<(), DeviceError> {
    match (core.addition.get(), key) {
        (Addition::Add, Some(key)) => core.run_cached(key, |api| ops::add(api, x, y)),
        (Addition::Add, None) => core.run(ops::add(core.api(), x, y)),
        (Addition::AddRepeated, Some(key)) if x.same_shape(&y) => {
            core.run_cached(key, |api| ops::add(api, x, y))
        }
        (Addition::AddRepeated, _) => {
            let y =
                if x.same_shape(&y) { y } else { repeat(core, &mut core.sums.borrow_mut().repeated, x, y)? };
            core.run(ops::add(core.api(), x, y))
        }
        (Addition::AddRmsNorm, _) => by_norm(core, x, y),
    }
}

/// Copies `y`, expanded to the shape of `x`, to `memory`.
fn repeat(core: &Core, memory: &mut Scratch, x: View, y: View) -> Result<View, DeviceError> {
    let repeated = x.moved(memory.reserve(core, x.bytes())?);
    core.run(ops::copy(core.api(), repeated, y))?;
    Ok(repeated)
}

/// Adds with the operator that adds before it norms, and also returns the sum. Both inputs need one shape, so `y` is
/// expanded first.
fn by_norm(core: &Core, x: View, y: View) -> Result<(), DeviceError> {
    let memory = &mut *core.sums.borrow_mut();
    let (api, element, bytes) = (core.api(), core.element(), x.bytes());
    // A 310P norms rows of at least 32 bytes. The norm is discarded, so the row length does not matter.
    let numbers = bytes / core.dtype.bytes();
    let width = if x.width() * core.dtype.bytes() < 32 { numbers } else { x.width() };
    let rows = numbers / width;
    let repeated = repeat(core, &mut memory.repeated, x, y)?;
    let (sum, norm) = (memory.sum.reserve(core, bytes)?, memory.norm.reserve(core, bytes)?);
    let rstd = View::new(memory.rstd.reserve(core, rows * 4)?, Element::Fp32, &[rows, 1]);
    let flat = |start| View::new(start, element, &[rows, width]);
    // Any gamma does, because the norm is discarded: one row of an earlier norm.
    let gamma = View::new(norm, element, &[width]);
    let both = [flat(x.start()), flat(repeated.start())];
    core.run(ops::add_rms_norm(api, both, gamma, flat(norm), rstd, flat(sum)))?;
    // SAFETY: the same number of bytes on both sides.
    unsafe { core.stream.copy(x.start(), sum, bytes, ACL_MEMCPY_DEVICE_TO_DEVICE) }
}
