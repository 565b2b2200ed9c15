//! The emulator inside this binary: its library's image, given to the loader under a path.
//!
//! Each call of [`library`] gives a path of its own, hence an emulated machine of its own: what one configures, the others do
//! not see.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// `libascend_emulator.so`, as the build script compiled it.
static IMAGE: &[u8] = include_bytes!(env!("GLMBENCH_EMULATOR"));

/// Why the emulator cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EmulatedError {
    /// A fault asks for a symbol to be missing that is not there anyway.
    #[error("fault missing:{symbol}: the emulator has no symbol of this name")]
    NoSuchSymbol {
        /// The symbol.
        symbol: String,
    },
    /// The image cannot be handed to the loader.
    #[error("the emulator's library cannot be put into memory or a temporary file: {problem}")]
    NoPlace {
        /// The last problem met.
        problem: io::Error,
    },
}

/// A path to open the emulator from. Settings are `key = value` lines; of them only `fault = missing:SYMBOL` counts here:
/// the symbol is renamed in the image, so that the loader really does not find it.
///
/// On Linux the path leads to memory that stays until the process ends; elsewhere to a temporary file.
pub fn library(settings: &str) -> Result<PathBuf, EmulatedError> {
    let image = without(IMAGE, &missing_symbols(settings))?;
    in_memory(&image).or_else(|_| in_a_file(&image)).map_err(|problem| EmulatedError::NoPlace { problem })
}

fn missing_symbols(settings: &str) -> Vec<&str> {
    let faults = settings.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "fault").then(|| value.trim())
    });
    faults.filter_map(|fault| fault.strip_prefix("missing:")).collect()
}

/// The image with these symbols' names changed, wherever they stand between zero bytes.
fn without(image: &[u8], symbols: &[&str]) -> Result<Vec<u8>, EmulatedError> {
    let mut image = image.to_vec();
    for symbol in symbols {
        let name: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
        let places: Vec<usize> =
            image.windows(name.len()).enumerate().filter(|(_, w)| *w == name).map(|(i, _)| i + 1).collect();
        if symbol.is_empty() || places.is_empty() {
            return Err(EmulatedError::NoSuchSymbol { symbol: (*symbol).to_owned() });
        }
        for place in places {
            image[place] = b'-';
        }
    }
    Ok(image)
}

#[cfg(target_os = "linux")]
fn in_memory(image: &[u8]) -> io::Result<PathBuf> {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: a name that ends in a zero byte.
    let fd = unsafe { libc::memfd_create(c"libascend_emulator.so".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, of which nobody else knows.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.write_all(image)?;
    // Stays open: the loader knows libraries by their path, and a number used again would name another one.
    Ok(PathBuf::from(format!("/proc/self/fd/{}", file.into_raw_fd())))
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_image: &[u8]) -> io::Result<PathBuf> {
    Err(io::ErrorKind::Unsupported.into())
}

fn in_a_file(image: &[u8]) -> io::Result<PathBuf> {
    static COPIES: AtomicU32 = AtomicU32::new(0);
    let copy = COPIES.fetch_add(1, Ordering::Relaxed);
    let name = format!("glmbench-emulator-{}-{copy}.so", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut file = std::fs::File::create_new(&path)?;
    file.write_all(image)?;
    Ok(path)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn open(settings: &str) -> ascend_sys::Libraries {
        ascend_sys::Libraries::open(&library(settings).unwrap()).unwrap()
    }

    #[test]
    fn every_call_gives_a_machine_of_its_own() {
        let (a, b) = (open(""), open("devices = 2"));
        let address =
            |libraries: &ascend_sys::Libraries| *libraries.nn.aclnnSwiGlu.as_ref().unwrap() as usize;
        assert_ne!(address(&a), address(&b));
        assert!(a.emu.is_some() && b.emu.is_some());
    }

    #[test]
    fn a_missing_symbol_is_really_missing_and_the_others_stay() {
        let libraries = open("mode = timing\nfault = missing:aclnnAddmm\n");
        assert!(libraries.nn.aclnnAddmm.is_err());
        assert!(libraries.nn.aclnnAddmmGetWorkspaceSize.is_ok() && libraries.nn.aclnnMatmul.is_ok());
        let error = library("fault = missing:aclnnNothing").unwrap_err();
        assert_eq!(error.to_string(), "fault missing:aclnnNothing: the emulator has no symbol of this name");
    }
}
