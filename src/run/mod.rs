//! Executes a plan: progress, journal, resume, provenance.

pub mod machine;
