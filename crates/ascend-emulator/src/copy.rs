//! Copies and sets memory, synchronously or in a stream.

use std::ffi::c_void;
use std::sync::Arc;

use crate::clock::{Entry, Work};
use crate::memory::{Allocation, is_pinned};
use crate::registry::{Device, with_device};
use crate::status::{INVALID_PARAM, Outcome, RT_AICORE_EXCEPTION, RT_PARAM_INVALID, entry, fail};
use crate::stream::{Address, Job, RawStream, Stream};

/// Which sides of a copy are device memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    HostToHost,
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
}

impl Kind {
    fn from_code(code: i32) -> Outcome<Self> {
        Ok(match code {
            0 => Self::HostToHost,
            1 => Self::HostToDevice,
            2 => Self::DeviceToHost,
            3 => Self::DeviceToDevice,
            _ => return fail(INVALID_PARAM, format!("kind is {code}, expected 0 to 3")),
        })
    }

    fn to_device(self) -> bool {
        matches!(self, Self::HostToDevice | Self::DeviceToDevice)
    }

    fn from_device(self) -> bool {
        matches!(self, Self::DeviceToHost | Self::DeviceToDevice)
    }
}

/// A validated copy of `height` rows.
#[derive(Clone)]
struct Copy2d {
    to: Address,
    to_pitch: usize,
    from: Address,
    from_pitch: usize,
    width: usize,
    height: usize,
    kind: Kind,
    shares: Vec<Arc<Allocation>>,
}

impl Copy2d {
    fn check(mut self, device: &Device) -> Outcome<Self> {
        if self.to.0.is_null() || self.from.0.is_null() {
            return fail(INVALID_PARAM, "dst or src is null");
        }
        if self.width == 0 || self.height == 0 {
            return fail(RT_PARAM_INVALID, "nothing is to be copied: the size is 0");
        }
        let extent = |pitch: usize| pitch.checked_mul(self.height - 1)?.checked_add(self.width);
        let (Some(to_bytes), Some(from_bytes)) = (extent(self.to_pitch), extent(self.from_pitch)) else {
            return fail(RT_PARAM_INVALID, "the size overflows");
        };
        let sides = [
            ("dst", self.to, to_bytes, self.kind.to_device()),
            ("src", self.from, from_bytes, self.kind.from_device()),
        ];
        for (name, address, bytes, on_device) in sides {
            let found = device.find(address.0 as usize, bytes);
            match (found, on_device) {
                (Some(share), true) => self.shares.push(share),
                (None, true) => {
                    return fail(
                        RT_PARAM_INVALID,
                        format!(
                            "{name}: {bytes} bytes at {:p} are not inside memory of device {}",
                            address.0, device.id
                        ),
                    );
                }
                (Some(_), false) => {
                    return fail(
                        RT_PARAM_INVALID,
                        format!("{name}: {:p} is device memory, the kind says host", address.0),
                    );
                }
                (None, false) => {}
            }
        }
        Ok(self)
    }

    fn bytes(&self) -> usize {
        self.width * self.height
    }

    fn pinned(&self) -> bool {
        let (address, pitch) = match self.kind {
            Kind::DeviceToDevice => return true,
            Kind::HostToHost => return false,
            Kind::HostToDevice => (self.from.0 as usize, self.from_pitch),
            Kind::DeviceToHost => (self.to.0 as usize, self.to_pitch),
        };
        is_pinned(address, pitch * (self.height - 1) + self.width)
    }

    fn duration_ns(&self, device: &Device) -> u64 {
        match self.kind {
            Kind::HostToHost => 0,
            Kind::DeviceToDevice => device.charge(Work::DeviceCopy(self.bytes())),
            _ => device.charge(Work::HostCopy(self.bytes())),
        }
    }

