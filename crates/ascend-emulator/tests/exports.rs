//! The built library exports exactly the listed symbols.

use std::collections::BTreeSet;
use std::process::Command;

#[path = "../../../tests/it/skip.rs"]
mod skip;

/// Functions that callers look up by name.
const RUNTIME: &[&str] = &[
    "aclInit",
    "aclFinalize",
    "aclrtGetVersion",
    "aclrtGetSocName",
    "aclGetRecentErrMsg",
    "aclrtGetDeviceCount",
    "aclrtSetDevice",
    "aclrtResetDevice",
    "aclrtSynchronizeDevice",
    "aclrtCreateStream",
    "aclrtCreateStreamWithConfig",
    "aclrtDestroyStream",
    "aclrtSynchronizeStream",
    "aclrtSynchronizeStreamWithTimeout",
    "aclrtMalloc",
    "aclrtFree",
    "aclrtMallocHost",
    "aclrtFreeHost",
    "aclrtMemcpy",
    "aclrtMemcpyAsync",
    "aclrtMemset",
    "aclrtMemsetAsync",
    "aclrtMemcpy2dAsync",
    "aclrtGetMemInfo",
    "aclrtCreateEvent",
    "aclrtCreateEventWithFlag",
    "aclrtRecordEvent",
    "aclrtSynchronizeEvent",
    "aclrtSynchronizeEventWithTimeout",
    "aclrtStreamWaitEvent",
    "aclrtEventElapsedTime",
    "aclrtDestroyEvent",
    "aclrtGetDeviceUtilizationRate",
    "aclmdlRICaptureBegin",
    "aclmdlRICaptureEnd",
    "aclmdlRIExecuteAsync",
    "aclmdlRIDestroy",
    "aclCreateTensor",
    "aclDestroyTensor",
    "aclCreateScalar",
    "aclDestroyScalar",
    "aclCreateIntArray",
    "aclDestroyIntArray",
    "aclCreateTensorList",
    "aclDestroyTensorList",
    "aclnnInit",
    "aclnnFinalize",
    "aclDestroyAclOpExecutor",
    "aclSetAclOpExecutorRepeatable",
    "aclSetInputTensorAddr",
    "aclSetOutputTensorAddr",
    "aclSetTensorAddr",
    "aclnnCalculateMatmulWeightSizeV2",
    "HcclGetRootInfo",
    "HcclCommInitRootInfo",
    "HcclCommInitAll",
    "HcclCommDestroy",
    "HcclAllReduce",
    "HcclAllGather",
    "HcclReduceScatter",
    "HcclBroadcast",
    "HcclGetErrorString",
    "HcclGetCommAsyncError",
    "HcclGetRankSize",
    "HcclGetRankId",
    "dcmi_init",
    "dcmi_get_card_list",
    "dcmi_get_card_num_list",
    "dcmi_get_device_num_in_card",
    "dcmi_get_card_id_device_id_from_logicid",
    "dcmi_get_device_power_info",
    "dcmi_mcu_get_power_info",
    "dcmi_get_device_temperature",
    "dcmi_get_device_pcie_info_v2",
    "dcmi_get_device_utilization_rate",
    "dcmi_get_device_frequency",
    "dcmi_get_device_health",
    "dcmi_get_driver_version",
    "dcmi_get_device_hbm_info",
    "ascend_emulator_configure",
    "ascend_emulator_info",
    "ascend_emulator_now_ns",
    "ascend_emulator_host_work",
    "ascend_emulator_counts",
    "ascend_emulator_take_work",
    "ascend_emulator_price_work",
    "ascend_emulator_reset",
];

/// Supported operators.
const OPERATORS: &[&str] = &[
    "aclnnEmbedding",
    "aclnnGatherV2",
    "aclnnRmsNorm",
    "aclnnAddRmsNorm",
    "aclnnMatmul",
    "aclnnMm",
    "aclnnAddmm",
    "aclnnBatchMatMul",
    "aclnnTransMatmulWeight",
    "aclnnMatmulWeightNz",
    "aclnnAscendQuantV3",
    "aclnnQuantMatmulV4",
    "aclnnWeightQuantBatchMatmulV2",
    "aclnnInplaceAdd",
    "aclnnAdd",
    "aclnnMul",
    "aclnnMuls",
    "aclnnCast",
    "aclnnInplaceCopy",
    "aclnnPermute",
    "aclnnSlice",
    "aclnnSwiGlu",
    "aclnnSoftmax",
    "aclnnApplyRotaryPosEmb",
    "aclnnApplyRotaryPosEmbV2",
    "aclnnRotaryPositionEmbedding",
    "aclnnScatterPaKvCache",
    "aclnnInplaceIndexCopy",
    "aclnnPromptFlashAttentionV3",
    "aclnnIncreFlashAttentionV4",
    "aclnnFusedInferAttentionScoreV2",
    "aclnnArgMax",
];

fn expected() -> BTreeSet<String> {
    let stages = OPERATORS.iter().flat_map(|name| [(*name).to_owned(), format!("{name}GetWorkspaceSize")]);
    stages.chain(RUNTIME.iter().map(|name| (*name).to_owned())).collect()
}

#[test]
fn the_library_exports_exactly_the_list() {
    // Cargo builds the library next to this test.
    let library = std::env::current_exe().unwrap().with_file_name("libascend_emulator.so");
    let Ok(listed) = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output() else {
        skip::skipped("there is no nm here");
        return;
    };
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let text = String::from_utf8(listed.stdout).unwrap();
    let exported: BTreeSet<String> =
        text.lines().filter_map(|line| line.split(" T ").nth(1)).map(str::to_owned).collect();
    assert_eq!(exported, expected());
}
