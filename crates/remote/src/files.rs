//! Reading files of certificates and keys.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::RemoteError;

/// Reads a file of at most `limit` bytes. `what` names it in messages.
pub(crate) fn read_bounded(path: &Path, limit: u64, what: &str) -> Result<Vec<u8>, RemoteError> {
    let fail = |e: &dyn std::fmt::Display| {
        RemoteError::Option(format!("cannot read the {what} file {}: {e}", path.display()))
    };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(|e| fail(&e))?;
    if bytes.len() as u64 > limit {
        return Err(fail(&format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}
