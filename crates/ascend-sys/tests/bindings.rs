//! The committed bindings are those of the header, and the header's signatures are those of an installed CANN.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ascend_sys::generate::{bindings, committed, has_libclang, header, signatures};

#[path = "../../../tests/it/skip.rs"]
mod skip;

#[test]
fn the_committed_bindings_are_those_of_the_header() {
    if !has_libclang() {
        skip::skipped("no libclang");
        return;
    }
    let made = bindings(&header()).unwrap();
    let kept = std::fs::read_to_string(committed()).unwrap();
    assert!(
        made == kept,
        "src/bindings.rs is not what include/acl_min.h gives: run scripts/regenerate_bindings.sh"
    );
}

/// Headers of an installation that declare what we call, where they are there.
fn installed() -> Option<(PathBuf, Vec<PathBuf>)> {
    let home = PathBuf::from(std::env::var_os("ASCEND_TOOLKIT_HOME")?);
    let include = home.join("include");
    let mut headers: Vec<PathBuf> =
        ["acl/acl.h", "aclnn/acl_meta.h", "hccl/hccl.h"].iter().map(|h| include.join(h)).collect();
    let operators = std::fs::read_dir(include.join("aclnnop")).into_iter().flatten();
    headers.extend(operators.filter_map(Result::ok).map(|entry| entry.path()));
    headers.push(include.join("dcmi/dcmi_interface_api.h"));
    let ours = signatures(&header(), &[]).unwrap_or_default();
    headers.retain(|h| h.extension().is_some_and(|e| e == "h") && declares_any(h, ours.keys()));
    Some((include, headers))
}

/// Whether a header names any of the functions, or is the one that includes the runtime's. Saves parsing hundreds.
fn declares_any<'a>(header: &Path, mut functions: impl Iterator<Item = &'a String>) -> bool {
    let text = std::fs::read_to_string(header).unwrap_or_default();
    header.ends_with("acl/acl.h") || functions.any(|name| text.contains(name.as_str()))
}

#[test]
fn our_signatures_are_those_of_the_installed_headers() {
    if !has_libclang() {
        skip::skipped("no libclang");
        return;
    }
    let Some((include, headers)) = installed().filter(|(_, headers)| !headers.is_empty()) else {
        skip::skipped("ASCEND_TOOLKIT_HOME names no installation of CANN");
        return;
    };
    let ours = signatures(&header(), &[]).unwrap();
    let clang: Vec<String> = ["-x", "c++", "-std=c++14"]
        .map(String::from)
        .into_iter()
        .chain([format!("-I{}", include.display())])
        .collect();
    let mut theirs = BTreeMap::new();
    for header in &headers {
        theirs.extend(signatures(header, &clang).unwrap_or_default());
    }
    let differences = differences(&ours, &theirs);
    let compared = ours.keys().filter(|name| theirs.contains_key(*name)).count();
    eprintln!("{compared} of {} functions compared", ours.len());
    assert!(compared > 0, "nothing of ours is declared under {}", include.display());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn differences(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    // Enumerations and opaque handles may have other names; what crosses the border is the same.
    let of = |(name, signature): (&String, &String)| {
        let other = theirs.get(name).filter(|other| plain(other) != plain(signature))?;
        Some(format!("{name}: ours ({signature}, theirs ({other}"))
    };
    ours.iter().filter_map(of).collect()
}

/// Returns a signature in the words of the ABI. Resolves typedefs of integers and of untyped pointers. Leaves out the
/// `const` of a pointer's target, which differs between versions of CANN.
fn plain(signature: &str) -> String {
    let synonyms = [
        ("::std::os::raw::", ""),
        ("aclnnStatus", "c_int"),
        ("aclError", "c_int"),
        ("HcclResult", "c_int"),
        ("aclrtStream", "*mut c_void"),
        ("aclrtEvent", "*mut c_void"),
        ("HcclComm", "*mut c_void"),
        ("*const ", "*mut "),
    ];
    synonyms.iter().fold(signature.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn a_changed_argument_is_seen() {
    if !has_libclang() {
        skip::skipped("no libclang");
        return;
    }
    let text = std::fs::read_to_string(header()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let changed = folder.path().join("changed.h");
    std::fs::write(
        &changed,
        text.replace("aclrtSetDevice(int32_t deviceId)", "aclrtSetDevice(int64_t deviceId)"),
    )
    .unwrap();
    let ours = signatures(&header(), &[]).unwrap();
    assert!(ours.len() > 70, "{} functions", ours.len());
    let found = differences(&ours, &signatures(Path::new(&changed), &[]).unwrap());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("aclrtSetDevice"), "{found:?}");
}
