//! Generates `bindings.rs` from the header: one struct per library family, with the functions found at run time as
//! fields.

use std::path::{Path, PathBuf};

use bindgen::{Builder, CodegenConfig, EnumVariation};

/// Name of each struct and the pattern of its functions.
const FAMILIES: [(&str, &str); 5] = [
    ("Rt", "aclInit|aclFinalize|aclrt.*|aclmdlRI.*|aclGetRecentErrMsg"),
    ("Nn", "aclnn.*|aclCreate.*|aclDestroy.*|aclSet.*"),
    ("Ccl", "Hccl.*"),
    ("Dcmi", "dcmi_.*"),
    ("Emu", "ascend_emulator_.*"),
];

const HEAD: &str = "\
// Made from include/acl_min.h by scripts/regenerate_bindings.sh. Do not edit.

";

/// Returns the path of the header in this crate.
pub fn header() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include/acl_min.h")
}

/// Returns the path of the committed bindings.
pub fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bindings.rs")
}

/// Returns the text of `bindings.rs` for `header`.
///
/// # Errors
/// Errors of bindgen: libclang is missing, or the header does not parse.
pub fn bindings(header: &Path) -> Result<String, String> {
    let types = builder(header)
        .with_codegen_config(CodegenConfig::TYPES | CodegenConfig::VARS)
        .allowlist_type("acl.*|Hccl.*|dcmi_.*")
        .layout_tests(true);
    let mut text = HEAD.to_owned() + &generate(types)?;
    for (name, functions) in FAMILIES {
        let family = builder(header)
            .with_codegen_config(CodegenConfig::FUNCTIONS)
            .allowlist_function(functions)
            .allowlist_recursively(false)
            .dynamic_library_name(name)
            .dynamic_link_require_all(false);
        text.push('\n');
        text += &generate(family)?;
    }
    Ok(text)
}

fn builder(header: &Path) -> Builder {
    bindgen::builder()
        .header(header.display().to_string())
        .disable_header_comment()
        .generate_comments(false)
        .default_enum_style(EnumVariation::Consts)
        .prepend_enum_name(false)
        .size_t_is_usize(true)
        .wrap_unsafe_ops(true)
        .sort_semantically(false)
        .formatter(bindgen::Formatter::Prettyplease)
}

fn generate(builder: Builder) -> Result<String, String> {
    builder.generate().map(|b| b.to_string()).map_err(|e| e.to_string())
}

/// Returns every function of a header as `name(argument types) -> result`, for comparison with another header. `extra`
/// are arguments for clang: include folders, language.
///
/// # Errors
/// Errors of bindgen.
pub fn signatures(
    header: &Path,
    extra: &[String],
) -> Result<std::collections::BTreeMap<String, String>, String> {
    let text = generate(
        builder(header)
            .clang_args(extra)
            .with_codegen_config(CodegenConfig::FUNCTIONS)
            .allowlist_function("acl.*|Hccl.*|dcmi_.*")
            .allowlist_recursively(false),
    )?;
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut found = std::collections::BTreeMap::new();
    for part in flat.split("pub fn ").skip(1) {
        let Some((declaration, _)) = part.split_once(';') else { continue };
        let Some((name, rest)) = declaration.split_once('(') else { continue };
        found.insert(name.to_owned(), without_names(rest));
    }
    Ok(found)
}

/// Removes the argument names from `a: *const aclTensor, b: i64,) -> i32`, as they are not part of the interface.
fn without_names(arguments: &str) -> String {
    arguments
        .split(',')
        .map(|argument| argument.split_once(": ").map_or(argument, |(_, kind)| kind).trim().to_owned())
        .collect::<Vec<_>>()
        .join(", ")
        .replace(", )", ")")
}

/// Returns whether libclang can be loaded. Without it, bindgen panics.
pub fn has_libclang() -> bool {
    std::panic::catch_unwind(bindgen::clang_version).is_ok()
}
