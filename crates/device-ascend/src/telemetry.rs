//! Power, temperature, utilisation and memory of a chip, as far as its libraries report them.
//!
//! DCMI comes with the driver and reports power in tenths of a watt. On a 910B it is the power of the chip, on a 310P of
//! the whole card.
//! It also reports temperature. AscendCL reports utilisation and memory. DCMI counts all chips of the machine, AscendCL
//! the visible ones.

use std::ptr;
use std::sync::Arc;

use ascend_sys::{ACL_DDR_MEM, ACL_HBM_MEM, Dcmi, aclrtUtilizationInfo, call, dcmi_pcie_info_all};

use glmbench_device::DeviceError;
use glmbench_device::sensors::{Methods, Reading, Readings, Sensors};

use super::api::{Api, acl};
use super::context::Context;
use super::settings::Chip;
use super::visible::{VISIBLE_DEVICES, logic_id};

/// Memory of a chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Free bytes.
    pub free_bytes: u64,
    /// Total bytes.
    pub total_bytes: u64,
}

/// A chip's readings at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Watts: of the chip (910B) or of the whole card (310P).
    pub power_w: Reading<f64>,
    /// Temperature in degrees Celsius.
    pub temp_c: Reading<f64>,
    /// Utilisation of the matrix unit, 0 to 1.
    pub utilisation: Reading<f64>,
    /// Device memory.
    pub memory: Reading<Memory>,
}

impl Telemetry {
    /// Returns the source of each value with its unit, in the order of the fields.
    pub fn methods(chip: Chip) -> [(&'static str, &'static str); 4] {
        let power = match chip {
            Chip::Duo300i => "dcmi_mcu_get_power_info, W of the whole card",
            Chip::A2800i => "dcmi_get_device_power_info, W of the chip",
        };
        [
            ("power", power),
            ("temperature", "dcmi_get_device_temperature, degrees Celsius"),
            ("utilisation", "aclrtGetDeviceUtilizationRate, matrix unit, 0 to 1"),
            ("memory", "aclrtGetMemInfo, bytes"),
        ]
    }
}

/// Samples the chips of a group, on any thread beside the ranks.
#[derive(Clone)]
pub struct TelemetrySource {
    pub(super) api: Arc<Api>,
    pub(super) chip: Chip,
    /// Ranks, one chip each.
    pub(super) tp: usize,
}

impl Sensors for TelemetrySource {
    fn read(&self) -> Vec<Readings> {
        let readings = |told: Telemetry| Readings {
            power_w: told.power_w,
            utilisation: told.utilisation,
            temp_c: told.temp_c,
            memory_bytes: told.memory.map(|m| m.total_bytes.saturating_sub(m.free_bytes)),
        };
        (0..self.tp).map(|ordinal| readings(self.chip(ordinal))).collect()
    }

    fn forget_peak(&self) {
        (0..self.tp as i32).for_each(|ordinal| self.api.ledger.forget_peak(ordinal));
    }

    /// What the libraries take besides counts as in use now.
    fn peak_memory(&self) -> Option<u64> {
        let peak = |ordinal: usize| {
            let memory = self.chip(ordinal).memory.ok()?;
            Some(
                memory.total_bytes.saturating_sub(memory.free_bytes)
                    + self.api.ledger.above_now(ordinal as i32),
            )
        };
        (0..self.tp).filter_map(peak).max()
    }

    /// The emulator's figures are not measurements, and the text says so.
    fn methods(&self) -> Methods {
        let [power, temperature, utilisation, memory] = Telemetry::methods(self.chip).map(|(_, how)| how);
        let emulated = self.api.libraries.emu.is_some();
        let [made_up, counted] = if emulated {
            [
                "made up by the emulator (telemetry = fake), no measurement: ",
                "the emulator's count of its allocations: ",
            ]
        } else {
            ["", ""]
        };
        let chips = chips_of_dcmi(self.tp, std::env::var(VISIBLE_DEVICES).ok().as_deref());
        let sensor = |how: &str| format!("{made_up}{how}");
        let memory = format!("{counted}{memory}, total less free");
        Methods {
            power: format!("{}{chips}", sensor(power)),
            utilisation: sensor(utilisation),
            temperature: format!("{}{chips}", sensor(temperature)),
            memory,
        }
    }
}

