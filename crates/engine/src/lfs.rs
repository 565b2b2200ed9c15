//! Pointer files that Git leaves in place of large files if a repository is cloned without Git LFS.

/// The message for a pointer file.
pub(crate) const POINTER: &str =
    "it is a Git LFS pointer, not the file itself; download the file it stands for (git lfs pull)";

/// Whether a file that starts with `bytes` is a pointer.
pub(crate) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs")
}
