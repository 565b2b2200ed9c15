//! Framing of streams.
