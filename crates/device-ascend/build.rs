//! Compiles the emulator, so that `--emulate` works from a single installed binary. `src/emulated.rs` embeds it.
//!
//! It is compiled by one direct call of rustc, so the emulator has no dependencies. It is compressed, which more than halves it. Its
//! symbols are not linked into the executable: there they would take precedence over the symbols that the real libraries look up.

#![allow(clippy::print_stdout, reason = "cargo reads what a build script prints")]

use std::env;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;

const SOURCES: &str = "../ascend-emulator/src";
const PROFILES: &str = "../ascend-emulator/profiles";

fn main() -> Result<(), Box<dyn Error>> {
    for watched in ["build.rs", SOURCES, PROFILES] {
        println!("cargo:rerun-if-changed={watched}");
    }
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let library = PathBuf::from(env::var("OUT_DIR")?).join("libascend_emulator.so");
    let mut rustc = Command::new(env::var("RUSTC")?);
    rustc
        .args(["--crate-name", "ascend_emulator", "--crate-type", "cdylib", "--edition", "2024"])
        .args(["-C", "opt-level=3", "-C", "strip=symbols", "--cap-lints", "allow"])
        .args(["--target", &env::var("TARGET")?])
        .arg("-o")
        .arg(&library)
        .arg(PathBuf::from(SOURCES).join("lib.rs"));
    if env::var("CARGO_CFG_TARGET_OS")? == "linux" {
        // The emulator is never unloaded, because its threads and thread-local data outlive any handle to it.
        rustc.args(["-C", "link-arg=-Wl,-z,nodelete"]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    let status = rustc.status()?;
    if !status.success() {
        return Err(format!("rustc could not compile {SOURCES}: {status}").into());
    }
    let packed = library.with_extension("so.deflate");
    let mut encoder = DeflateEncoder::new(fs::File::create(&packed)?, Compression::best());
    encoder.write_all(&fs::read(&library)?)?;
    encoder.finish()?;
    println!("cargo:rustc-env=GLMBENCH_EMULATOR={}", packed.display());
    Ok(())
}
