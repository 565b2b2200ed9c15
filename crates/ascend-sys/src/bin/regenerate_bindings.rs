//! Regenerates `src/bindings.rs` from `include/acl_min.h`. Called by scripts/regenerate_bindings.sh.

use ascend_sys::generate::{bindings, committed, header};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::fs::write(committed(), bindings(&header())?)?;
    Ok(())
}
