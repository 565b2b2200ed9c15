//! The work that an emulated chip counts, and its price by a chip profile.
//!
//! The emulator counts what its clock prices: operators, collectives and copies, by shape. The same work priced by another
//! profile gives the time of the other chip. This holds as long as the host issues launches faster than the chip runs them.

use std::ffi::CString;
use std::sync::Arc;

use ascend_sys::{Libraries, call};

use glmbench_device::DeviceError;

use super::api::Api;
use super::emulated::Image;

/// Numbers of one kind of work, its count last.
const NUMBERS: usize = 8;
/// Most kinds of work that one step has. A layer has about twelve kinds, and layers repeat them.
const MOST: usize = 4096;

/// Work of one chip: the kinds that the emulator counts, each with its count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Work(Vec<[f64; NUMBERS]>);

impl Work {
    /// Returns the numbers of each kind, in the emulator's form.
    pub fn kinds(&self) -> &[[f64; NUMBERS]] {
        &self.0
    }

    /// Returns this work and `other`, each taken `share` times.
    #[must_use]
    pub fn with(mut self, other: &Self, share: f64) -> Self {
        self.0.extend(other.0.iter().map(|kind| {
            let mut kind = *kind;
            kind[NUMBERS - 1] *= share;
            kind
        }));
        self
    }
}

/// Counts the work of rank 0 of an emulated group.
pub struct WorkCounter {
    pub(super) api: Arc<Api>,
}

impl WorkCounter {
    /// Takes the work since the last call. The emulation needs the line `record = on`.
    pub fn take(&self) -> Work {
        let mut kinds = vec![[0.0; NUMBERS]; MOST];
        let Some(emulator) = &self.api.libraries.emu else { return Work::default() };
        // SAFETY: as many places as said.
        let found =
            unsafe { call!(emulator, ascend_emulator_take_work(kinds.as_mut_ptr().cast(), MOST as u64)) };
        kinds.truncate(found.map_or(0, |n| usize::try_from(n).unwrap_or(0)));
        Work(kinds)
    }
}

/// Prices work by chip profiles.
pub struct Pricer {
    libraries: Libraries,
}

impl Pricer {
    /// Opens the emulator, which prices the work by its formula.
    ///
    /// # Errors
    /// The emulator's library cannot be placed or opened.
    pub fn new() -> Result<Self, DeviceError> {
        let unsupported = |problem: String| DeviceError::Unsupported { device: "emulator", problem };
        let image = Image::new("").map_err(|e| unsupported(e.to_string()))?;
        let libraries = Libraries::open(image.path()).map_err(|e| unsupported(e.to_string()))?;
        Ok(Self { libraries })
    }

    /// Returns the sum of the durations of `work` in ns by the profile in `settings`
    /// ([`Profile::settings_lines`](super::profile::Profile::settings_lines)).
    ///
    /// # Errors
    /// The emulator refuses the settings.
    pub fn price(&self, settings: &str, work: &Work) -> Result<f64, DeviceError> {
        let wrong = |problem: &str| DeviceError::Setting { device: "emulator", problem: problem.to_owned() };
        let settings = CString::new(settings).map_err(|_| wrong("the profile holds a zero byte"))?;
        let emulator = self.libraries.emu.as_ref().ok_or_else(|| wrong("the emulator is not there"))?;
        let (kinds, mut ns) = (&work.0, 0.0);
        // SAFETY: a string that ends in a zero byte, as many numbers as said, and a place for the result.
        let code = unsafe {
            let (kinds, n) = (kinds.as_ptr().cast(), kinds.len() as u64);
            call!(emulator, ascend_emulator_price_work(settings.as_ptr(), kinds, n, &raw mut ns))
        };
        if code == Ok(0) { Ok(ns) } else { Err(wrong("the emulator refuses the profile's figures")) }
    }
}
