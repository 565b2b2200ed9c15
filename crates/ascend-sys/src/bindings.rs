// Made from include/acl_min.h by scripts/regenerate_bindings.sh. Do not edit.

pub type aclError = ::std::os::raw::c_int;
pub type aclrtStream = *mut ::std::os::raw::c_void;
pub type aclrtEvent = *mut ::std::os::raw::c_void;
pub const ACL_MEMCPY_HOST_TO_HOST: aclrtMemcpyKind = 0;
pub const ACL_MEMCPY_HOST_TO_DEVICE: aclrtMemcpyKind = 1;
pub const ACL_MEMCPY_DEVICE_TO_HOST: aclrtMemcpyKind = 2;
pub const ACL_MEMCPY_DEVICE_TO_DEVICE: aclrtMemcpyKind = 3;
pub type aclrtMemcpyKind = ::std::os::raw::c_uint;
pub const ACL_MEM_MALLOC_HUGE_FIRST: aclrtMemMallocPolicy = 0;
pub const ACL_MEM_MALLOC_HUGE_ONLY: aclrtMemMallocPolicy = 1;
pub const ACL_MEM_MALLOC_NORMAL_ONLY: aclrtMemMallocPolicy = 2;
pub type aclrtMemMallocPolicy = ::std::os::raw::c_uint;
pub type aclmdlRI = *mut ::std::os::raw::c_void;
pub const ACL_MODEL_RI_CAPTURE_MODE_GLOBAL: aclmdlRICaptureMode = 0;
pub const ACL_MODEL_RI_CAPTURE_MODE_THREAD_LOCAL: aclmdlRICaptureMode = 1;
pub const ACL_MODEL_RI_CAPTURE_MODE_RELAXED: aclmdlRICaptureMode = 2;
pub type aclmdlRICaptureMode = ::std::os::raw::c_uint;
pub const ACL_DDR_MEM: aclrtMemAttr = 0;
pub const ACL_HBM_MEM: aclrtMemAttr = 1;
pub type aclrtMemAttr = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct aclrtUtilizationInfo {
    pub cubeUtilization: i32,
    pub vectorUtilization: i32,
    pub aicpuUtilization: i32,
    pub memoryUtilization: i32,
    pub utilizationExtend: *mut ::std::os::raw::c_void,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of aclrtUtilizationInfo",
    ][::std::mem::size_of::<aclrtUtilizationInfo>() - 24usize];
    [
        "Alignment of aclrtUtilizationInfo",
    ][::std::mem::align_of::<aclrtUtilizationInfo>() - 8usize];
    [
        "Offset of field: aclrtUtilizationInfo::cubeUtilization",
    ][::std::mem::offset_of!(aclrtUtilizationInfo, cubeUtilization) - 0usize];
    [
        "Offset of field: aclrtUtilizationInfo::vectorUtilization",
    ][::std::mem::offset_of!(aclrtUtilizationInfo, vectorUtilization) - 4usize];
    [
        "Offset of field: aclrtUtilizationInfo::aicpuUtilization",
    ][::std::mem::offset_of!(aclrtUtilizationInfo, aicpuUtilization) - 8usize];
    [
        "Offset of field: aclrtUtilizationInfo::memoryUtilization",
    ][::std::mem::offset_of!(aclrtUtilizationInfo, memoryUtilization) - 12usize];
    [
        "Offset of field: aclrtUtilizationInfo::utilizationExtend",
    ][::std::mem::offset_of!(aclrtUtilizationInfo, utilizationExtend) - 16usize];
};
pub type aclnnStatus = ::std::os::raw::c_int;
#[repr(C)]
#[derive(Debug)]
pub struct aclTensor {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct aclScalar {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct aclIntArray {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct aclTensorList {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct aclOpExecutor {
    _unused: [u8; 0],
}
pub const ACL_DT_UNDEFINED: aclDataType = -1;
pub const ACL_FLOAT: aclDataType = 0;
pub const ACL_FLOAT16: aclDataType = 1;
pub const ACL_INT8: aclDataType = 2;
pub const ACL_INT32: aclDataType = 3;
pub const ACL_UINT8: aclDataType = 4;
pub const ACL_INT64: aclDataType = 9;
pub const ACL_UINT64: aclDataType = 10;
pub const ACL_BOOL: aclDataType = 12;
pub const ACL_BF16: aclDataType = 27;
pub type aclDataType = ::std::os::raw::c_int;
pub const ACL_FORMAT_UNDEFINED: aclFormat = -1;
pub const ACL_FORMAT_NCHW: aclFormat = 0;
pub const ACL_FORMAT_ND: aclFormat = 2;
pub const ACL_FORMAT_FRACTAL_NZ: aclFormat = 29;
pub type aclFormat = ::std::os::raw::c_int;
pub type HcclResult = ::std::os::raw::c_int;
pub type HcclComm = *mut ::std::os::raw::c_void;
pub const HCCL_DATA_TYPE_INT8: HcclDataType = 0;
pub const HCCL_DATA_TYPE_INT32: HcclDataType = 2;
pub const HCCL_DATA_TYPE_FP16: HcclDataType = 3;
pub const HCCL_DATA_TYPE_FP32: HcclDataType = 4;
pub const HCCL_DATA_TYPE_BFP16: HcclDataType = 11;
pub type HcclDataType = ::std::os::raw::c_uint;
pub const HCCL_REDUCE_SUM: HcclReduceOp = 0;
pub const HCCL_REDUCE_MAX: HcclReduceOp = 2;
pub type HcclReduceOp = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct HcclRootInfo {
    pub internal: [::std::os::raw::c_char; 4108usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of HcclRootInfo"][::std::mem::size_of::<HcclRootInfo>() - 4108usize];
    ["Alignment of HcclRootInfo"][::std::mem::align_of::<HcclRootInfo>() - 1usize];
    [
        "Offset of field: HcclRootInfo::internal",
    ][::std::mem::offset_of!(HcclRootInfo, internal) - 0usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct dcmi_pcie_info_all {
    pub venderid: ::std::os::raw::c_uint,
    pub subvenderid: ::std::os::raw::c_uint,
    pub deviceid: ::std::os::raw::c_uint,
    pub subdeviceid: ::std::os::raw::c_uint,
    pub domain: ::std::os::raw::c_int,
    pub bdf_busid: ::std::os::raw::c_uint,
    pub bdf_deviceid: ::std::os::raw::c_uint,
    pub bdf_funcid: ::std::os::raw::c_uint,
    pub reserve: [::std::os::raw::c_uchar; 32usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of dcmi_pcie_info_all",
    ][::std::mem::size_of::<dcmi_pcie_info_all>() - 64usize];
    [
        "Alignment of dcmi_pcie_info_all",
    ][::std::mem::align_of::<dcmi_pcie_info_all>() - 4usize];
    [
        "Offset of field: dcmi_pcie_info_all::venderid",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, venderid) - 0usize];
    [
        "Offset of field: dcmi_pcie_info_all::subvenderid",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, subvenderid) - 4usize];
    [
        "Offset of field: dcmi_pcie_info_all::deviceid",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, deviceid) - 8usize];
    [
        "Offset of field: dcmi_pcie_info_all::subdeviceid",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, subdeviceid) - 12usize];
    [
        "Offset of field: dcmi_pcie_info_all::domain",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, domain) - 16usize];
    [
        "Offset of field: dcmi_pcie_info_all::bdf_busid",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, bdf_busid) - 20usize];
    [
        "Offset of field: dcmi_pcie_info_all::bdf_deviceid",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, bdf_deviceid) - 24usize];
    [
        "Offset of field: dcmi_pcie_info_all::bdf_funcid",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, bdf_funcid) - 28usize];
    [
        "Offset of field: dcmi_pcie_info_all::reserve",
    ][::std::mem::offset_of!(dcmi_pcie_info_all, reserve) - 32usize];
};

