//! What several themes need.

use std::path::PathBuf;

/// A path in the material beside the checkout; `None`, with a word on stderr, where it is not there.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: ../shared/{path} is not beside the checkout");
    None
}