    /// # Safety
    /// Both sides are as the caller of the exported function declared.
    unsafe fn run(&self, computes: bool) -> Outcome {
        if self.shares.iter().any(|share| share.is_freed()) {
            return fail(RT_AICORE_EXCEPTION, "a copy met memory that was freed before it ran");
        }
        for row in 0..self.height {
            // SAFETY: device sides were checked and are held; host sides are the caller's word.
            unsafe {
                let to = self.to.bytes().add(row * self.to_pitch);
                let from = self.from.bytes().add(row * self.from_pitch);
                match self.kind {
                    Kind::HostToHost => std::ptr::copy(from, to, self.width),
                    _ if computes => std::ptr::copy(from, to, self.width),
                    Kind::DeviceToHost => to.write_bytes(0, self.width),
                    Kind::HostToDevice | Kind::DeviceToDevice => {}
                }
            }
        }
        Ok(())
    }
}

fn row_copy(
    to: *mut c_void,
    room: usize,
    from: *const c_void,
    count: usize,
    kind: i32,
    device: &Device,
) -> Outcome<Copy2d> {
    if room < count {
        return fail(RT_PARAM_INVALID, format!("destMax is {room}, count is {count}: too little room"));
    }
    Copy2d {
        to: Address(to),
        to_pitch: count,
        from: Address(from.cast_mut()),
        from_pitch: count,
        width: count,
        height: 1,
        kind: Kind::from_code(kind)?,
        shares: Vec::new(),
    }
    .check(device)
}

/// Copies synchronously. Does not wait for streams.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtMemcpy(
    to: *mut c_void,
    room: usize,
    from: *const c_void,
    count: usize,
    kind: i32,
) -> i32 {
    entry("aclrtMemcpy", || {
        with_device(|device| {
            device.check_alive()?;
            device.require_no_capture()?;
            let copy = row_copy(to, room, from, count, kind, device)?;
            // SAFETY: checked above; host sides are the caller's word.
            unsafe { copy.run(device.computes())? };
            let begin = device.spend_host(device.config.profile.host_call_ns);
            device.host_until(begin + copy.duration_ns(device));
            Ok(())
        })
    })
}

/// Alignment that copies in a stream require of host and device addresses, up to CANN 8.3.
const ASYNC_ALIGNMENT: usize = 64;

impl Copy2d {
    /// Rejects what is undefined on hardware up to CANN 8.3: pageable host memory and unaligned addresses.
    fn check_in_stream(&self) -> Outcome {
        if !matches!(self.kind, Kind::HostToDevice | Kind::DeviceToHost) {
            return Ok(());
        }
        if !self.pinned() {
            return fail(
                RT_PARAM_INVALID,
                "the host memory of a copy in a stream is not from aclrtMallocHost",
            );
        }
        for (name, address) in [("dst", self.to), ("src", self.from)] {
            if !(address.0 as usize).is_multiple_of(ASYNC_ALIGNMENT) {
                let at = address.0;
                return fail(
                    RT_PARAM_INVALID,
                    format!(
                        "{name} of a copy in a stream is {at:p}, expected a multiple of {ASYNC_ALIGNMENT}"
                    ),
                );
            }
        }
        Ok(())
    }
}

fn enqueue_copy(copy: Copy2d, stream: RawStream, device: &Device) -> Outcome {
    copy.check_in_stream()?;
    // SAFETY: the caller's pointer is a stream handle or null.
    let stream = unsafe { Stream::of(stream, device)? };
    stream.require_free()?;
    let duration_ns = copy.duration_ns(device);
    let in_host = copy.kind == Kind::HostToHost;
    let computes = device.computes();
    if computes {
        // SAFETY: checked before; by the ABI's contract, the host side stays valid until the stream is synchronised.
        let job: Job = Box::new(move || unsafe { copy.run(computes) });
        stream.submit(job);
    } else {
        // SAFETY: checked before; device memory is not touched.
        unsafe { copy.run(computes)? };
    }
    let host_ns = device.spend_host(device.config.profile.host_call_ns);
    stream.enter(host_ns, Entry::Work { duration_ns, cores: false });
    if in_host {
        device.host_until(stream.drain(None)?);
    }
    Ok(())
}

