//! Checkpoints in, tensors out.
