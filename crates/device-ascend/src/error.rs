//! Maps status codes to typed errors.

use glmbench_device::DeviceError;

/// Documented names of the codes that matter. Other codes are described by their family.
const NAMES: [(i32, &str); 37] = [
    (100_000, "invalid parameter"),
    (100_001, "not initialised"),
    (100_002, "initialised twice"),
    (107_000, "runtime: invalid parameter"),
    (107_001, "runtime: invalid device"),
    (107_002, "runtime: no context on this thread"),
    (107_003, "runtime: stream of another context"),
    (107_006, "runtime: event not recorded"),
    (107_019, "runtime: wait timed out"),
    (107_020, "runtime: task timed out"),
    (161_001, "operator: null parameter"),
    (161_002, "operator: invalid parameter"),
    (207_000, "runtime: not supported"),
    (207_001, "memory allocation failed"),
    (207_004, "no device"),
    (207_005, "no resource left"),
    (207_006, "no permission"),
    (207_007, "no event left"),
    (207_008, "no stream left"),
    (207_018, "device out of memory"),
    (361_001, "operator: runtime call failed"),
    (507_000, "runtime: internal error"),
    (507_008, "runtime: the chip's version cannot be read"),
    (507_010, "device lost heartbeat"),
    (507_014, "operator timed out"),
    (507_015, "operator raised an exception"),
    (507_033, "device cannot be set up"),
    (507_046, "runtime: the wait has not ended yet"),
    (507_053, "device memory is faulty"),
    (507_054, "device memory has an error of several bits"),
    (507_899, "driver: internal error"),
    (507_901, "driver: connection to the device is closed"),
    (561_000, "operator: inner error"),
    (561_002, "operator: tiling refused the shapes"),
    (561_003, "operator: no kernel for this chip"),
    (561_103, "operator: executor null or consumed"),
    (561_112, "operator: binary package not loaded"),
];

/// Names of HCCL's results, which are small numbers of their own.
const HCCL_NAMES: [(i32, &str); 7] = [
    (1, "hccl: invalid parameter"),
    (2, "hccl: null pointer"),
    (3, "hccl: out of memory"),
    (4, "hccl: internal error"),
    (5, "hccl: not supported"),
    (9, "hccl: timed out"),
    (15, "hccl: runtime call failed"),
];

/// Returns the name of a code.
pub(super) fn name(api: &str, code: i32) -> &'static str {
    let table: &[(i32, &str)] = if api.starts_with("Hccl") { &HCCL_NAMES } else { &NAMES };
    let by_family = match code / 1000 {
        161 | 361 | 561 => "operator error",
        507 => "device error",
        _ => "undocumented",
    };
    table.iter().find(|(known, _)| *known == code).map_or(by_family, |(_, name)| name)
}

/// Calls that run before a device is in use. If one fails, the device is unavailable, not lost.
const SET_UP: [&str; 3] = ["aclInit", "aclrtGetDeviceCount", "aclrtSetDevice"];

/// What to check if a device cannot be set up. The usual causes are containers without devices or without the driver's
/// mounts.
const SET_UP_HINT: &str = "look for /dev/davinciN, /dev/davinci_manager, /dev/devmm_svm and /dev/hisi_hdc. Look for the driver's folder \
     /usr/local/Ascend/driver, which a container must mount. This user must be in the group HwHiAiUser. `npu-smi info` \
     shows what the driver sees";

/// What a failed call means for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Memory ran out.
    OutOfMemory,
    /// The device is gone: any 507xxx once it is in use, or a collective that timed out.
    Lost,
    /// The device could not be set up: there is none that this process may use.
    Unavailable,
    /// Only this call failed.
    Failed,
}

/// Classifies a code.
pub(super) fn meaning(api: &str, code: i32) -> Meaning {
    match code {
        207_001 | 207_018 => Meaning::OutOfMemory,
        207_004 | 207_006 => Meaning::Unavailable,
        507_000..=507_999 if SET_UP.contains(&api) => Meaning::Unavailable,
        507_000..=507_999 => Meaning::Lost,
        // A rank that waited for another in vain cannot go on, and neither can the others.
        9 if api.starts_with("Hccl") => Meaning::Lost,
        _ => Meaning::Failed,
    }
}

/// Returns the typed error of a failed call that is not a loss. `message` is the library's.
pub(super) fn failed(device: &'static str, api: &str, code: i32, message: String) -> DeviceError {
    DeviceError::Failed { device, api: api.to_owned(), code, name: name(api, code).to_owned(), message }
}

/// Returns the typed error of a device that cannot be set up.
pub(super) fn unavailable(device: &'static str, api: &str, code: i32, message: &str) -> DeviceError {
    let problem = format!("{api} failed with {code} ({}): {message}; {SET_UP_HINT}", name(api, code));
    DeviceError::Unsupported { device, problem }
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
        for (api, code) in [("aclInit", 507_008), ("aclrtSetDevice", 507_033), ("aclrtSetDevice", 207_006)] {
            assert_eq!(meaning(api, code), Meaning::Unavailable, "{api}");
        }
        let told = unavailable("800i-a2", "aclrtSetDevice", 507_033, "no message").to_string();
        assert!(
            told.contains("507033 (device cannot be set up)") && told.contains("/dev/davinciN"),
            "{told}"
        );
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
