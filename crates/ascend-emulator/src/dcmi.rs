//! DCMI with obviously made-up numbers: everything reads 11. Available only with `telemetry = fake`. Otherwise the
//! emulator behaves like a machine without the driver's library, which has no DCMI.

use std::ffi::{c_char, c_int, c_uint};

use crate::registry::machine;
use crate::settings::{Config, Soc};

/// The function is not supported.
const NOT_SUPPORTED: c_int = -8255;
/// A parameter is invalid.
const INVALID: c_int = -8001;

/// Value of every percentage.
pub(crate) const FAKE_PERCENT: c_uint = 11;
/// Value of every temperature, degrees Celsius.
const FAKE_CELSIUS: c_int = 11;
/// Value of every power, in 0.1 W.
const FAKE_DECIWATT: c_int = 111;

fn with(body: impl FnOnce(&Config) -> Option<()>) -> c_int {
    match machine() {
        Ok(machine) if machine.config.fake_telemetry => body(&machine.config).map_or(INVALID, |()| 0),
        _ => NOT_SUPPORTED,
    }
}

fn put<T>(pointer: *mut T, value: T) -> Option<()> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not null; the caller's pointer.
    unsafe { pointer.write(value) };
    Some(())
}

fn chips_per_card(config: &Config) -> u32 {
    match config.soc {
        Soc::Ascend310P3 => 2,
        Soc::Ascend910B3 | Soc::Ascend910B4 => 1,
    }
}

fn check(config: &Config, card: c_int, chip: c_int) -> Option<()> {
    let (card, chip) = (u32::try_from(card).ok()?, u32::try_from(chip).ok()?);
    let per_card = chips_per_card(config);
    (chip < per_card && card * per_card + chip < config.devices).then_some(())
}

/// Initialises DCMI.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn dcmi_init() -> c_int {
    with(|_| Some(()))
}

/// Lists the cards.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_card_list(count: *mut c_int, list: *mut c_int, len: c_int) -> c_int {
    with(|config| {
        let cards = config.devices.div_ceil(chips_per_card(config)) as c_int;
        if list.is_null() {
            return None;
        }
        for card in 0..cards.min(len) {
            // SAFETY: not null; the caller's array has `len` places.
            unsafe { list.add(card as usize).write(card) };
        }
        put(count, cards.min(len))
    })
}

/// Like [`dcmi_get_card_list`].
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_card_num_list(
    count: *mut c_int,
    list: *mut c_int,
    len: c_int,
) -> c_int {
    // SAFETY: the same contract.
    unsafe { dcmi_get_card_list(count, list, len) }
}

/// Number of chips on a card.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_device_num_in_card(card: c_int, count: *mut c_int) -> c_int {
    with(|config| {
        check(config, card, 0)?;
        let per_card = chips_per_card(config);
        put(count, (config.devices - card as u32 * per_card).min(per_card) as c_int)
    })
}

/// Card and chip of a logical id.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_card_id_device_id_from_logicid(
    card: *mut c_int,
    chip: *mut c_int,
    logic_id: c_uint,
) -> c_int {
    with(|config| {
        let per_card = chips_per_card(config);
        if logic_id >= config.devices {
            return None;
        }
        put(card, (logic_id / per_card) as c_int)?;
        put(chip, (logic_id % per_card) as c_int)
    })
}

/// Power of a 910B chip, in 0.1 W.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_device_power_info(
    card: c_int,
    chip: c_int,
    power: *mut c_int,
) -> c_int {
    with(|config| check(config, card, chip).and_then(|()| put(power, FAKE_DECIWATT)))
}

/// Power of a 310P card, in 0.1 W.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_mcu_get_power_info(card: c_int, power: *mut c_int) -> c_int {
    with(|config| check(config, card, 0).and_then(|()| put(power, FAKE_DECIWATT)))
}

/// Temperature, degrees Celsius.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_device_temperature(
    card: c_int,
    chip: c_int,
    celsius: *mut c_int,
) -> c_int {
    with(|config| check(config, card, chip).and_then(|()| put(celsius, FAKE_CELSIUS)))
}

/// PCI address of a chip, as DCMI reports it.
#[repr(C)]
pub(crate) struct PcieInfo {
    ids: [c_uint; 4],
    domain: c_int,
    bus: c_uint,
    device: c_uint,
    function: c_uint,
    reserved: [u8; 32],
}

/// PCI address: buses descend from card to card, as on 910B4 machines.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_device_pcie_info_v2(
    card: c_int,
    chip: c_int,
    info: *mut PcieInfo,
) -> c_int {
    with(|config| {
        check(config, card, chip)?;
        let bus = 0xc1 - card.unsigned_abs();
        let function = chip.unsigned_abs();
        put(info, PcieInfo { ids: [0x19e5, 0, 0, 0], domain: 0, bus, device: 0, function, reserved: [0; 32] })
    })
}

/// Utilisation, percent.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_device_utilization_rate(
    card: c_int,
    chip: c_int,
    _kind: c_int,
    percent: *mut c_uint,
) -> c_int {
    with(|config| check(config, card, chip).and_then(|()| put(percent, FAKE_PERCENT)))
}

/// Frequency, MHz.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_device_frequency(
    card: c_int,
    chip: c_int,
    _kind: c_int,
    mhz: *mut c_uint,
) -> c_int {
    with(|config| check(config, card, chip).and_then(|()| put(mhz, 1111)))
}

/// Health: 0 means healthy.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_device_health(
    card: c_int,
    chip: c_int,
    health: *mut c_uint,
) -> c_int {
    with(|config| check(config, card, chip).and_then(|()| put(health, 0)))
}

/// Driver version.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_driver_version(text: *mut c_char, len: c_uint) -> c_int {
    with(|_| {
        let words = c"emulated".to_bytes_with_nul();
        if text.is_null() || (len as usize) < words.len() {
            return None;
        }
        // SAFETY: not null; the caller's array has `len` places, which are enough.
        unsafe { std::ptr::copy_nonoverlapping(words.as_ptr().cast(), text, words.len()) };
        Some(())
    })
}

/// Memory information of a 910B chip.
#[repr(C)]
pub(crate) struct HbmInfo {
    size_mb: u64,
    frequency_mhz: c_uint,
    used_mb: u64,
    celsius: c_int,
    bandwidth_percent: c_uint,
}

/// Reports the memory of a 910B chip.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dcmi_get_device_hbm_info(
    card: c_int,
    chip: c_int,
    info: *mut HbmInfo,
) -> c_int {
    with(|config| {
        check(config, card, chip)?;
        let size_mb = (config.profile.memory_bytes / 1048576.0) as u64;
        let fake = HbmInfo {
            size_mb,
            frequency_mhz: 1111,
            used_mb: 11,
            celsius: FAKE_CELSIUS,
            bandwidth_percent: FAKE_PERCENT,
        };
        put(info, fake)
    })
}