impl TelemetrySource {
    /// Returns the PCI address of the `ordinal`-th visible chip, as the driver reports it.
    pub fn pci_address(&self, ordinal: usize) -> Reading<String> {
        pci_address(&self.api, ordinal)
    }

    /// Reads the `ordinal`-th visible chip.
    pub fn chip(&self, ordinal: usize) -> Telemetry {
        // Memory is reported for the device that is set on the thread.
        let context = Context::new(self.api.clone(), ordinal as i32);
        let mut told = read(&self.api, self.chip, ordinal);
        if let Err(error) = context {
            told.memory = Err(error.to_string());
        }
        told
    }
}

/// Reads a chip; `ordinal` counts the visible ones. Memory is that of the device set on the calling thread.
pub(super) fn read(api: &Api, chip: Chip, ordinal: usize) -> Telemetry {
    let place = place(api, ordinal);
    let with = |ask: &dyn Fn(&Dcmi, i32, i32) -> Reading<f64>| match &place {
        Ok((dcmi, card, device)) => ask(dcmi, *card, *device),
        Err(reason) => Err(reason.clone()),
    };
    Telemetry {
        power_w: with(&|dcmi, card, device| power(dcmi, chip, card, device)),
        temp_c: with(&temperature),
        utilisation: utilisation(api, ordinal),
        memory: memory(api).map_err(|e| e.to_string()),
    }
}

/// Returns which chips DCMI's figures describe. DCMI counts all chips of the machine (in a container, all that it has).
fn chips_of_dcmi(tp: usize, visible: Option<&str>) -> String {
    let visible = visible.filter(|list| !list.is_empty());
    let ids = (0..tp).map(|ordinal| logic_id(ordinal, visible));
    let Ok(ids) = ids.collect::<Result<Vec<_>, _>>() else { return String::new() };
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let ids = format!("; device id {}", ids.join(", "));
    match visible {
        None => ids,
        Some(list) => format!(
            "{ids} by {VISIBLE_DEVICES}={list}, which DCMI's documentation says not to combine with it: compare npu-smi info"
        ),
    }
}

/// Returns DCMI's card and device ids of the `ordinal`-th visible chip.
fn place(api: &Api, ordinal: usize) -> Reading<(&Dcmi, i32, i32)> {
    let dcmi = api.libraries.dcmi.as_ref().map_err(|e| e.to_string())?;
    let visible = std::env::var(VISIBLE_DEVICES).ok();
    let logic = logic_id(ordinal, visible.as_deref())? as u32;
    // SAFETY: the function takes nothing and may be called again.
    told("dcmi_init", unsafe { call!(dcmi, dcmi_init()) })?;
    let (mut card, mut device) = (0, 0);
    // SAFETY: two places for numbers.
    let found = unsafe {
        let (card, device) = (ptr::from_mut(&mut card), ptr::from_mut(&mut device));
        call!(dcmi, dcmi_get_card_id_device_id_from_logicid(card, device, logic))
    };
    told("dcmi_get_card_id_device_id_from_logicid", found)?;
    Ok((dcmi, card, device))
}

/// Returns the PCI address of the `ordinal`-th visible chip, e.g. `0000:c1:00.0`. The id does not determine it: chips are
/// not numbered in bus order (an 800I A2 lists 0 at C1:00.0 and 1 at 01:00.0).
pub(super) fn pci_address(api: &Api, ordinal: usize) -> Reading<String> {
    let (dcmi, card, device) = place(api, ordinal)?;
    let mut info = dcmi_pcie_info_all {
        venderid: 0,
        subvenderid: 0,
        deviceid: 0,
        subdeviceid: 0,
        domain: 0,
        bdf_busid: 0,
        bdf_deviceid: 0,
        bdf_funcid: 0,
        reserve: [0; 32],
    };
    // SAFETY: a struct of the documented layout.
    let asked = unsafe { call!(dcmi, dcmi_get_device_pcie_info_v2(card, device, ptr::from_mut(&mut info))) };
    told("dcmi_get_device_pcie_info_v2", asked)?;
    let dcmi_pcie_info_all { domain, bdf_busid, bdf_deviceid, bdf_funcid, .. } = info;
    Ok(format!("{domain:04x}:{bdf_busid:02x}:{bdf_deviceid:02x}.{bdf_funcid:x}"))
}

