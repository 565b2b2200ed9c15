//! Tolerant JSON.
