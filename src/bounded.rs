//! Reading files and lines up to a size limit. An input may be an endless device, or a line of several gigabytes.

use std::io::{self, BufRead, Read};
use std::path::Path;

/// Reads a file, which may be a pipe.
///
/// # Errors
/// The system's errors, and [`io::ErrorKind::FileTooLarge`] if the file has more than `most` bytes.
pub fn file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        Err(too_large(&format!("found more than {most} bytes"), most))
    } else {
        Ok(bytes)
    }
}

/// Opens a file for reading, which must be a regular one: opening a pipe waits for its other end.
///
/// # Errors
/// The system's errors, and [`io::ErrorKind::InvalidInput`] for a pipe, a device or a folder.
pub fn open(path: &Path) -> io::Result<std::fs::File> {
    if !std::fs::metadata(path)?.is_file() {
        let message = "found a folder, a pipe or a device; expected a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    std::fs::File::open(path)
}

/// Reads a regular file, like [`file()`].
///
/// # Errors
/// Those of [`open`] and of [`file()`].
pub fn regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    open(path)?;
    file(path, most)
}

/// Reads a file as text, like [`file()`].
///
/// # Errors
/// Those of [`file()`], and [`io::ErrorKind::InvalidData`] with the line number if a byte is not UTF-8.
pub fn text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(file(path, most)?).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].split(|&b| b == b'\n').count();
        let message =
            format!("line {line}: found a byte that is not UTF-8 at offset {good}; expected UTF-8 text");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// Reads the next line, including its `\n`, into `line`. Returns its length, or 0 at the end of the input.
///
/// # Errors
/// The reader's errors, and [`io::ErrorKind::FileTooLarge`] if the line has more than `most` bytes.
pub fn line(from: &mut impl BufRead, line: &mut Vec<u8>, most: u64) -> io::Result<usize> {
    line.clear();
    let length = from.take(most.saturating_add(1)).read_until(b'\n', line)?;
    if length as u64 > most {
        Err(too_large(&format!("found a line of more than {most} bytes"), most))
    } else {
        Ok(length)
    }
}

fn too_large(found: &str, most: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("{found}; expected {most} at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(file(&path, 5).unwrap(), b"12345");
        let error = file(&path, 4).unwrap_err();
        assert_eq!(error.to_string(), "found more than 4 bytes; expected 4 at most");
        std::fs::write(&path, b"a\nb\xff").unwrap();
        assert!(text(&path, 9).unwrap_err().to_string().starts_with("line 2: found a byte"));
        if cfg!(target_os = "linux") {
            assert_eq!(file(Path::new("/dev/zero"), 1000).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        }
    }

    #[test]
    fn a_line_is_read_up_to_its_bound() {
        let mut input = &b"ab\nabc\n"[..];
        let mut kept = Vec::new();
        assert_eq!(line(&mut input, &mut kept, 3).unwrap(), 3);
        assert_eq!(kept, b"ab\n");
        assert_eq!(line(&mut input, &mut kept, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(line(&mut &b""[..], &mut kept, 3).unwrap(), 0);
    }
}