pub struct Rt {
    __library: ::libloading::Library,
    pub aclInit: Result<
        unsafe extern "C" fn(configPath: *const ::std::os::raw::c_char) -> aclError,
        ::libloading::Error,
    >,
    pub aclFinalize: Result<unsafe extern "C" fn() -> aclError, ::libloading::Error>,
    pub aclrtGetVersion: Result<
        unsafe extern "C" fn(
            majorVersion: *mut i32,
            minorVersion: *mut i32,
            patchVersion: *mut i32,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtGetSocName: Result<
        unsafe extern "C" fn() -> *const ::std::os::raw::c_char,
        ::libloading::Error,
    >,
    pub aclGetRecentErrMsg: Result<
        unsafe extern "C" fn() -> *const ::std::os::raw::c_char,
        ::libloading::Error,
    >,
    pub aclrtGetDeviceCount: Result<
        unsafe extern "C" fn(count: *mut u32) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtSetDevice: Result<
        unsafe extern "C" fn(deviceId: i32) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtResetDevice: Result<
        unsafe extern "C" fn(deviceId: i32) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtCreateStream: Result<
        unsafe extern "C" fn(stream: *mut aclrtStream) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtCreateStreamWithConfig: Result<
        unsafe extern "C" fn(
            stream: *mut aclrtStream,
            priority: u32,
            flag: u32,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtDestroyStream: Result<
        unsafe extern "C" fn(stream: aclrtStream) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtSynchronizeStream: Result<
        unsafe extern "C" fn(stream: aclrtStream) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtSynchronizeStreamWithTimeout: Result<
        unsafe extern "C" fn(stream: aclrtStream, timeout: i32) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtMalloc: Result<
        unsafe extern "C" fn(
            devPtr: *mut *mut ::std::os::raw::c_void,
            size: usize,
            policy: aclrtMemMallocPolicy,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtFree: Result<
        unsafe extern "C" fn(devPtr: *mut ::std::os::raw::c_void) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtMallocHost: Result<
        unsafe extern "C" fn(
            hostPtr: *mut *mut ::std::os::raw::c_void,
            size: usize,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtFreeHost: Result<
        unsafe extern "C" fn(hostPtr: *mut ::std::os::raw::c_void) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtMemcpy: Result<
        unsafe extern "C" fn(
            dst: *mut ::std::os::raw::c_void,
            destMax: usize,
            src: *const ::std::os::raw::c_void,
            count: usize,
            kind: aclrtMemcpyKind,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtMemcpyAsync: Result<
        unsafe extern "C" fn(
            dst: *mut ::std::os::raw::c_void,
            destMax: usize,
            src: *const ::std::os::raw::c_void,
            count: usize,
            kind: aclrtMemcpyKind,
            stream: aclrtStream,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtMemset: Result<
        unsafe extern "C" fn(
            devPtr: *mut ::std::os::raw::c_void,
            maxCount: usize,
            value: i32,
            count: usize,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtGetMemInfo: Result<
        unsafe extern "C" fn(
            attr: aclrtMemAttr,
            free: *mut usize,
            total: *mut usize,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtCreateEvent: Result<
        unsafe extern "C" fn(event: *mut aclrtEvent) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtCreateEventWithFlag: Result<
        unsafe extern "C" fn(event: *mut aclrtEvent, flag: u32) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtDestroyEvent: Result<
        unsafe extern "C" fn(event: aclrtEvent) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtRecordEvent: Result<
        unsafe extern "C" fn(event: aclrtEvent, stream: aclrtStream) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtSynchronizeEvent: Result<
        unsafe extern "C" fn(event: aclrtEvent) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtSynchronizeEventWithTimeout: Result<
        unsafe extern "C" fn(event: aclrtEvent, timeout: i32) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtEventElapsedTime: Result<
        unsafe extern "C" fn(
            ms: *mut f32,
            startEvent: aclrtEvent,
            endEvent: aclrtEvent,
        ) -> aclError,
        ::libloading::Error,
    >,
    pub aclmdlRICaptureBegin: Result<
        unsafe extern "C" fn(stream: aclrtStream, mode: aclmdlRICaptureMode) -> aclError,
        ::libloading::Error,
    >,
    pub aclmdlRICaptureEnd: Result<
        unsafe extern "C" fn(stream: aclrtStream, modelRI: *mut aclmdlRI) -> aclError,
        ::libloading::Error,
    >,
    pub aclmdlRIExecuteAsync: Result<
        unsafe extern "C" fn(modelRI: aclmdlRI, stream: aclrtStream) -> aclError,
        ::libloading::Error,
    >,
    pub aclmdlRIDestroy: Result<
        unsafe extern "C" fn(modelRI: aclmdlRI) -> aclError,
        ::libloading::Error,
    >,
    pub aclrtGetDeviceUtilizationRate: Result<
        unsafe extern "C" fn(
            deviceId: i32,
            utilizationInfo: *mut aclrtUtilizationInfo,
        ) -> aclError,
        ::libloading::Error,
    >,
}
impl Rt {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = unsafe { ::libloading::Library::new(path) }?;
        unsafe { Self::from_library(library) }
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let aclInit = unsafe { __library.get(b"aclInit\0") }.map(|sym| *sym);
        let aclFinalize = unsafe { __library.get(b"aclFinalize\0") }.map(|sym| *sym);
        let aclrtGetVersion = unsafe { __library.get(b"aclrtGetVersion\0") }
            .map(|sym| *sym);
        let aclrtGetSocName = unsafe { __library.get(b"aclrtGetSocName\0") }
            .map(|sym| *sym);
        let aclGetRecentErrMsg = unsafe { __library.get(b"aclGetRecentErrMsg\0") }
            .map(|sym| *sym);
        let aclrtGetDeviceCount = unsafe { __library.get(b"aclrtGetDeviceCount\0") }
            .map(|sym| *sym);
        let aclrtSetDevice = unsafe { __library.get(b"aclrtSetDevice\0") }
            .map(|sym| *sym);
        let aclrtResetDevice = unsafe { __library.get(b"aclrtResetDevice\0") }
            .map(|sym| *sym);
        let aclrtCreateStream = unsafe { __library.get(b"aclrtCreateStream\0") }
            .map(|sym| *sym);
        let aclrtCreateStreamWithConfig = unsafe {
            __library.get(b"aclrtCreateStreamWithConfig\0")
        }
            .map(|sym| *sym);
        let aclrtDestroyStream = unsafe { __library.get(b"aclrtDestroyStream\0") }
            .map(|sym| *sym);
        let aclrtSynchronizeStream = unsafe {
            __library.get(b"aclrtSynchronizeStream\0")
        }
            .map(|sym| *sym);
        let aclrtSynchronizeStreamWithTimeout = unsafe {
            __library.get(b"aclrtSynchronizeStreamWithTimeout\0")
        }
            .map(|sym| *sym);
        let aclrtMalloc = unsafe { __library.get(b"aclrtMalloc\0") }.map(|sym| *sym);
        let aclrtFree = unsafe { __library.get(b"aclrtFree\0") }.map(|sym| *sym);
        let aclrtMallocHost = unsafe { __library.get(b"aclrtMallocHost\0") }
            .map(|sym| *sym);
        let aclrtFreeHost = unsafe { __library.get(b"aclrtFreeHost\0") }.map(|sym| *sym);
        let aclrtMemcpy = unsafe { __library.get(b"aclrtMemcpy\0") }.map(|sym| *sym);
        let aclrtMemcpyAsync = unsafe { __library.get(b"aclrtMemcpyAsync\0") }
            .map(|sym| *sym);
        let aclrtMemset = unsafe { __library.get(b"aclrtMemset\0") }.map(|sym| *sym);
        let aclrtGetMemInfo = unsafe { __library.get(b"aclrtGetMemInfo\0") }
            .map(|sym| *sym);
        let aclrtCreateEvent = unsafe { __library.get(b"aclrtCreateEvent\0") }
            .map(|sym| *sym);
        let aclrtCreateEventWithFlag = unsafe {
            __library.get(b"aclrtCreateEventWithFlag\0")
        }
            .map(|sym| *sym);
        let aclrtDestroyEvent = unsafe { __library.get(b"aclrtDestroyEvent\0") }
            .map(|sym| *sym);
        let aclrtRecordEvent = unsafe { __library.get(b"aclrtRecordEvent\0") }
            .map(|sym| *sym);
        let aclrtSynchronizeEvent = unsafe { __library.get(b"aclrtSynchronizeEvent\0") }
            .map(|sym| *sym);
        let aclrtSynchronizeEventWithTimeout = unsafe {
            __library.get(b"aclrtSynchronizeEventWithTimeout\0")
        }
            .map(|sym| *sym);
        let aclrtEventElapsedTime = unsafe { __library.get(b"aclrtEventElapsedTime\0") }
            .map(|sym| *sym);
        let aclmdlRICaptureBegin = unsafe { __library.get(b"aclmdlRICaptureBegin\0") }
            .map(|sym| *sym);
        let aclmdlRICaptureEnd = unsafe { __library.get(b"aclmdlRICaptureEnd\0") }
            .map(|sym| *sym);
        let aclmdlRIExecuteAsync = unsafe { __library.get(b"aclmdlRIExecuteAsync\0") }
            .map(|sym| *sym);
        let aclmdlRIDestroy = unsafe { __library.get(b"aclmdlRIDestroy\0") }
            .map(|sym| *sym);
        let aclrtGetDeviceUtilizationRate = unsafe {
            __library.get(b"aclrtGetDeviceUtilizationRate\0")
        }
            .map(|sym| *sym);
        Ok(Rt {
            __library,
            aclInit,
            aclFinalize,
            aclrtGetVersion,
            aclrtGetSocName,
            aclGetRecentErrMsg,
            aclrtGetDeviceCount,
            aclrtSetDevice,
            aclrtResetDevice,
            aclrtCreateStream,
            aclrtCreateStreamWithConfig,
            aclrtDestroyStream,
            aclrtSynchronizeStream,
            aclrtSynchronizeStreamWithTimeout,
            aclrtMalloc,
            aclrtFree,
            aclrtMallocHost,
            aclrtFreeHost,
            aclrtMemcpy,
            aclrtMemcpyAsync,
            aclrtMemset,
            aclrtGetMemInfo,
            aclrtCreateEvent,
            aclrtCreateEventWithFlag,
            aclrtDestroyEvent,
            aclrtRecordEvent,
            aclrtSynchronizeEvent,
            aclrtSynchronizeEventWithTimeout,
            aclrtEventElapsedTime,
            aclmdlRICaptureBegin,
            aclmdlRICaptureEnd,
            aclmdlRIExecuteAsync,
            aclmdlRIDestroy,
            aclrtGetDeviceUtilizationRate,
        })
    }
    pub unsafe fn aclInit(&self, configPath: *const ::std::os::raw::c_char) -> aclError {
        unsafe {
            (self.aclInit.as_ref().expect("Expected function, got error."))(configPath)
        }
    }
    pub unsafe fn aclFinalize(&self) -> aclError {
        unsafe { (self.aclFinalize.as_ref().expect("Expected function, got error."))() }
    }
    pub unsafe fn aclrtGetVersion(
        &self,
        majorVersion: *mut i32,
        minorVersion: *mut i32,
        patchVersion: *mut i32,
    ) -> aclError {
        unsafe {
            (self
                .aclrtGetVersion
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(majorVersion, minorVersion, patchVersion)
        }
    }
    pub unsafe fn aclrtGetSocName(&self) -> *const ::std::os::raw::c_char {
        unsafe {
            (self.aclrtGetSocName.as_ref().expect("Expected function, got error."))()
        }
    }
    pub unsafe fn aclGetRecentErrMsg(&self) -> *const ::std::os::raw::c_char {
        unsafe {
            (self.aclGetRecentErrMsg.as_ref().expect("Expected function, got error."))()
        }
    }
    pub unsafe fn aclrtGetDeviceCount(&self, count: *mut u32) -> aclError {
        unsafe {
            (self
                .aclrtGetDeviceCount
                .as_ref()
                .expect("Expected function, got error."))(count)
        }
    }
    pub unsafe fn aclrtSetDevice(&self, deviceId: i32) -> aclError {
        unsafe {
            (self
                .aclrtSetDevice
                .as_ref()
                .expect("Expected function, got error."))(deviceId)
        }
    }
    pub unsafe fn aclrtResetDevice(&self, deviceId: i32) -> aclError {
        unsafe {
            (self
                .aclrtResetDevice
                .as_ref()
                .expect("Expected function, got error."))(deviceId)
        }
    }
    pub unsafe fn aclrtCreateStream(&self, stream: *mut aclrtStream) -> aclError {
        unsafe {
            (self
                .aclrtCreateStream
                .as_ref()
                .expect("Expected function, got error."))(stream)
        }
    }
    pub unsafe fn aclrtCreateStreamWithConfig(
        &self,
        stream: *mut aclrtStream,
        priority: u32,
        flag: u32,
    ) -> aclError {
        unsafe {
            (self
                .aclrtCreateStreamWithConfig
                .as_ref()
                .expect("Expected function, got error."))(stream, priority, flag)
        }
    }
    pub unsafe fn aclrtDestroyStream(&self, stream: aclrtStream) -> aclError {
        unsafe {
            (self
                .aclrtDestroyStream
                .as_ref()
                .expect("Expected function, got error."))(stream)
        }
    }
    pub unsafe fn aclrtSynchronizeStream(&self, stream: aclrtStream) -> aclError {
        unsafe {
            (self
                .aclrtSynchronizeStream
                .as_ref()
                .expect("Expected function, got error."))(stream)
        }
    }
    pub unsafe fn aclrtSynchronizeStreamWithTimeout(
        &self,
        stream: aclrtStream,
        timeout: i32,
    ) -> aclError {
        unsafe {
            (self
                .aclrtSynchronizeStreamWithTimeout
                .as_ref()
                .expect("Expected function, got error."))(stream, timeout)
        }
    }
    pub unsafe fn aclrtMalloc(
        &self,
        devPtr: *mut *mut ::std::os::raw::c_void,
        size: usize,
        policy: aclrtMemMallocPolicy,
    ) -> aclError {
        unsafe {
            (self
                .aclrtMalloc
                .as_ref()
                .expect("Expected function, got error."))(devPtr, size, policy)
        }
    }
    pub unsafe fn aclrtFree(&self, devPtr: *mut ::std::os::raw::c_void) -> aclError {
        unsafe {
            (self.aclrtFree.as_ref().expect("Expected function, got error."))(devPtr)
        }
    }
    pub unsafe fn aclrtMallocHost(
        &self,
        hostPtr: *mut *mut ::std::os::raw::c_void,
        size: usize,
    ) -> aclError {
        unsafe {
            (self
                .aclrtMallocHost
                .as_ref()
                .expect("Expected function, got error."))(hostPtr, size)
        }
    }
    pub unsafe fn aclrtFreeHost(
        &self,
        hostPtr: *mut ::std::os::raw::c_void,
    ) -> aclError {
        unsafe {
            (self
                .aclrtFreeHost
                .as_ref()
                .expect("Expected function, got error."))(hostPtr)
        }
    }
    pub unsafe fn aclrtMemcpy(
        &self,
        dst: *mut ::std::os::raw::c_void,
        destMax: usize,
        src: *const ::std::os::raw::c_void,
        count: usize,
        kind: aclrtMemcpyKind,
    ) -> aclError {
        unsafe {
            (self
                .aclrtMemcpy
                .as_ref()
                .expect("Expected function, got error."))(dst, destMax, src, count, kind)
        }
    }
    pub unsafe fn aclrtMemcpyAsync(
        &self,
        dst: *mut ::std::os::raw::c_void,
        destMax: usize,
        src: *const ::std::os::raw::c_void,
        count: usize,
        kind: aclrtMemcpyKind,
        stream: aclrtStream,
    ) -> aclError {
        unsafe {
            (self
                .aclrtMemcpyAsync
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(dst, destMax, src, count, kind, stream)
        }
    }
    pub unsafe fn aclrtMemset(
        &self,
        devPtr: *mut ::std::os::raw::c_void,
        maxCount: usize,
        value: i32,
        count: usize,
    ) -> aclError {
        unsafe {
            (self
                .aclrtMemset
                .as_ref()
                .expect("Expected function, got error."))(devPtr, maxCount, value, count)
        }
    }
    pub unsafe fn aclrtGetMemInfo(
        &self,
        attr: aclrtMemAttr,
        free: *mut usize,
        total: *mut usize,
    ) -> aclError {
        unsafe {
            (self
                .aclrtGetMemInfo
                .as_ref()
                .expect("Expected function, got error."))(attr, free, total)
        }
    }
    pub unsafe fn aclrtCreateEvent(&self, event: *mut aclrtEvent) -> aclError {
        unsafe {
            (self
                .aclrtCreateEvent
                .as_ref()
                .expect("Expected function, got error."))(event)
        }
    }
    pub unsafe fn aclrtCreateEventWithFlag(
        &self,
        event: *mut aclrtEvent,
        flag: u32,
    ) -> aclError {
        unsafe {
            (self
                .aclrtCreateEventWithFlag
                .as_ref()
                .expect("Expected function, got error."))(event, flag)
        }
    }
    pub unsafe fn aclrtDestroyEvent(&self, event: aclrtEvent) -> aclError {
        unsafe {
            (self
                .aclrtDestroyEvent
                .as_ref()
                .expect("Expected function, got error."))(event)
        }
    }
    pub unsafe fn aclrtRecordEvent(
        &self,
        event: aclrtEvent,
        stream: aclrtStream,
    ) -> aclError {
        unsafe {
            (self
                .aclrtRecordEvent
                .as_ref()
                .expect("Expected function, got error."))(event, stream)
        }
    }
    pub unsafe fn aclrtSynchronizeEvent(&self, event: aclrtEvent) -> aclError {
        unsafe {
            (self
                .aclrtSynchronizeEvent
                .as_ref()
                .expect("Expected function, got error."))(event)
        }
    }
    pub unsafe fn aclrtSynchronizeEventWithTimeout(
        &self,
        event: aclrtEvent,
        timeout: i32,
    ) -> aclError {
        unsafe {
            (self
                .aclrtSynchronizeEventWithTimeout
                .as_ref()
                .expect("Expected function, got error."))(event, timeout)
        }
    }
    pub unsafe fn aclrtEventElapsedTime(
        &self,
        ms: *mut f32,
        startEvent: aclrtEvent,
        endEvent: aclrtEvent,
    ) -> aclError {
        unsafe {
            (self
                .aclrtEventElapsedTime
                .as_ref()
                .expect("Expected function, got error."))(ms, startEvent, endEvent)
        }
    }
    pub unsafe fn aclmdlRICaptureBegin(
        &self,
        stream: aclrtStream,
        mode: aclmdlRICaptureMode,
    ) -> aclError {
        unsafe {
            (self
                .aclmdlRICaptureBegin
                .as_ref()
                .expect("Expected function, got error."))(stream, mode)
        }
    }
    pub unsafe fn aclmdlRICaptureEnd(
        &self,
        stream: aclrtStream,
        modelRI: *mut aclmdlRI,
    ) -> aclError {
        unsafe {
            (self
                .aclmdlRICaptureEnd
                .as_ref()
                .expect("Expected function, got error."))(stream, modelRI)
        }
    }
    pub unsafe fn aclmdlRIExecuteAsync(
        &self,
        modelRI: aclmdlRI,
        stream: aclrtStream,
    ) -> aclError {
        unsafe {
            (self
                .aclmdlRIExecuteAsync
                .as_ref()
                .expect("Expected function, got error."))(modelRI, stream)
        }
    }
    pub unsafe fn aclmdlRIDestroy(&self, modelRI: aclmdlRI) -> aclError {
        unsafe {
            (self
                .aclmdlRIDestroy
                .as_ref()
                .expect("Expected function, got error."))(modelRI)
        }
    }
    pub unsafe fn aclrtGetDeviceUtilizationRate(
        &self,
        deviceId: i32,
        utilizationInfo: *mut aclrtUtilizationInfo,
    ) -> aclError {
        unsafe {
            (self
                .aclrtGetDeviceUtilizationRate
                .as_ref()
                .expect("Expected function, got error."))(deviceId, utilizationInfo)
        }
    }
}

pub struct Nn {
    __library: ::libloading::Library,
    pub aclCreateTensor: Result<
        unsafe extern "C" fn(
            viewDims: *const i64,
            viewDimsNum: u64,
            dataType: aclDataType,
            stride: *const i64,
            offset: i64,
            format: aclFormat,
            storageDims: *const i64,
            storageDimsNum: u64,
            tensorData: *mut ::std::os::raw::c_void,
        ) -> *mut aclTensor,
        ::libloading::Error,
    >,
    pub aclCreateScalar: Result<
        unsafe extern "C" fn(
            value: *mut ::std::os::raw::c_void,
            dataType: aclDataType,
        ) -> *mut aclScalar,
        ::libloading::Error,
    >,
    pub aclCreateIntArray: Result<
        unsafe extern "C" fn(value: *const i64, size: u64) -> *mut aclIntArray,
        ::libloading::Error,
    >,
    pub aclCreateTensorList: Result<
        unsafe extern "C" fn(
            value: *const *const aclTensor,
            size: u64,
        ) -> *mut aclTensorList,
        ::libloading::Error,
    >,
    pub aclDestroyTensor: Result<
        unsafe extern "C" fn(tensor: *const aclTensor) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclDestroyScalar: Result<
        unsafe extern "C" fn(scalar: *const aclScalar) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclDestroyIntArray: Result<
        unsafe extern "C" fn(array: *const aclIntArray) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclDestroyTensorList: Result<
        unsafe extern "C" fn(array: *const aclTensorList) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclSetAclOpExecutorRepeatable: Result<
        unsafe extern "C" fn(executor: *mut aclOpExecutor) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclDestroyAclOpExecutor: Result<
        unsafe extern "C" fn(executor: *mut aclOpExecutor) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnEmbeddingGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            weight: *const aclTensor,
            indices: *const aclTensor,
            out: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnEmbedding: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnGatherV2GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            dim: i64,
            index: *const aclTensor,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnGatherV2: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnRmsNormGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            gamma: *const aclTensor,
            epsilon: f64,
            yOut: *const aclTensor,
            rstdOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnRmsNorm: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMatmulGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            mat2: *const aclTensor,
            out: *mut aclTensor,
            cubeMathType: i8,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMatmul: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMmGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            mat2: *const aclTensor,
            out: *mut aclTensor,
            cubeMathType: i8,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMm: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMatmulWeightNzGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            mat2: *const aclTensor,
            out: *mut aclTensor,
            cubeMathType: i8,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMatmulWeightNz: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnAddmmGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            mat1: *const aclTensor,
            mat2: *const aclTensor,
            beta: *const aclScalar,
            alpha: *const aclScalar,
            out: *mut aclTensor,
            cubeMathType: i8,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnAddmm: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnBatchMatMulGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            mat2: *const aclTensor,
            out: *mut aclTensor,
            cubeMathType: i8,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnBatchMatMul: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnCalculateMatmulWeightSizeV2: Result<
        unsafe extern "C" fn(
            tensorShape: *const aclIntArray,
            dataType: aclDataType,
            weightTensorSize: *mut u64,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnTransMatmulWeightGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            mmWeightRef: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnTransMatmulWeight: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnAscendQuantV3GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            scale: *const aclTensor,
            offset: *const aclTensor,
            sqrtMode: bool,
            roundMode: *const ::std::os::raw::c_char,
            dstType: i32,
            axis: i32,
            y: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnAscendQuantV3: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnQuantMatmulV4GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x1: *const aclTensor,
            x2: *const aclTensor,
            scale: *const aclTensor,
            offset: *const aclTensor,
            pertokenScaleOptional: *const aclTensor,
            bias: *const aclTensor,
            transposeX1: bool,
            transposeX2: bool,
            out: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnQuantMatmulV4: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnWeightQuantBatchMatmulV2GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            weight: *const aclTensor,
            antiquantScale: *const aclTensor,
            antiquantOffsetOptional: *const aclTensor,
            quantScaleOptional: *const aclTensor,
            quantOffsetOptional: *const aclTensor,
            biasOptional: *const aclTensor,
            antiquantGroupSize: ::std::os::raw::c_int,
            y: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnWeightQuantBatchMatmulV2: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceAddGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            selfRef: *const aclTensor,
            other: *const aclTensor,
            alpha: *const aclScalar,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceAdd: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnAddRmsNormGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x1: *const aclTensor,
            x2: *const aclTensor,
            gamma: *const aclTensor,
            epsilon: f64,
            yOut: *const aclTensor,
            rstdOut: *const aclTensor,
            xOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnAddRmsNorm: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceCopyGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            selfRef: *mut aclTensor,
            src: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceCopy: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMulGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            other: *const aclTensor,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMul: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMulsGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            other: *const aclScalar,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnMuls: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSoftmaxGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            self_: *const aclTensor,
            dim: i64,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSoftmax: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSwiGluGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            dim: i64,
            out: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnSwiGlu: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnApplyRotaryPosEmbGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            queryRef: *mut aclTensor,
            keyRef: *mut aclTensor,
            cos: *const aclTensor,
            sin: *const aclTensor,
            layout: i64,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnApplyRotaryPosEmb: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnRotaryPositionEmbeddingGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            x: *const aclTensor,
            cos: *const aclTensor,
            sin: *const aclTensor,
            mode: i64,
            out: *mut aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnRotaryPositionEmbedding: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnScatterPaKvCacheGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            key: *const aclTensor,
            keyCacheRef: *mut aclTensor,
            slotMapping: *const aclTensor,
            value: *const aclTensor,
            valueCacheRef: *mut aclTensor,
            compressLensOptional: *const aclTensor,
            compressSeqOffsetOptional: *const aclTensor,
            seqLensOptional: *const aclTensor,
            cacheModeOptional: *mut ::std::os::raw::c_char,
            scatterModeOptional: *mut ::std::os::raw::c_char,
            stridesOptional: *const aclIntArray,
            offsetsOptional: *const aclIntArray,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnScatterPaKvCache: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceIndexCopyGetWorkspaceSize: Result<
        unsafe extern "C" fn(
            selfRef: *mut aclTensor,
            dim: i64,
            index: *const aclTensor,
            source: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnInplaceIndexCopy: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnPromptFlashAttentionV3GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            query: *const aclTensor,
            key: *const aclTensor,
            value: *const aclTensor,
            pseShift: *const aclTensor,
            attenMask: *const aclTensor,
            actualSeqLengths: *const aclIntArray,
            actualSeqLengthsKv: *const aclIntArray,
            deqScale1: *const aclTensor,
            quantScale1: *const aclTensor,
            deqScale2: *const aclTensor,
            quantScale2: *const aclTensor,
            quantOffset2: *const aclTensor,
            numHeads: i64,
            scaleValue: f64,
            preTokens: i64,
            nextTokens: i64,
            inputLayout: *mut ::std::os::raw::c_char,
            numKeyValueHeads: i64,
            sparseMode: i64,
            innerPrecise: i64,
            attentionOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnPromptFlashAttentionV3: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnIncreFlashAttentionV4GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            query: *const aclTensor,
            key: *const aclTensorList,
            value: *const aclTensorList,
            pseShift: *const aclTensor,
            attenMask: *const aclTensor,
            actualSeqLengths: *const aclIntArray,
            dequantScale1: *const aclTensor,
            quantScale1: *const aclTensor,
            dequantScale2: *const aclTensor,
            quantScale2: *const aclTensor,
            quantOffset2: *const aclTensor,
            antiquantScale: *const aclTensor,
            antiquantOffset: *const aclTensor,
            blocktable: *const aclTensor,
            kvPaddingSize: *const aclTensor,
            numHeads: i64,
            scaleValue: f64,
            inputLayout: *mut ::std::os::raw::c_char,
            numKeyValueHeads: i64,
            blockSize: i64,
            innerPrecise: i64,
            attentionOut: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnIncreFlashAttentionV4: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnFusedInferAttentionScoreV2GetWorkspaceSize: Result<
        unsafe extern "C" fn(
            query: *const aclTensor,
            key: *const aclTensorList,
            value: *const aclTensorList,
            pseShift: *const aclTensor,
            attenMask: *const aclTensor,
            actualSeqLengths: *const aclIntArray,
            actualSeqLengthsKv: *const aclIntArray,
            deqScale1: *const aclTensor,
            quantScale1: *const aclTensor,
            deqScale2: *const aclTensor,
            quantScale2: *const aclTensor,
            quantOffset2: *const aclTensor,
            antiquantScale: *const aclTensor,
            antiquantOffset: *const aclTensor,
            blockTable: *const aclTensor,
            queryPaddingSize: *const aclTensor,
            kvPaddingSize: *const aclTensor,
            keyAntiquantScale: *const aclTensor,
            keyAntiquantOffset: *const aclTensor,
            valueAntiquantScale: *const aclTensor,
            valueAntiquantOffset: *const aclTensor,
            keySharedPrefix: *const aclTensor,
            valueSharedPrefix: *const aclTensor,
            actualSharedPrefixLen: *const aclIntArray,
            numHeads: i64,
            scaleValue: f64,
            preTokens: i64,
            nextTokens: i64,
            inputLayout: *mut ::std::os::raw::c_char,
            numKeyValueHeads: i64,
            sparseMode: i64,
            innerPrecise: i64,
            blockSize: i64,
            antiquantMode: i64,
            softmaxLseFlag: bool,
            keyAntiquantMode: i64,
            valueAntiquantMode: i64,
            attentionOut: *const aclTensor,
            softmaxLse: *const aclTensor,
            workspaceSize: *mut u64,
            executor: *mut *mut aclOpExecutor,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
    pub aclnnFusedInferAttentionScoreV2: Result<
        unsafe extern "C" fn(
            workspace: *mut ::std::os::raw::c_void,
            workspaceSize: u64,
            executor: *mut aclOpExecutor,
            stream: aclrtStream,
        ) -> aclnnStatus,
        ::libloading::Error,
    >,
}
impl Nn {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = unsafe { ::libloading::Library::new(path) }?;
        unsafe { Self::from_library(library) }
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let aclCreateTensor = unsafe { __library.get(b"aclCreateTensor\0") }
            .map(|sym| *sym);
        let aclCreateScalar = unsafe { __library.get(b"aclCreateScalar\0") }
            .map(|sym| *sym);
        let aclCreateIntArray = unsafe { __library.get(b"aclCreateIntArray\0") }
            .map(|sym| *sym);
        let aclCreateTensorList = unsafe { __library.get(b"aclCreateTensorList\0") }
            .map(|sym| *sym);
        let aclDestroyTensor = unsafe { __library.get(b"aclDestroyTensor\0") }
            .map(|sym| *sym);
        let aclDestroyScalar = unsafe { __library.get(b"aclDestroyScalar\0") }
            .map(|sym| *sym);
        let aclDestroyIntArray = unsafe { __library.get(b"aclDestroyIntArray\0") }
            .map(|sym| *sym);
        let aclDestroyTensorList = unsafe { __library.get(b"aclDestroyTensorList\0") }
            .map(|sym| *sym);
        let aclSetAclOpExecutorRepeatable = unsafe {
            __library.get(b"aclSetAclOpExecutorRepeatable\0")
        }
            .map(|sym| *sym);
        let aclDestroyAclOpExecutor = unsafe {
            __library.get(b"aclDestroyAclOpExecutor\0")
        }
            .map(|sym| *sym);
        let aclnnEmbeddingGetWorkspaceSize = unsafe {
            __library.get(b"aclnnEmbeddingGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnEmbedding = unsafe { __library.get(b"aclnnEmbedding\0") }
            .map(|sym| *sym);
        let aclnnGatherV2GetWorkspaceSize = unsafe {
            __library.get(b"aclnnGatherV2GetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnGatherV2 = unsafe { __library.get(b"aclnnGatherV2\0") }.map(|sym| *sym);
        let aclnnRmsNormGetWorkspaceSize = unsafe {
            __library.get(b"aclnnRmsNormGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnRmsNorm = unsafe { __library.get(b"aclnnRmsNorm\0") }.map(|sym| *sym);
        let aclnnMatmulGetWorkspaceSize = unsafe {
            __library.get(b"aclnnMatmulGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnMatmul = unsafe { __library.get(b"aclnnMatmul\0") }.map(|sym| *sym);
        let aclnnMmGetWorkspaceSize = unsafe {
            __library.get(b"aclnnMmGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnMm = unsafe { __library.get(b"aclnnMm\0") }.map(|sym| *sym);
        let aclnnMatmulWeightNzGetWorkspaceSize = unsafe {
            __library.get(b"aclnnMatmulWeightNzGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnMatmulWeightNz = unsafe { __library.get(b"aclnnMatmulWeightNz\0") }
            .map(|sym| *sym);
        let aclnnAddmmGetWorkspaceSize = unsafe {
            __library.get(b"aclnnAddmmGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnAddmm = unsafe { __library.get(b"aclnnAddmm\0") }.map(|sym| *sym);
        let aclnnBatchMatMulGetWorkspaceSize = unsafe {
            __library.get(b"aclnnBatchMatMulGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnBatchMatMul = unsafe { __library.get(b"aclnnBatchMatMul\0") }
            .map(|sym| *sym);
        let aclnnCalculateMatmulWeightSizeV2 = unsafe {
            __library.get(b"aclnnCalculateMatmulWeightSizeV2\0")
        }
            .map(|sym| *sym);
        let aclnnTransMatmulWeightGetWorkspaceSize = unsafe {
            __library.get(b"aclnnTransMatmulWeightGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnTransMatmulWeight = unsafe {
            __library.get(b"aclnnTransMatmulWeight\0")
        }
            .map(|sym| *sym);
        let aclnnAscendQuantV3GetWorkspaceSize = unsafe {
            __library.get(b"aclnnAscendQuantV3GetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnAscendQuantV3 = unsafe { __library.get(b"aclnnAscendQuantV3\0") }
            .map(|sym| *sym);
        let aclnnQuantMatmulV4GetWorkspaceSize = unsafe {
            __library.get(b"aclnnQuantMatmulV4GetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnQuantMatmulV4 = unsafe { __library.get(b"aclnnQuantMatmulV4\0") }
            .map(|sym| *sym);
        let aclnnWeightQuantBatchMatmulV2GetWorkspaceSize = unsafe {
            __library.get(b"aclnnWeightQuantBatchMatmulV2GetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnWeightQuantBatchMatmulV2 = unsafe {
            __library.get(b"aclnnWeightQuantBatchMatmulV2\0")
        }
            .map(|sym| *sym);
        let aclnnInplaceAddGetWorkspaceSize = unsafe {
            __library.get(b"aclnnInplaceAddGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnInplaceAdd = unsafe { __library.get(b"aclnnInplaceAdd\0") }
            .map(|sym| *sym);
        let aclnnAddRmsNormGetWorkspaceSize = unsafe {
            __library.get(b"aclnnAddRmsNormGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnAddRmsNorm = unsafe { __library.get(b"aclnnAddRmsNorm\0") }
            .map(|sym| *sym);
        let aclnnInplaceCopyGetWorkspaceSize = unsafe {
            __library.get(b"aclnnInplaceCopyGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnInplaceCopy = unsafe { __library.get(b"aclnnInplaceCopy\0") }
            .map(|sym| *sym);
        let aclnnMulGetWorkspaceSize = unsafe {
            __library.get(b"aclnnMulGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnMul = unsafe { __library.get(b"aclnnMul\0") }.map(|sym| *sym);
        let aclnnMulsGetWorkspaceSize = unsafe {
            __library.get(b"aclnnMulsGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnMuls = unsafe { __library.get(b"aclnnMuls\0") }.map(|sym| *sym);
        let aclnnSoftmaxGetWorkspaceSize = unsafe {
            __library.get(b"aclnnSoftmaxGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnSoftmax = unsafe { __library.get(b"aclnnSoftmax\0") }.map(|sym| *sym);
        let aclnnSwiGluGetWorkspaceSize = unsafe {
            __library.get(b"aclnnSwiGluGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnSwiGlu = unsafe { __library.get(b"aclnnSwiGlu\0") }.map(|sym| *sym);
        let aclnnApplyRotaryPosEmbGetWorkspaceSize = unsafe {
            __library.get(b"aclnnApplyRotaryPosEmbGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnApplyRotaryPosEmb = unsafe {
            __library.get(b"aclnnApplyRotaryPosEmb\0")
        }
            .map(|sym| *sym);
        let aclnnRotaryPositionEmbeddingGetWorkspaceSize = unsafe {
            __library.get(b"aclnnRotaryPositionEmbeddingGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnRotaryPositionEmbedding = unsafe {
            __library.get(b"aclnnRotaryPositionEmbedding\0")
        }
            .map(|sym| *sym);
        let aclnnScatterPaKvCacheGetWorkspaceSize = unsafe {
            __library.get(b"aclnnScatterPaKvCacheGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnScatterPaKvCache = unsafe { __library.get(b"aclnnScatterPaKvCache\0") }
            .map(|sym| *sym);
        let aclnnInplaceIndexCopyGetWorkspaceSize = unsafe {
            __library.get(b"aclnnInplaceIndexCopyGetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnInplaceIndexCopy = unsafe { __library.get(b"aclnnInplaceIndexCopy\0") }
            .map(|sym| *sym);
        let aclnnPromptFlashAttentionV3GetWorkspaceSize = unsafe {
            __library.get(b"aclnnPromptFlashAttentionV3GetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnPromptFlashAttentionV3 = unsafe {
            __library.get(b"aclnnPromptFlashAttentionV3\0")
        }
            .map(|sym| *sym);
        let aclnnIncreFlashAttentionV4GetWorkspaceSize = unsafe {
            __library.get(b"aclnnIncreFlashAttentionV4GetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnIncreFlashAttentionV4 = unsafe {
            __library.get(b"aclnnIncreFlashAttentionV4\0")
        }
            .map(|sym| *sym);
        let aclnnFusedInferAttentionScoreV2GetWorkspaceSize = unsafe {
            __library.get(b"aclnnFusedInferAttentionScoreV2GetWorkspaceSize\0")
        }
            .map(|sym| *sym);
        let aclnnFusedInferAttentionScoreV2 = unsafe {
            __library.get(b"aclnnFusedInferAttentionScoreV2\0")
        }
            .map(|sym| *sym);
        Ok(Nn {
            __library,
            aclCreateTensor,
            aclCreateScalar,
            aclCreateIntArray,
            aclCreateTensorList,
            aclDestroyTensor,
            aclDestroyScalar,
            aclDestroyIntArray,
            aclDestroyTensorList,
            aclSetAclOpExecutorRepeatable,
            aclDestroyAclOpExecutor,
            aclnnEmbeddingGetWorkspaceSize,
            aclnnEmbedding,
            aclnnGatherV2GetWorkspaceSize,
            aclnnGatherV2,
            aclnnRmsNormGetWorkspaceSize,
            aclnnRmsNorm,
            aclnnMatmulGetWorkspaceSize,
            aclnnMatmul,
            aclnnMmGetWorkspaceSize,
            aclnnMm,
            aclnnMatmulWeightNzGetWorkspaceSize,
            aclnnMatmulWeightNz,
            aclnnAddmmGetWorkspaceSize,
            aclnnAddmm,
            aclnnBatchMatMulGetWorkspaceSize,
            aclnnBatchMatMul,
            aclnnCalculateMatmulWeightSizeV2,
            aclnnTransMatmulWeightGetWorkspaceSize,
            aclnnTransMatmulWeight,
            aclnnAscendQuantV3GetWorkspaceSize,
            aclnnAscendQuantV3,
            aclnnQuantMatmulV4GetWorkspaceSize,
            aclnnQuantMatmulV4,
            aclnnWeightQuantBatchMatmulV2GetWorkspaceSize,
            aclnnWeightQuantBatchMatmulV2,
            aclnnInplaceAddGetWorkspaceSize,
            aclnnInplaceAdd,
            aclnnAddRmsNormGetWorkspaceSize,
            aclnnAddRmsNorm,
            aclnnInplaceCopyGetWorkspaceSize,
            aclnnInplaceCopy,
            aclnnMulGetWorkspaceSize,
            aclnnMul,
            aclnnMulsGetWorkspaceSize,
            aclnnMuls,
            aclnnSoftmaxGetWorkspaceSize,
            aclnnSoftmax,
            aclnnSwiGluGetWorkspaceSize,
            aclnnSwiGlu,
            aclnnApplyRotaryPosEmbGetWorkspaceSize,
            aclnnApplyRotaryPosEmb,
            aclnnRotaryPositionEmbeddingGetWorkspaceSize,
            aclnnRotaryPositionEmbedding,
            aclnnScatterPaKvCacheGetWorkspaceSize,
            aclnnScatterPaKvCache,
            aclnnInplaceIndexCopyGetWorkspaceSize,
            aclnnInplaceIndexCopy,
            aclnnPromptFlashAttentionV3GetWorkspaceSize,
            aclnnPromptFlashAttentionV3,
            aclnnIncreFlashAttentionV4GetWorkspaceSize,
            aclnnIncreFlashAttentionV4,
            aclnnFusedInferAttentionScoreV2GetWorkspaceSize,
            aclnnFusedInferAttentionScoreV2,
        })
    }
    pub unsafe fn aclCreateTensor(
        &self,
        viewDims: *const i64,
        viewDimsNum: u64,
        dataType: aclDataType,
        stride: *const i64,
        offset: i64,
        format: aclFormat,
        storageDims: *const i64,
        storageDimsNum: u64,
        tensorData: *mut ::std::os::raw::c_void,
    ) -> *mut aclTensor {
        unsafe {
            (self
                .aclCreateTensor
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                viewDims,
                viewDimsNum,
                dataType,
                stride,
                offset,
                format,
                storageDims,
                storageDimsNum,
                tensorData,
            )
        }
    }
    pub unsafe fn aclCreateScalar(
        &self,
        value: *mut ::std::os::raw::c_void,
        dataType: aclDataType,
    ) -> *mut aclScalar {
        unsafe {
            (self
                .aclCreateScalar
                .as_ref()
                .expect("Expected function, got error."))(value, dataType)
        }
    }
    pub unsafe fn aclCreateIntArray(
        &self,
        value: *const i64,
        size: u64,
    ) -> *mut aclIntArray {
        unsafe {
            (self
                .aclCreateIntArray
                .as_ref()
                .expect("Expected function, got error."))(value, size)
        }
    }
    pub unsafe fn aclCreateTensorList(
        &self,
        value: *const *const aclTensor,
        size: u64,
    ) -> *mut aclTensorList {
        unsafe {
            (self
                .aclCreateTensorList
                .as_ref()
                .expect("Expected function, got error."))(value, size)
        }
    }
    pub unsafe fn aclDestroyTensor(&self, tensor: *const aclTensor) -> aclnnStatus {
        unsafe {
            (self
                .aclDestroyTensor
                .as_ref()
                .expect("Expected function, got error."))(tensor)
        }
    }
    pub unsafe fn aclDestroyScalar(&self, scalar: *const aclScalar) -> aclnnStatus {
        unsafe {
            (self
                .aclDestroyScalar
                .as_ref()
                .expect("Expected function, got error."))(scalar)
        }
    }
    pub unsafe fn aclDestroyIntArray(&self, array: *const aclIntArray) -> aclnnStatus {
        unsafe {
            (self
                .aclDestroyIntArray
                .as_ref()
                .expect("Expected function, got error."))(array)
        }
    }
    pub unsafe fn aclDestroyTensorList(
        &self,
        array: *const aclTensorList,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclDestroyTensorList
                .as_ref()
                .expect("Expected function, got error."))(array)
        }
    }
    pub unsafe fn aclSetAclOpExecutorRepeatable(
        &self,
        executor: *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclSetAclOpExecutorRepeatable
                .as_ref()
                .expect("Expected function, got error."))(executor)
        }
    }
    pub unsafe fn aclDestroyAclOpExecutor(
        &self,
        executor: *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclDestroyAclOpExecutor
                .as_ref()
                .expect("Expected function, got error."))(executor)
        }
    }
    pub unsafe fn aclnnEmbeddingGetWorkspaceSize(
        &self,
        weight: *const aclTensor,
        indices: *const aclTensor,
        out: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnEmbeddingGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(weight, indices, out, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnEmbedding(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnEmbedding
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnGatherV2GetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        dim: i64,
        index: *const aclTensor,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnGatherV2GetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(self_, dim, index, out, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnGatherV2(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnGatherV2
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnRmsNormGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        gamma: *const aclTensor,
        epsilon: f64,
        yOut: *const aclTensor,
        rstdOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnRmsNormGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(x, gamma, epsilon, yOut, rstdOut, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnRmsNorm(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnRmsNorm
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnMatmulGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        mat2: *const aclTensor,
        out: *mut aclTensor,
        cubeMathType: i8,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMatmulGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(self_, mat2, out, cubeMathType, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnMatmul(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMatmul
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnMmGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        mat2: *const aclTensor,
        out: *mut aclTensor,
        cubeMathType: i8,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMmGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(self_, mat2, out, cubeMathType, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnMm(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMm
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnMatmulWeightNzGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        mat2: *const aclTensor,
        out: *mut aclTensor,
        cubeMathType: i8,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMatmulWeightNzGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(self_, mat2, out, cubeMathType, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnMatmulWeightNz(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMatmulWeightNz
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnAddmmGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        mat1: *const aclTensor,
        mat2: *const aclTensor,
        beta: *const aclScalar,
        alpha: *const aclScalar,
        out: *mut aclTensor,
        cubeMathType: i8,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnAddmmGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                self_,
                mat1,
                mat2,
                beta,
                alpha,
                out,
                cubeMathType,
                workspaceSize,
                executor,
            )
        }
    }
    pub unsafe fn aclnnAddmm(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnAddmm
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnBatchMatMulGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        mat2: *const aclTensor,
        out: *mut aclTensor,
        cubeMathType: i8,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnBatchMatMulGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(self_, mat2, out, cubeMathType, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnBatchMatMul(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnBatchMatMul
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnCalculateMatmulWeightSizeV2(
        &self,
        tensorShape: *const aclIntArray,
        dataType: aclDataType,
        weightTensorSize: *mut u64,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnCalculateMatmulWeightSizeV2
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(tensorShape, dataType, weightTensorSize)
        }
    }
    pub unsafe fn aclnnTransMatmulWeightGetWorkspaceSize(
        &self,
        mmWeightRef: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnTransMatmulWeightGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(mmWeightRef, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnTransMatmulWeight(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnTransMatmulWeight
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnAscendQuantV3GetWorkspaceSize(
        &self,
        x: *const aclTensor,
        scale: *const aclTensor,
        offset: *const aclTensor,
        sqrtMode: bool,
        roundMode: *const ::std::os::raw::c_char,
        dstType: i32,
        axis: i32,
        y: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnAscendQuantV3GetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                x,
                scale,
                offset,
                sqrtMode,
                roundMode,
                dstType,
                axis,
                y,
                workspaceSize,
                executor,
            )
        }
    }
    pub unsafe fn aclnnAscendQuantV3(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnAscendQuantV3
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnQuantMatmulV4GetWorkspaceSize(
        &self,
        x1: *const aclTensor,
        x2: *const aclTensor,
        scale: *const aclTensor,
        offset: *const aclTensor,
        pertokenScaleOptional: *const aclTensor,
        bias: *const aclTensor,
        transposeX1: bool,
        transposeX2: bool,
        out: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnQuantMatmulV4GetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                x1,
                x2,
                scale,
                offset,
                pertokenScaleOptional,
                bias,
                transposeX1,
                transposeX2,
                out,
                workspaceSize,
                executor,
            )
        }
    }
    pub unsafe fn aclnnQuantMatmulV4(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnQuantMatmulV4
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnWeightQuantBatchMatmulV2GetWorkspaceSize(
        &self,
        x: *const aclTensor,
        weight: *const aclTensor,
        antiquantScale: *const aclTensor,
        antiquantOffsetOptional: *const aclTensor,
        quantScaleOptional: *const aclTensor,
        quantOffsetOptional: *const aclTensor,
        biasOptional: *const aclTensor,
        antiquantGroupSize: ::std::os::raw::c_int,
        y: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnWeightQuantBatchMatmulV2GetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                x,
                weight,
                antiquantScale,
                antiquantOffsetOptional,
                quantScaleOptional,
                quantOffsetOptional,
                biasOptional,
                antiquantGroupSize,
                y,
                workspaceSize,
                executor,
            )
        }
    }
    pub unsafe fn aclnnWeightQuantBatchMatmulV2(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnWeightQuantBatchMatmulV2
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnInplaceAddGetWorkspaceSize(
        &self,
        selfRef: *const aclTensor,
        other: *const aclTensor,
        alpha: *const aclScalar,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnInplaceAddGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(selfRef, other, alpha, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnInplaceAdd(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnInplaceAdd
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnAddRmsNormGetWorkspaceSize(
        &self,
        x1: *const aclTensor,
        x2: *const aclTensor,
        gamma: *const aclTensor,
        epsilon: f64,
        yOut: *const aclTensor,
        rstdOut: *const aclTensor,
        xOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnAddRmsNormGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(x1, x2, gamma, epsilon, yOut, rstdOut, xOut, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnAddRmsNorm(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnAddRmsNorm
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnInplaceCopyGetWorkspaceSize(
        &self,
        selfRef: *mut aclTensor,
        src: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnInplaceCopyGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(selfRef, src, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnInplaceCopy(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnInplaceCopy
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnMulGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        other: *const aclTensor,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMulGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(self_, other, out, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnMul(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMul
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnMulsGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        other: *const aclScalar,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMulsGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(self_, other, out, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnMuls(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnMuls
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnSoftmaxGetWorkspaceSize(
        &self,
        self_: *const aclTensor,
        dim: i64,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnSoftmaxGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(self_, dim, out, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnSoftmax(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnSoftmax
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnSwiGluGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        dim: i64,
        out: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnSwiGluGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(x, dim, out, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnSwiGlu(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnSwiGlu
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnApplyRotaryPosEmbGetWorkspaceSize(
        &self,
        queryRef: *mut aclTensor,
        keyRef: *mut aclTensor,
        cos: *const aclTensor,
        sin: *const aclTensor,
        layout: i64,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnApplyRotaryPosEmbGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(queryRef, keyRef, cos, sin, layout, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnApplyRotaryPosEmb(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnApplyRotaryPosEmb
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnRotaryPositionEmbeddingGetWorkspaceSize(
        &self,
        x: *const aclTensor,
        cos: *const aclTensor,
        sin: *const aclTensor,
        mode: i64,
        out: *mut aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnRotaryPositionEmbeddingGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(x, cos, sin, mode, out, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnRotaryPositionEmbedding(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnRotaryPositionEmbedding
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnScatterPaKvCacheGetWorkspaceSize(
        &self,
        key: *const aclTensor,
        keyCacheRef: *mut aclTensor,
        slotMapping: *const aclTensor,
        value: *const aclTensor,
        valueCacheRef: *mut aclTensor,
        compressLensOptional: *const aclTensor,
        compressSeqOffsetOptional: *const aclTensor,
        seqLensOptional: *const aclTensor,
        cacheModeOptional: *mut ::std::os::raw::c_char,
        scatterModeOptional: *mut ::std::os::raw::c_char,
        stridesOptional: *const aclIntArray,
        offsetsOptional: *const aclIntArray,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnScatterPaKvCacheGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                key,
                keyCacheRef,
                slotMapping,
                value,
                valueCacheRef,
                compressLensOptional,
                compressSeqOffsetOptional,
                seqLensOptional,
                cacheModeOptional,
                scatterModeOptional,
                stridesOptional,
                offsetsOptional,
                workspaceSize,
                executor,
            )
        }
    }
    pub unsafe fn aclnnScatterPaKvCache(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnScatterPaKvCache
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnInplaceIndexCopyGetWorkspaceSize(
        &self,
        selfRef: *mut aclTensor,
        dim: i64,
        index: *const aclTensor,
        source: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnInplaceIndexCopyGetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(selfRef, dim, index, source, workspaceSize, executor)
        }
    }
    pub unsafe fn aclnnInplaceIndexCopy(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnInplaceIndexCopy
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnPromptFlashAttentionV3GetWorkspaceSize(
        &self,
        query: *const aclTensor,
        key: *const aclTensor,
        value: *const aclTensor,
        pseShift: *const aclTensor,
        attenMask: *const aclTensor,
        actualSeqLengths: *const aclIntArray,
        actualSeqLengthsKv: *const aclIntArray,
        deqScale1: *const aclTensor,
        quantScale1: *const aclTensor,
        deqScale2: *const aclTensor,
        quantScale2: *const aclTensor,
        quantOffset2: *const aclTensor,
        numHeads: i64,
        scaleValue: f64,
        preTokens: i64,
        nextTokens: i64,
        inputLayout: *mut ::std::os::raw::c_char,
        numKeyValueHeads: i64,
        sparseMode: i64,
        innerPrecise: i64,
        attentionOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnPromptFlashAttentionV3GetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                query,
                key,
                value,
                pseShift,
                attenMask,
                actualSeqLengths,
                actualSeqLengthsKv,
                deqScale1,
                quantScale1,
                deqScale2,
                quantScale2,
                quantOffset2,
                numHeads,
                scaleValue,
                preTokens,
                nextTokens,
                inputLayout,
                numKeyValueHeads,
                sparseMode,
                innerPrecise,
                attentionOut,
                workspaceSize,
                executor,
            )
        }
    }
    pub unsafe fn aclnnPromptFlashAttentionV3(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnPromptFlashAttentionV3
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnIncreFlashAttentionV4GetWorkspaceSize(
        &self,
        query: *const aclTensor,
        key: *const aclTensorList,
        value: *const aclTensorList,
        pseShift: *const aclTensor,
        attenMask: *const aclTensor,
        actualSeqLengths: *const aclIntArray,
        dequantScale1: *const aclTensor,
        quantScale1: *const aclTensor,
        dequantScale2: *const aclTensor,
        quantScale2: *const aclTensor,
        quantOffset2: *const aclTensor,
        antiquantScale: *const aclTensor,
        antiquantOffset: *const aclTensor,
        blocktable: *const aclTensor,
        kvPaddingSize: *const aclTensor,
        numHeads: i64,
        scaleValue: f64,
        inputLayout: *mut ::std::os::raw::c_char,
        numKeyValueHeads: i64,
        blockSize: i64,
        innerPrecise: i64,
        attentionOut: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnIncreFlashAttentionV4GetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                query,
                key,
                value,
                pseShift,
                attenMask,
                actualSeqLengths,
                dequantScale1,
                quantScale1,
                dequantScale2,
                quantScale2,
                quantOffset2,
                antiquantScale,
                antiquantOffset,
                blocktable,
                kvPaddingSize,
                numHeads,
                scaleValue,
                inputLayout,
                numKeyValueHeads,
                blockSize,
                innerPrecise,
                attentionOut,
                workspaceSize,
                executor,
            )
        }
    }
    pub unsafe fn aclnnIncreFlashAttentionV4(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnIncreFlashAttentionV4
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
    pub unsafe fn aclnnFusedInferAttentionScoreV2GetWorkspaceSize(
        &self,
        query: *const aclTensor,
        key: *const aclTensorList,
        value: *const aclTensorList,
        pseShift: *const aclTensor,
        attenMask: *const aclTensor,
        actualSeqLengths: *const aclIntArray,
        actualSeqLengthsKv: *const aclIntArray,
        deqScale1: *const aclTensor,
        quantScale1: *const aclTensor,
        deqScale2: *const aclTensor,
        quantScale2: *const aclTensor,
        quantOffset2: *const aclTensor,
        antiquantScale: *const aclTensor,
        antiquantOffset: *const aclTensor,
        blockTable: *const aclTensor,
        queryPaddingSize: *const aclTensor,
        kvPaddingSize: *const aclTensor,
        keyAntiquantScale: *const aclTensor,
        keyAntiquantOffset: *const aclTensor,
        valueAntiquantScale: *const aclTensor,
        valueAntiquantOffset: *const aclTensor,
        keySharedPrefix: *const aclTensor,
        valueSharedPrefix: *const aclTensor,
        actualSharedPrefixLen: *const aclIntArray,
        numHeads: i64,
        scaleValue: f64,
        preTokens: i64,
        nextTokens: i64,
        inputLayout: *mut ::std::os::raw::c_char,
        numKeyValueHeads: i64,
        sparseMode: i64,
        innerPrecise: i64,
        blockSize: i64,
        antiquantMode: i64,
        softmaxLseFlag: bool,
        keyAntiquantMode: i64,
        valueAntiquantMode: i64,
        attentionOut: *const aclTensor,
        softmaxLse: *const aclTensor,
        workspaceSize: *mut u64,
        executor: *mut *mut aclOpExecutor,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnFusedInferAttentionScoreV2GetWorkspaceSize
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(
                query,
                key,
                value,
                pseShift,
                attenMask,
                actualSeqLengths,
                actualSeqLengthsKv,
                deqScale1,
                quantScale1,
                deqScale2,
                quantScale2,
                quantOffset2,
                antiquantScale,
                antiquantOffset,
                blockTable,
                queryPaddingSize,
                kvPaddingSize,
                keyAntiquantScale,
                keyAntiquantOffset,
                valueAntiquantScale,
                valueAntiquantOffset,
                keySharedPrefix,
                valueSharedPrefix,
                actualSharedPrefixLen,
                numHeads,
                scaleValue,
                preTokens,
                nextTokens,
                inputLayout,
                numKeyValueHeads,
                sparseMode,
                innerPrecise,
                blockSize,
                antiquantMode,
                softmaxLseFlag,
                keyAntiquantMode,
                valueAntiquantMode,
                attentionOut,
                softmaxLse,
                workspaceSize,
                executor,
            )
        }
    }
    pub unsafe fn aclnnFusedInferAttentionScoreV2(
        &self,
        workspace: *mut ::std::os::raw::c_void,
        workspaceSize: u64,
        executor: *mut aclOpExecutor,
        stream: aclrtStream,
    ) -> aclnnStatus {
        unsafe {
            (self
                .aclnnFusedInferAttentionScoreV2
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(workspace, workspaceSize, executor, stream)
        }
    }
}

pub struct Ccl {
    __library: ::libloading::Library,
    pub HcclGetRootInfo: Result<
        unsafe extern "C" fn(rootInfo: *mut HcclRootInfo) -> HcclResult,
        ::libloading::Error,
    >,
    pub HcclCommInitRootInfo: Result<
        unsafe extern "C" fn(
            nRanks: u32,
            rootInfo: *const HcclRootInfo,
            rank: u32,
            comm: *mut HcclComm,
        ) -> HcclResult,
        ::libloading::Error,
    >,
    pub HcclCommDestroy: Result<
        unsafe extern "C" fn(comm: HcclComm) -> HcclResult,
        ::libloading::Error,
    >,
    pub HcclAllReduce: Result<
        unsafe extern "C" fn(
            sendBuf: *mut ::std::os::raw::c_void,
            recvBuf: *mut ::std::os::raw::c_void,
            count: u64,
            dataType: HcclDataType,
            op: HcclReduceOp,
            comm: HcclComm,
            stream: aclrtStream,
        ) -> HcclResult,
        ::libloading::Error,
    >,
}
impl Ccl {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = unsafe { ::libloading::Library::new(path) }?;
        unsafe { Self::from_library(library) }
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let HcclGetRootInfo = unsafe { __library.get(b"HcclGetRootInfo\0") }
            .map(|sym| *sym);
        let HcclCommInitRootInfo = unsafe { __library.get(b"HcclCommInitRootInfo\0") }
            .map(|sym| *sym);
        let HcclCommDestroy = unsafe { __library.get(b"HcclCommDestroy\0") }
            .map(|sym| *sym);
        let HcclAllReduce = unsafe { __library.get(b"HcclAllReduce\0") }.map(|sym| *sym);
        Ok(Ccl {
            __library,
            HcclGetRootInfo,
            HcclCommInitRootInfo,
            HcclCommDestroy,
            HcclAllReduce,
        })
    }
    pub unsafe fn HcclGetRootInfo(&self, rootInfo: *mut HcclRootInfo) -> HcclResult {
        unsafe {
            (self
                .HcclGetRootInfo
                .as_ref()
                .expect("Expected function, got error."))(rootInfo)
        }
    }
    pub unsafe fn HcclCommInitRootInfo(
        &self,
        nRanks: u32,
        rootInfo: *const HcclRootInfo,
        rank: u32,
        comm: *mut HcclComm,
    ) -> HcclResult {
        unsafe {
            (self
                .HcclCommInitRootInfo
                .as_ref()
                .expect("Expected function, got error."))(nRanks, rootInfo, rank, comm)
        }
    }
    pub unsafe fn HcclCommDestroy(&self, comm: HcclComm) -> HcclResult {
        unsafe {
            (self.HcclCommDestroy.as_ref().expect("Expected function, got error."))(comm)
        }
    }
    pub unsafe fn HcclAllReduce(
        &self,
        sendBuf: *mut ::std::os::raw::c_void,
        recvBuf: *mut ::std::os::raw::c_void,
        count: u64,
        dataType: HcclDataType,
        op: HcclReduceOp,
        comm: HcclComm,
        stream: aclrtStream,
    ) -> HcclResult {
        unsafe {
            (self
                .HcclAllReduce
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(sendBuf, recvBuf, count, dataType, op, comm, stream)
        }
    }
}

pub struct Dcmi {
    __library: ::libloading::Library,
    pub dcmi_init: Result<
        unsafe extern "C" fn() -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub dcmi_get_card_id_device_id_from_logicid: Result<
        unsafe extern "C" fn(
            card_id: *mut ::std::os::raw::c_int,
            device_id: *mut ::std::os::raw::c_int,
            device_logic_id: ::std::os::raw::c_uint,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub dcmi_get_device_power_info: Result<
        unsafe extern "C" fn(
            card_id: ::std::os::raw::c_int,
            device_id: ::std::os::raw::c_int,
            power: *mut ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub dcmi_mcu_get_power_info: Result<
        unsafe extern "C" fn(
            card_id: ::std::os::raw::c_int,
            power: *mut ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub dcmi_get_device_pcie_info_v2: Result<
        unsafe extern "C" fn(
            card_id: ::std::os::raw::c_int,
            device_id: ::std::os::raw::c_int,
            pcie_info: *mut dcmi_pcie_info_all,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub dcmi_get_device_temperature: Result<
        unsafe extern "C" fn(
            card_id: ::std::os::raw::c_int,
            device_id: ::std::os::raw::c_int,
            temperature: *mut ::std::os::raw::c_int,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub dcmi_get_device_utilization_rate: Result<
        unsafe extern "C" fn(
            card_id: ::std::os::raw::c_int,
            device_id: ::std::os::raw::c_int,
            input_type: ::std::os::raw::c_int,
            utilization_rate: *mut ::std::os::raw::c_uint,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
}
impl Dcmi {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = unsafe { ::libloading::Library::new(path) }?;
        unsafe { Self::from_library(library) }
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let dcmi_init = unsafe { __library.get(b"dcmi_init\0") }.map(|sym| *sym);
        let dcmi_get_card_id_device_id_from_logicid = unsafe {
            __library.get(b"dcmi_get_card_id_device_id_from_logicid\0")
        }
            .map(|sym| *sym);
        let dcmi_get_device_power_info = unsafe {
            __library.get(b"dcmi_get_device_power_info\0")
        }
            .map(|sym| *sym);
        let dcmi_mcu_get_power_info = unsafe {
            __library.get(b"dcmi_mcu_get_power_info\0")
        }
            .map(|sym| *sym);
        let dcmi_get_device_pcie_info_v2 = unsafe {
            __library.get(b"dcmi_get_device_pcie_info_v2\0")
        }
            .map(|sym| *sym);
        let dcmi_get_device_temperature = unsafe {
            __library.get(b"dcmi_get_device_temperature\0")
        }
            .map(|sym| *sym);
        let dcmi_get_device_utilization_rate = unsafe {
            __library.get(b"dcmi_get_device_utilization_rate\0")
        }
            .map(|sym| *sym);
        Ok(Dcmi {
            __library,
            dcmi_init,
            dcmi_get_card_id_device_id_from_logicid,
            dcmi_get_device_power_info,
            dcmi_mcu_get_power_info,
            dcmi_get_device_pcie_info_v2,
            dcmi_get_device_temperature,
            dcmi_get_device_utilization_rate,
        })
    }
    pub unsafe fn dcmi_init(&self) -> ::std::os::raw::c_int {
        unsafe { (self.dcmi_init.as_ref().expect("Expected function, got error."))() }
    }
    pub unsafe fn dcmi_get_card_id_device_id_from_logicid(
        &self,
        card_id: *mut ::std::os::raw::c_int,
        device_id: *mut ::std::os::raw::c_int,
        device_logic_id: ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .dcmi_get_card_id_device_id_from_logicid
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(card_id, device_id, device_logic_id)
        }
    }
    pub unsafe fn dcmi_get_device_power_info(
        &self,
        card_id: ::std::os::raw::c_int,
        device_id: ::std::os::raw::c_int,
        power: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .dcmi_get_device_power_info
                .as_ref()
                .expect("Expected function, got error."))(card_id, device_id, power)
        }
    }
    pub unsafe fn dcmi_mcu_get_power_info(
        &self,
        card_id: ::std::os::raw::c_int,
        power: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .dcmi_mcu_get_power_info
                .as_ref()
                .expect("Expected function, got error."))(card_id, power)
        }
    }
    pub unsafe fn dcmi_get_device_pcie_info_v2(
        &self,
        card_id: ::std::os::raw::c_int,
        device_id: ::std::os::raw::c_int,
        pcie_info: *mut dcmi_pcie_info_all,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .dcmi_get_device_pcie_info_v2
                .as_ref()
                .expect("Expected function, got error."))(card_id, device_id, pcie_info)
        }
    }
    pub unsafe fn dcmi_get_device_temperature(
        &self,
        card_id: ::std::os::raw::c_int,
        device_id: ::std::os::raw::c_int,
        temperature: *mut ::std::os::raw::c_int,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .dcmi_get_device_temperature
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(card_id, device_id, temperature)
        }
    }
    pub unsafe fn dcmi_get_device_utilization_rate(
        &self,
        card_id: ::std::os::raw::c_int,
        device_id: ::std::os::raw::c_int,
        input_type: ::std::os::raw::c_int,
        utilization_rate: *mut ::std::os::raw::c_uint,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .dcmi_get_device_utilization_rate
                .as_ref()
                .expect(
                    "Expected function, got error.",
                ))(card_id, device_id, input_type, utilization_rate)
        }
    }
}

pub struct Emu {
    __library: ::libloading::Library,
    pub ascend_emulator_configure: Result<
        unsafe extern "C" fn(
            settings: *const ::std::os::raw::c_char,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub ascend_emulator_info: Result<
        unsafe extern "C" fn() -> *const ::std::os::raw::c_char,
        ::libloading::Error,
    >,
    pub ascend_emulator_now_ns: Result<
        unsafe extern "C" fn() -> u64,
        ::libloading::Error,
    >,
    pub ascend_emulator_host_work: Result<
        unsafe extern "C" fn(ns: u64),
        ::libloading::Error,
    >,
    pub ascend_emulator_counts: Result<
        unsafe extern "C" fn(out: *mut u64, n: u64) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub ascend_emulator_take_work: Result<
        unsafe extern "C" fn(out: *mut f64, n: u64) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub ascend_emulator_price_work: Result<
        unsafe extern "C" fn(
            settings: *const ::std::os::raw::c_char,
            work: *const f64,
            n: u64,
            ns: *mut f64,
        ) -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
    pub ascend_emulator_reset: Result<
        unsafe extern "C" fn() -> ::std::os::raw::c_int,
        ::libloading::Error,
    >,
}
impl Emu {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = unsafe { ::libloading::Library::new(path) }?;
        unsafe { Self::from_library(library) }
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let ascend_emulator_configure = unsafe {
            __library.get(b"ascend_emulator_configure\0")
        }
            .map(|sym| *sym);
        let ascend_emulator_info = unsafe { __library.get(b"ascend_emulator_info\0") }
            .map(|sym| *sym);
        let ascend_emulator_now_ns = unsafe {
            __library.get(b"ascend_emulator_now_ns\0")
        }
            .map(|sym| *sym);
        let ascend_emulator_host_work = unsafe {
            __library.get(b"ascend_emulator_host_work\0")
        }
            .map(|sym| *sym);
        let ascend_emulator_counts = unsafe {
            __library.get(b"ascend_emulator_counts\0")
        }
            .map(|sym| *sym);
        let ascend_emulator_take_work = unsafe {
            __library.get(b"ascend_emulator_take_work\0")
        }
            .map(|sym| *sym);
        let ascend_emulator_price_work = unsafe {
            __library.get(b"ascend_emulator_price_work\0")
        }
            .map(|sym| *sym);
        let ascend_emulator_reset = unsafe { __library.get(b"ascend_emulator_reset\0") }
            .map(|sym| *sym);
        Ok(Emu {
            __library,
            ascend_emulator_configure,
            ascend_emulator_info,
            ascend_emulator_now_ns,
            ascend_emulator_host_work,
            ascend_emulator_counts,
            ascend_emulator_take_work,
            ascend_emulator_price_work,
            ascend_emulator_reset,
        })
    }
    pub unsafe fn ascend_emulator_configure(
        &self,
        settings: *const ::std::os::raw::c_char,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .ascend_emulator_configure
                .as_ref()
                .expect("Expected function, got error."))(settings)
        }
    }
    pub unsafe fn ascend_emulator_info(&self) -> *const ::std::os::raw::c_char {
        unsafe {
            (self
                .ascend_emulator_info
                .as_ref()
                .expect("Expected function, got error."))()
        }
    }
    pub unsafe fn ascend_emulator_now_ns(&self) -> u64 {
        unsafe {
            (self
                .ascend_emulator_now_ns
                .as_ref()
                .expect("Expected function, got error."))()
        }
    }
    pub unsafe fn ascend_emulator_host_work(&self, ns: u64) {
        unsafe {
            (self
                .ascend_emulator_host_work
                .as_ref()
                .expect("Expected function, got error."))(ns)
        }
    }
    pub unsafe fn ascend_emulator_counts(
        &self,
        out: *mut u64,
        n: u64,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .ascend_emulator_counts
                .as_ref()
                .expect("Expected function, got error."))(out, n)
        }
    }
    pub unsafe fn ascend_emulator_take_work(
        &self,
        out: *mut f64,
        n: u64,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .ascend_emulator_take_work
                .as_ref()
                .expect("Expected function, got error."))(out, n)
        }
    }
    pub unsafe fn ascend_emulator_price_work(
        &self,
        settings: *const ::std::os::raw::c_char,
        work: *const f64,
        n: u64,
        ns: *mut f64,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .ascend_emulator_price_work
                .as_ref()
                .expect("Expected function, got error."))(settings, work, n, ns)
        }
    }
    pub unsafe fn ascend_emulator_reset(&self) -> ::std::os::raw::c_int {
        unsafe {
            (self
                .ascend_emulator_reset
                .as_ref()
                .expect("Expected function, got error."))()
        }
    }
}
