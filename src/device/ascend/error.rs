//! Status codes into typed errors.

use super::super::DeviceError;

/// Documented names of the codes that matter; the families of the rest are known by their number.
const NAMES: [(i32, &str); 25] = [
    (100_000, "invalid parameter"),
    (100_001, "not initialised"),
    (100_002, "initialised twice"),
    (107_000, "runtime: invalid parameter"),
    (107_001, "runtime: invalid device"),
    (107_002, "runtime: no context on this thread"),
    (107_003, "runtime: stream of another context"),
    (107_006, "runtime: event not recorded"),
    (107_020, "runtime: synchronise timed out"),
    (161_001, "operator: null parameter"),
    (161_002, "operator: invalid parameter"),
    (207_000, "runtime: not supported"),
    (207_001, "memory allocation failed"),
    (207_007, "no event left"),
    (207_008, "no stream left"),
    (207_018, "device out of memory"),
    (361_001, "operator: runtime call failed"),
    (507_000, "runtime: internal error"),
    (507_010, "device lost heartbeat"),
    (507_014, "operator timed out"),
    (507_015, "operator raised an exception"),
    (561_002, "operator: tiling refused the shapes"),
    (561_003, "operator: no kernel for this chip"),
    (561_103, "operator: executor null or consumed"),
    (561_112, "operator: binary package not loaded"),
];

/// HCCL's results are small numbers of their own.
const HCCL_NAMES: [(i32, &str); 7] = [
    (1, "hccl: invalid parameter"),
    (2, "hccl: null pointer"),
    (3, "hccl: out of memory"),
    (4, "hccl: internal error"),
    (5, "hccl: not supported"),
    (9, "hccl: timed out"),
    (15, "hccl: runtime call failed"),
];

/// The code in words.
pub(super) fn name(api: &str, code: i32) -> &'static str {
    let table: &[(i32, &str)] = if api.starts_with("Hccl") { &HCCL_NAMES } else { &NAMES };
    let by_family = match code / 1000 {
        161 | 361 | 561 => "operator error",
        507 => "device error",
        _ => "undocumented",
    };
    table.iter().find(|(known, _)| *known == code).map_or(by_family, |(_, name)| name)
}

/// What a failed call means for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Memory ran out.
    OutOfMemory,
    /// The device is gone: 507xxx, and a collective that never came together.
    Lost,
    /// This call failed.
    Failed,
}

/// Sorts a code.
pub(super) fn meaning(api: &str, code: i32) -> Meaning {
    match code {
        207_001 | 207_018 => Meaning::OutOfMemory,
        507_000..=507_999 => Meaning::Lost,
        // A rank that waits for another in vain cannot go on, nor can the others.
        9 if api.starts_with("Hccl") => Meaning::Lost,
        _ => Meaning::Failed,
    }
}

/// The typed error of a failed call that is no loss; `message` is what the library says.
pub(super) fn failed(device: &'static str, api: &str, code: i32, message: String) -> DeviceError {
    DeviceError::Failed { device, api: api.to_owned(), code, name: name(api, code).to_owned(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_named() {
        assert_eq!(meaning("aclrtMalloc", 207_001), Meaning::OutOfMemory);
        assert_eq!(meaning("aclrtMalloc", 207_018), Meaning::OutOfMemory);
        assert_eq!(meaning("aclrtSynchronizeStream", 507_014), Meaning::Lost);
        assert_eq!(meaning("HcclAllReduce", 9), Meaning::Lost);
        assert_eq!(meaning("aclrtMemcpy", 9), Meaning::Failed);
        assert_eq!(name("aclnnMatmul", 561_003), "operator: no kernel for this chip");
        assert_eq!(name("aclnnMatmul", 561_999), "operator error");
        assert_eq!(name("HcclAllReduce", 4), "hccl: internal error");
        let told = failed("300i-duo", "aclnnMatmul", 161_002, "mat2 has 3 axes".into()).to_string();
        assert_eq!(
            told,
            "device 300i-duo: aclnnMatmul failed with 161002 (operator: invalid parameter): mat2 has 3 axes"
        );
    }
}
