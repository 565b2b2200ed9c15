//! The functions of AscendCL, aclnn, HCCL and DCMI that glmbench calls: bindings made by bindgen from a header of our own
//! (`include/acl_min.h`), and the search for the libraries at run time.
//!
//! Nothing is linked. [`Libraries::find`] opens an installation of CANN, [`Libraries::open`] one library that has every
//! family (the emulator); both give the same structs, one per family, whose fields are the functions: a function that an
//! installation lacks is an error of the one that calls it. [`call!`] makes such a call.

#[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
#[allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
#[rustfmt::skip]
mod bindings;
#[cfg(feature = "regen")]
pub mod generate;
mod load;

pub use bindings::*;
pub use load::{Family, Found, Libraries, LoadError, SearchPath};

/// Calls a function of a family, e.g. `call!(libraries.rt.aclInit(ptr::null()))`, and gives
/// `Result<its result, name of the function that is missing>`.
///
/// # Safety
/// That of the function: expands to a call of a foreign function and must stand in an `unsafe` block.
#[macro_export]
macro_rules! call {
    ($family:expr, $function:ident ( $($argument:expr),* $(,)? )) => {
        match &($family).$function {
            Ok(function) => Ok(function($($argument),*)),
            Err(_) => Err(stringify!($function)),
        }
    };
}