fn told(function: &str, answer: Result<i32, &str>) -> Reading<()> {
    match answer {
        Ok(0) => Ok(()),
        Ok(code) => Err(format!("{function} failed with {code}")),
        Err(missing) => Err(format!("the driver's library has no {missing}")),
    }
}

fn power(dcmi: &Dcmi, chip: Chip, card: i32, device: i32) -> Reading<f64> {
    let mut tenths = 0;
    let place = ptr::from_mut(&mut tenths);
    let (function, answer) = match chip {
        Chip::Duo300i => {
            // SAFETY: a place for the number.
            ("dcmi_mcu_get_power_info", unsafe { call!(dcmi, dcmi_mcu_get_power_info(card, place)) })
        }
        Chip::A2800i => {
            // SAFETY: a place for the number.
            let answer = unsafe { call!(dcmi, dcmi_get_device_power_info(card, device, place)) };
            ("dcmi_get_device_power_info", answer)
        }
    };
    told(function, answer)?;
    Ok(f64::from(tenths) / 10.0)
}

fn temperature(dcmi: &Dcmi, card: i32, device: i32) -> Reading<f64> {
    let mut degrees = 0;
    // SAFETY: a place for the number.
    told("dcmi_get_device_temperature", unsafe {
        call!(dcmi, dcmi_get_device_temperature(card, device, ptr::from_mut(&mut degrees)))
    })?;
    Ok(f64::from(degrees))
}

fn utilisation(api: &Api, ordinal: usize) -> Reading<f64> {
    let mut info = aclrtUtilizationInfo {
        cubeUtilization: -1,
        vectorUtilization: -1,
        aicpuUtilization: -1,
        memoryUtilization: -1,
        utilizationExtend: ptr::null_mut(),
    };
    // SAFETY: a struct of the documented layout.
    let asked = unsafe {
        let place = ptr::from_mut(&mut info);
        acl!(api, api.libraries.rt, aclrtGetDeviceUtilizationRate(ordinal as i32, place))
    };
    asked.map_err(|e| e.to_string())?;
    if (0..=100).contains(&info.cubeUtilization) {
        return Ok(f64::from(info.cubeUtilization) / 100.0);
    }
    Err(format!(
        "aclrtGetDeviceUtilizationRate says {}: not measured, e.g. while profiling",
        info.cubeUtilization
    ))
}

/// Reads the memory with a nonzero total: a 310P has DDR, a 910B HBM.
fn memory(api: &Api) -> Result<Memory, DeviceError> {
    let mut last = Ok(());
    for kind in [ACL_HBM_MEM, ACL_DDR_MEM] {
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: two places for numbers.
        last = unsafe { acl!(api, api.libraries.rt, aclrtGetMemInfo(kind, &raw mut free, &raw mut total)) };
        if last.is_ok() && total > 0 {
            return Ok(Memory { free_bytes: free as u64, total_bytes: total as u64 });
        }
    }
    last?;
    Err(DeviceError::Unsupported { device: api.device, problem: "aclrtGetMemInfo knows of no memory".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dcmis_figures_name_their_chips() {
        assert_eq!(chips_of_dcmi(2, None), "; device id 0, 1");
        assert_eq!(chips_of_dcmi(1, Some("")), "; device id 0");
        let told = chips_of_dcmi(2, Some("4,6"));
        assert!(told.starts_with("; device id 4, 6 by ASCEND_RT_VISIBLE_DEVICES=4,6, "), "{told}");
        // A list that the runtime refuses has no chips.
        assert_eq!(chips_of_dcmi(2, Some("6,4")), "");
    }
}