/// Copies in a stream.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtMemcpyAsync(
    to: *mut c_void,
    room: usize,
    from: *const c_void,
    count: usize,
    kind: i32,
    stream: RawStream,
) -> i32 {
    entry("aclrtMemcpyAsync", || {
        with_device(|device| {
            device.check_alive()?;
            enqueue_copy(row_copy(to, room, from, count, kind, device)?, stream, device)
        })
    })
}

/// Copies `height` rows of `width` bytes in a stream.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtMemcpy2dAsync(
    to: *mut c_void,
    to_pitch: usize,
    from: *const c_void,
    from_pitch: usize,
    width: usize,
    height: usize,
    kind: i32,
    stream: RawStream,
) -> i32 {
    entry("aclrtMemcpy2dAsync", || {
        with_device(|device| {
            device.check_alive()?;
            if width > to_pitch || width > from_pitch {
                return fail(
                    RT_PARAM_INVALID,
                    format!("width is {width}, dpitch {to_pitch}, spitch {from_pitch}: rows overlap"),
                );
            }
            let (to, from) = (Address(to), Address(from.cast_mut()));
            let kind = Kind::from_code(kind)?;
            let copy = Copy2d { to, to_pitch, from, from_pitch, width, height, kind, shares: Vec::new() };
            enqueue_copy(copy.check(device)?, stream, device)
        })
    })
}

fn check_set(pointer: *mut c_void, room: usize, count: usize, device: &Device) -> Outcome<Arc<Allocation>> {
    if pointer.is_null() || count == 0 {
        return fail(INVALID_PARAM, format!("devPtr is {pointer:p}, count is {count}"));
    }
    if room < count {
        return fail(RT_PARAM_INVALID, format!("maxCount is {room}, count is {count}: too little room"));
    }
    match device.find(pointer as usize, count) {
        Some(share) => Ok(share),
        None => fail(
            RT_PARAM_INVALID,
            format!("{count} bytes at {pointer:p} are not inside memory of device {}", device.id),
        ),
    }
}

/// Sets memory synchronously.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtMemset(
    pointer: *mut c_void,
    room: usize,
    value: i32,
    count: usize,
) -> i32 {
    entry("aclrtMemset", || {
        with_device(|device| {
            device.check_alive()?;
            device.require_no_capture()?;
            let _share = check_set(pointer, room, count, device)?;
            if device.computes() {
                // SAFETY: inside an allocation, which is held.
                unsafe { pointer.cast::<u8>().write_bytes(value as u8, count) };
            }
            let begin = device.spend_host(device.config.profile.host_call_ns);
            device.host_until(begin + device.charge(Work::DeviceSet(count)));
            Ok(())
        })
    })
}

/// Sets memory in a stream.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclrtMemsetAsync(
    pointer: *mut c_void,
    room: usize,
    value: i32,
    count: usize,
    stream: RawStream,
) -> i32 {
    entry("aclrtMemsetAsync", || {
        with_device(|device| {
            device.check_alive()?;
            let share = check_set(pointer, room, count, device)?;
            // SAFETY: the caller's pointer is a stream handle or null.
            let stream = unsafe { Stream::of(stream, device)? };
            stream.require_free()?;
            if device.computes() {
                let address = Address(pointer);
                stream.submit(Box::new(move || {
                    if share.is_freed() {
                        return fail(RT_AICORE_EXCEPTION, "a memset met memory that was freed before it ran");
                    }
                    // SAFETY: inside an allocation, which is held.
                    unsafe { address.bytes().write_bytes(value as u8, count) };
                    Ok(())
                }));
            }
            let host_ns = device.spend_host(device.config.profile.host_call_ns);
            let duration_ns = device.charge(Work::DeviceSet(count));
            stream.enter(host_ns, Entry::Work { duration_ns, cores: false });
            Ok(())
        })
    })
}
