//! The emulator embedded in this binary: the image of its library, given to the loader under a path.
//!
//! Each [`Image`] has its own path, and so creates a separate emulated machine. Settings of one do not affect the others.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use flate2::read::DeflateDecoder;

/// `libascend_emulator.so`, as the build script compiled and compressed it.
static PACKED: &[u8] = include_bytes!(env!("GLMBENCH_EMULATOR"));

/// Errors of placing the emulator.
#[derive(Debug, thiserror::Error)]
pub enum EmulatedError {
    /// A fault names something that the emulator does not have.
    #[error("fault {fault}: the emulator has no function {symbol}")]
    NoSuchSymbol {
        /// The text of the fault.
        fault: String,
        /// The function that it names.
        symbol: String,
    },
    /// The image cannot be placed where the loader can open it.
    #[error("the emulator's library cannot be put into memory or a temporary file: {problem}")]
    NoPlace {
        /// The last error.
        problem: io::Error,
    },
}

/// The emulator's library where the loader can open it, while this value lives. Opened libraries stay.
///
/// On Linux, the image is in memory that the process keeps until its end. Elsewhere it is a temporary file, removed with
/// the value.
pub struct Image {
    path: PathBuf,
    temporary: bool,
}

impl Image {
    /// Places the image. Settings are `key = value` lines, and only two kinds matter here. `fault = missing:SYMBOL`
    /// renames the symbol, so that the loader really does not find it. A fault that names an operator requires that the
    /// operator exists.
    ///
    /// # Errors
    /// Fails if a fault names something that the emulator does not have, or if the image cannot be placed.
    pub fn new(settings: &str) -> Result<Self, EmulatedError> {
        let image = unpacked().map_err(|problem| EmulatedError::NoPlace { problem })?;
        let image = with_faults(image, settings)?;
        let in_memory = in_memory(&image).map(|path| Self { path, temporary: false });
        let placed = in_memory.or_else(|_| Ok(Self { path: in_a_file(&image)?, temporary: true }));
        placed.map_err(|problem| EmulatedError::NoPlace { problem })
    }

    /// Returns the path to open.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.temporary {
            // If an open file cannot be removed, it is left to the cleanup of the temporary folder.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Returns the image.
fn unpacked() -> io::Result<Vec<u8>> {
    let mut image = Vec::new();
    DeflateDecoder::new(PACKED).read_to_end(&mut image)?;
    Ok(image)
}

/// Changes the names of missing symbols.
fn with_faults(mut image: Vec<u8>, settings: &str) -> Result<Vec<u8>, EmulatedError> {
    let lines = settings.lines().filter_map(|line| line.split_once('='));
    for fault in lines.filter(|(key, _)| key.trim() == "fault").map(|(_, fault)| fault.trim()) {
        let (symbol, missing) = match fault.split(':').collect::<Vec<_>>()[..] {
            ["missing", symbol] => (symbol.to_owned(), true),
            ["wrong" | "refused", operator, _] | ["single-use" | "broken" | "refused", operator] => {
                let whole = operator.starts_with("acl");
                (if whole { operator.to_owned() } else { format!("aclnn{operator}") }, false)
            }
            _ => continue,
        };
        let places = places(&image, &symbol);
        if symbol.is_empty() || places.is_empty() {
            return Err(EmulatedError::NoSuchSymbol { fault: fault.to_owned(), symbol });
        }
        for place in places.into_iter().filter(|_| missing) {
            image[place] = b'-';
        }
    }
    Ok(image)
}

/// Returns the offsets of a symbol name between zero bytes.
fn places(image: &[u8], symbol: &str) -> Vec<usize> {
    let name: Vec<u8> = [b"\0", symbol.as_bytes(), b"\0"].concat();
    image.windows(name.len()).enumerate().filter(|(_, w)| *w == name).map(|(i, _)| i + 1).collect()
}

#[cfg(target_os = "linux")]
fn in_memory(image: &[u8]) -> io::Result<PathBuf> {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: a name that ends in a zero byte.
    let fd = unsafe { libc::memfd_create(c"libascend_emulator.so".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor just made, which no other code knows.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    file.write_all(image)?;
    // The descriptor stays open: the loader identifies libraries by path, and a reused number would name another one.
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
        ascend_sys::Libraries::open(Image::new(settings).unwrap().path()).unwrap()
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
        for (fault, symbol) in [("missing:aclnnNothing", "aclnnNothing"), ("wrong:Nothing:1", "aclnnNothing")]
        {
            let error = Image::new(&format!("fault = {fault}")).err().unwrap().to_string();
            assert_eq!(error, format!("fault {fault}: the emulator has no function {symbol}"));
        }
        assert!(Image::new("fault = wrong:SwiGlu:1\nfault = wrong:aclnnMatmul:2").is_ok());
    }

    #[test]
    fn a_temporary_file_goes_once_it_was_opened() {
        let image = Image { path: in_a_file(&unpacked().unwrap()).unwrap(), temporary: true };
        let path = image.path().to_path_buf();
        let libraries = ascend_sys::Libraries::open(&path).unwrap();
        drop(image);
        assert!(!path.exists());
        assert!(libraries.nn.aclnnSwiGlu.is_ok());
    }
}
