//! Pointers that Git leaves where large files should be, when a repository was cloned without Git LFS.

/// What to say of one.
pub(crate) const POINTER: &str =
    "it is a Git LFS pointer, not the file itself; download the file it stands for (git lfs pull)";

/// Whether these first bytes are a pointer's.
pub(crate) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs")
}
