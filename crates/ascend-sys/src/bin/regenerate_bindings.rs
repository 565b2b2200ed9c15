//! Writes `src/bindings.rs` anew from `include/acl_min.h`; called by scripts/regenerate_bindings.sh.

use ascend_sys::generate::{bindings, committed, header};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    std::fs::write(committed(), bindings(&header())?)?;
    Ok(())
}
