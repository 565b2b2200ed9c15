//! The Ascend software and devices on this machine, to find out why a card is not usable.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::group::{device_count, installed};

/// The file with the driver's version.
const DRIVER_VERSION: &str = "/usr/local/Ascend/driver/version.info";
/// The folder of device nodes.
const DEVICE_NODES: &str = "/dev";
/// Prefixes of the device nodes that a process needs.
const NODE_NAMES: [&str; 4] = ["davinci", "devmm_svm", "hisi_hdc", "dvpp_cmdlist"];

/// What was found. Nothing here is measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Installation {
    /// CANN's opened libraries: family and path.
    pub libraries: Vec<(&'static str, String)>,
    /// Libraries that exist but could not be opened, with the loader's message.
    pub left_out: Vec<String>,
    /// Why no chip is usable.
    pub problem: Option<String>,
    /// The driver's version.
    pub driver: Option<String>,
    /// Device nodes.
    pub nodes: Vec<String>,
    /// Number of chips that a process may use.
    pub devices: Option<u32>,
    /// The runtime's name of the chips.
    pub soc: Option<String>,
    /// `ASCEND_OPP_PATH`: the folder of the operators.
    pub opp_path: Option<String>,
}

impl Installation {
    /// Inspects the machine. Opens and initialises CANN if it is installed.
    pub fn look() -> Self {
        let mut found = Self {
            driver: Self::driver_version(),
            nodes: nodes(Path::new(DEVICE_NODES)).iter().map(|path| path.display().to_string()).collect(),
            opp_path: std::env::var_os("ASCEND_OPP_PATH").map(|path| path.display().to_string()),
            ..Self::default()
        };
        match installed("ascend") {
            Err(error) => found.problem = Some(error.to_string()),
            Ok(api) => {
                let libraries = api.libraries.found.iter();
                found.libraries =
                    libraries.map(|l| (l.family.name(), l.path.display().to_string())).collect();
                found.left_out = api.libraries.skipped.iter().map(ToString::to_string).collect();
                match (device_count(&api), api.soc()) {
                    (Ok(devices), Ok(soc)) => (found.devices, found.soc) = (Some(devices), Some(soc)),
                    (Err(error), _) | (_, Err(error)) => found.problem = Some(error.to_string()),
                }
            }
        }
        found
    }

    /// Returns the driver's version, from its file. Opens no library.
    pub fn driver_version() -> Option<String> {
        std::fs::read_to_string(DRIVER_VERSION).ok().and_then(|text| driver_version(&text))
    }

    /// Returns whether any part of a card or its software was found.
    pub fn is_there(&self) -> bool {
        !self.libraries.is_empty() || !self.nodes.is_empty() || self.driver.is_some()
    }
}

/// Finds `Version=25.0.rc1` on any line.
fn driver_version(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("Version=")).map(|version| version.trim().to_owned())
}

fn nodes(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        NODE_NAMES.iter().any(|start| name.starts_with(start))
    };
    let mut found: Vec<PathBuf> = entries.filter(is_one).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_the_driver_are_found_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["davinci0", "davinci_manager", "hisi_hdc", "null"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = nodes(folder.path()).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["davinci0", "davinci_manager", "hisi_hdc"]);
        let told = driver_version("package_version=1\nVersion=25.0.rc1\nascendhal=7\n");
        assert_eq!(told.as_deref(), Some("25.0.rc1"));
    }

    #[test]
    fn a_machine_without_a_card_says_why() {
        let found = Installation::look();
        assert!(found.devices.is_some() != found.problem.is_some(), "{found:?}");
    }
}
