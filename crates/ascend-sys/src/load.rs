//! Finds and opens the libraries.
//!
//! Library names differ between versions of CANN. Operators are in `libopapi.so` up to 8.3 and in `libopapi_math.so`,
//! `libopapi_nn.so` … from 8.5 on (for a while also `libaclnn_*.so`). The communicator's functions are in `libhccl.so`
//! up to 8.x and in `libhcomm.so` in 9.x. DCMI comes with the driver. So each family has a list of names, and each
//! name is searched in all folders. The functions of a family may come from several libraries.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL};

use crate::bindings::{Ccl, Dcmi, Emu, Nn, Rt};

/// Why the libraries cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No folder contains the library.
    #[error("none of {} was found; searched {}{HINT}", names.join(", "), listed(folders))]
    NotFound {
        /// Possible names of the library.
        names: Vec<String>,
        /// Folders searched.
        folders: Vec<PathBuf>,
    },
    /// The library exists but cannot be opened.
    #[error("{}: {problem}{HINT}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The loader's message, most often about a missing dependency.
        problem: String,
    },
    /// Some libraries belong to the emulator and some do not, so the origin of the results would be unclear.
    #[error(
        "{} is the emulator and {} is not: a mixture is refused; check LD_LIBRARY_PATH",
        emulated.display(), real.display()
    )]
    Mixture {
        /// A library of the emulator.
        emulated: PathBuf,
        /// A library that is not the emulator's.
        real: PathBuf,
    },
}

/// The most common remedy.
const HINT: &str = "; is CANN installed, was its set_env.sh sourced before this program was started, and is the driver there \
     (/usr/local/Ascend/driver/lib64, in containers to be mounted)?";

fn listed(folders: &[PathBuf]) -> String {
    let names: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    if names.is_empty() { "no folder".into() } else { names.join(", ") }
}

/// A group of functions from one or several libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// AscendCL's runtime API.
    Runtime,
    /// Tensors and operators.
    Operators,
    /// Collectives.
    Collectives,
    /// The driver's device management.
    Management,
}

impl Family {
    /// Returns the name used in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Operators => "operators",
            Self::Collectives => "collectives",
            Self::Management => "management",
        }
    }

    /// Groups of alternative library names. Each group needs at least one library; all libraries of a group that exist
    /// and can be opened are used. A `*` at the end of a name matches any suffix.
    fn groups(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Runtime => &[&["libascendcl.so"]],
            Self::Operators => &[&["libnnopbase.so"], &["libopapi_*", "libopapi.so", "libaclnn_*"]],
            Self::Collectives => &[&["libhccl.so", "libhcomm.so"]],
            Self::Management => &[&["libdcmi.so"]],
        }
    }
}

/// The folders to search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// Searches these folders, in this order.
    pub fn of(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut path = Self::default();
        folders.into_iter().for_each(|folder| path.push(folder));
        path
    }

    /// Searches `$ASCEND_HOME_PATH/lib64`, `$ASCEND_TOOLKIT_HOME/lib64`, the folders of `$LD_LIBRARY_PATH`, and the
    /// default locations of CANN and of the driver.
    pub fn from_environment() -> Self {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    /// Like [`SearchPath::from_environment`], with variables from `variable`.
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let homes = ["ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"].into_iter().filter_map(set);
        let mut folders: Vec<PathBuf> = homes.map(|home| PathBuf::from(home).join("lib64")).collect();
        if let Some(list) = set("LD_LIBRARY_PATH") {
            folders.extend(std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()));
        }
        let usual = [
            "/usr/local/Ascend/ascend-toolkit/latest/lib64",
            "/usr/local/Ascend/cann/lib64",
            "/usr/local/Ascend/driver/lib64",
            "/usr/local/Ascend/driver/lib64/common",
            "/usr/local/Ascend/driver/lib64/driver",
            "/usr/local/dcmi",
        ];
        folders.extend(usual.map(PathBuf::from));
        // Some versions keep transformer operators in a separate package (8.5.0.alpha001).
        let packages =
            ["ASCEND_OPP_PATH", "ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"].into_iter().filter_map(set);
        for home in
            packages.map(PathBuf::from).chain([PathBuf::from("/usr/local/Ascend/ascend-toolkit/latest")])
        {
            for root in [home.join("ops_transformer/built-in"), home.join("opp/ops_transformer/built-in")] {
                op_api_folders(&root, 0, &mut folders);
            }
        }
        Self::of(folders)
    }

    fn push(&mut self, folder: PathBuf) {
        if !self.0.contains(&folder) {
            self.0.push(folder);
        }
    }

    /// Returns all libraries that match `name`, in folder order. For a name without `*`, only the first folder that has
    /// it counts.
    fn files(&self, name: &str) -> Vec<PathBuf> {
        let Some(prefix) = name.strip_suffix('*') else {
            return self.0.iter().map(|f| f.join(name)).find(|path| path.is_file()).into_iter().collect();
        };
        let mut found: Vec<PathBuf> = Vec::new();
        for folder in &self.0 {
            let mut here: Vec<PathBuf> = std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| is_library(path, prefix))
                .collect();
            here.sort();
            found.append(&mut here);
        }
        found
    }

    /// Returns all libraries of each group of a family. The error lists the names of a group without any.
    fn find(&self, family: Family) -> Result<Vec<Vec<PathBuf>>, LoadError> {
        let of_group = |group: &&[&str]| {
            let found: Vec<PathBuf> = group.iter().flat_map(|name| self.files(name)).collect();
            if found.is_empty() {
                let names = group.iter().map(|name| name.replace('*', "*.so")).collect();
                return Err(LoadError::NotFound { names, folders: self.0.clone() });
            }
            Ok(found)
        };
        family.groups().iter().map(of_group).collect()
    }
}

/// Finds the `op_api/lib` folders below `root` and their subfolders (`linux/aarch64`).
fn op_api_folders(root: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    const DEEPEST: usize = 8;
    let inside = root.iter().zip(root.iter().skip(1)).any(|(a, b)| a == "op_api" && b == "lib");
    if inside {
        found.push(root.to_owned());
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.retain(|path| path.is_dir() && !path.is_symlink());
    folders.sort();
    if depth < DEEPEST {
        folders.iter().for_each(|folder| op_api_folders(folder, depth + 1, found));
    }
}

fn is_library(path: &Path, prefix: &str) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.starts_with(prefix) && path.extension().is_some_and(|e| e == "so") && path.is_file()
}

/// An opened library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The family that it was opened for.
    pub family: Family,
    /// The file.
    pub path: PathBuf,
}

/// The functions of all families.
///
/// Libraries are never closed, as their threads and exit handlers live as long as the process.
pub struct Libraries {
    /// The runtime.
    pub rt: Rt,
    /// Tensors and operators.
    pub nn: Nn,
    /// Collectives. A single device works without them.
    pub ccl: Result<Ccl, LoadError>,
    /// Device management. Without it there is less telemetry.
    pub dcmi: Result<Dcmi, LoadError>,
    /// The emulator's own functions, if the libraries are the emulator's.
    pub emu: Option<Emu>,
    /// The opened libraries.
    pub found: Vec<Found>,
    /// Libraries that exist but could not be opened, while others of the same group could.
    pub skipped: Vec<LoadError>,
}

impl Libraries {
    /// Opens an installation of CANN.
    ///
    /// # Errors
    /// When a library of the runtime or of the operators is missing or cannot be opened, or when some libraries are the
    /// emulator's.
    pub fn find(path: &SearchPath) -> Result<Self, LoadError> {
        let mut opened = Opened::default();
        let rt = opened.family(Family::Runtime, path)?;
        let nn = opened.family(Family::Operators, path)?;
        let ccl = opened.family(Family::Collectives, path);
        let dcmi = opened.family(Family::Management, path);
        opened.check_unmixed()?;
        // SAFETY: the structs' types are those of the documented functions of that name; symbols are looked up, not called.
        unsafe {
            Ok(Self {
                rt: Rt::from_library(rt).map_err(|e| opened.broken(&e))?,
                nn: Nn::from_library(nn).map_err(|e| opened.broken(&e))?,
                ccl: ccl.and_then(|l| Ccl::from_library(l).map_err(|e| opened.broken(&e))),
                dcmi: dcmi.and_then(|l| Dcmi::from_library(l).map_err(|e| opened.broken(&e))),
                emu: match opened.emulated {
                    Some(_) => Some(Emu::from_library(Library::this()).map_err(|e| opened.broken(&e))?),
                    None => None,
                },
                found: opened.found,
                skipped: opened.skipped,
            })
        }
    }

    /// Opens one library that has every family, such as the emulator's.
    ///
    /// # Errors
    /// When the file is missing or not a library.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let broken =
            |e: &libloading::Error| LoadError::Broken { path: path.to_path_buf(), problem: e.to_string() };
        let open = || open(path, RTLD_LAZY | RTLD_LOCAL);
        let first = open()?;
        // SAFETY: as in `find`; the address is not used.
        let is_emulator = unsafe { first.get::<*const ()>(EMULATOR).is_ok() };
        // Kept open for the lifetime of the process.
        std::mem::forget(first);
        // SAFETY: as in `find`.
        unsafe {
            Ok(Self {
                rt: Rt::from_library(open()?).map_err(|e| broken(&e))?,
                nn: Nn::from_library(open()?).map_err(|e| broken(&e))?,
                ccl: Ok(Ccl::from_library(open()?).map_err(|e| broken(&e))?),
                dcmi: Ok(Dcmi::from_library(open()?).map_err(|e| broken(&e))?),
                emu: if is_emulator {
                    Some(Emu::from_library(open()?).map_err(|e| broken(&e))?)
                } else {
                    None
                },
                found: vec![Found { family: Family::Runtime, path: path.to_path_buf() }],
                skipped: Vec::new(),
            })
        }
    }
}

/// The function that identifies an emulator.
const EMULATOR: &[u8] = b"ascend_emulator_info\0";

/// The libraries opened so far.
#[derive(Default)]
struct Opened {
    found: Vec<Found>,
    skipped: Vec<LoadError>,
    emulated: Option<PathBuf>,
    real: Option<PathBuf>,
}

impl Opened {
    /// Opens all libraries of a family with global symbols and returns a handle to all global symbols.
    fn family(&mut self, family: Family, path: &SearchPath) -> Result<Library, LoadError> {
        for group in path.find(family)? {
            let mut broken = Vec::new();
            let before = self.found.len();
            for path in group {
                // For each file name, the first library that opens is used.
                if self.found[before..].iter().any(|found| found.path.file_name() == path.file_name()) {
                    continue;
                }
                let library = match open(&path, RTLD_LAZY | RTLD_GLOBAL) {
                    Ok(library) => library,
                    // An operator library that does not open on this machine must not prevent the use of the others.
                    Err(error) => {
                        broken.push(error);
                        continue;
                    }
                };
                // SAFETY: the symbol is looked up, not used.
                let emulated = unsafe { library.get::<*const ()>(EMULATOR).is_ok() };
                let kind = if emulated { &mut self.emulated } else { &mut self.real };
                kind.get_or_insert_with(|| path.clone());
                self.found.push(Found { family, path });
                // Kept open for the lifetime of the process.
                std::mem::forget(library);
            }
            if self.found.len() == before && !broken.is_empty() {
                return Err(broken.swap_remove(0));
            }
            self.skipped.append(&mut broken);
        }
        Ok(Library::this())
    }

    fn check_unmixed(&self) -> Result<(), LoadError> {
        match (&self.emulated, &self.real) {
            (Some(emulated), Some(real)) => {
                Err(LoadError::Mixture { emulated: emulated.clone(), real: real.clone() })
            }
            _ => Ok(()),
        }
    }

    fn broken(&self, error: &libloading::Error) -> LoadError {
        let path = self.found.first().map_or_else(PathBuf::new, |f| f.path.clone());
        LoadError::Broken { path, problem: error.to_string() }
    }
}

fn open(path: &Path, flags: std::ffi::c_int) -> Result<Library, LoadError> {
    // SAFETY: the libraries' initialisers are those of CANN, the driver or the emulator, made to be loaded so.
    let opened = unsafe { Library::open(Some(path), flags) };
    opened.map_err(|e| LoadError::Broken { path: path.to_path_buf(), problem: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "no library").unwrap());
        folder
    }

    fn find(folders: &[&tempfile::TempDir], family: Family) -> Result<Vec<String>, LoadError> {
        let path = SearchPath::of(folders.iter().map(|f| f.path().to_path_buf()));
        let name = |p: PathBuf| p.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(path.find(family)?.into_iter().flatten().map(name).collect())
    }

    #[test]
    fn operators_are_found_in_one_library_or_split() {
        let old = folder(&["libnnopbase.so", "libopapi.so"]);
        assert_eq!(find(&[&old], Family::Operators).unwrap(), ["libnnopbase.so", "libopapi.so"]);
        let new = folder(&["libnnopbase.so", "libopapi_nn.so", "libopapi_math.so", "libopapi_math.so.1"]);
        let both = ["libnnopbase.so", "libopapi_math.so", "libopapi_nn.so"];
        assert_eq!(find(&[&new], Family::Operators).unwrap(), both);
        let between = folder(&["libnnopbase.so", "libopapi.so", "libaclnn_math.so", "libaclnn_ops_infer.so"]);
        assert_eq!(find(&[&between, &old], Family::Operators).unwrap().len(), 4);
    }

    #[test]
    fn the_first_folder_wins() {
        let (a, b) = (folder(&["libhccl.so"]), folder(&["libhccl.so", "libhcomm.so"]));
        let path = SearchPath::of([a.path().to_path_buf(), b.path().to_path_buf()]);
        let found = path.find(Family::Collectives).unwrap().concat();
        assert_eq!(found, [a.path().join("libhccl.so"), b.path().join("libhcomm.so")]);
    }

    #[test]
    fn a_missing_library_names_what_was_searched() {
        let empty = folder(&["libnnopbase.so"]);
        let path = SearchPath::of([empty.path().to_path_buf()]);
        let told = Libraries::find(&path).err().unwrap().to_string();
        let place = empty.path().display().to_string();
        for word in ["libascendcl.so", place.as_str(), "set_env.sh"] {
            assert!(told.contains(word), "{told}");
        }
        let told = path.find(Family::Operators).unwrap_err().to_string();
        for word in ["libopapi_*.so", "libopapi.so", "libaclnn_*.so"] {
            assert!(told.contains(word), "{told}");
        }
    }

    #[test]
    fn a_file_that_is_no_library_is_named() {
        let broken = folder(&["libascendcl.so"]);
        let path = SearchPath::of([broken.path().to_path_buf()]);
        let told = Libraries::find(&path).err().unwrap().to_string();
        assert!(told.contains("libascendcl.so: "), "{told}");
        let missing = broken.path().join("nothing.so");
        assert!(matches!(Libraries::open(&missing), Err(LoadError::Broken { path, .. }) if path == missing));
    }

    #[test]
    fn folders_of_operators_are_found_below_a_package() {
        let home = tempfile::tempdir().unwrap();
        let deep = home.path().join("ops_transformer/built-in/op_impl/ai_core/tbe/op_api/lib/linux/aarch64");
        std::fs::create_dir_all(&deep).unwrap();
        let variable = |name: &str| (name == "ASCEND_OPP_PATH").then(|| OsString::from(home.path()));
        let SearchPath(folders) = SearchPath::from_variables(&variable);
        assert!(folders.contains(&deep), "{folders:?}");
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn one_of_several_libraries_may_be_broken() {
        let folder = folder(&["libopapi_broken.so"]);
        let path = SearchPath::of([folder.path().to_path_buf()]);
        let mut opened = Opened::default();
        std::fs::write(folder.path().join("libnnopbase.so"), "no library").unwrap();
        assert!(matches!(opened.family(Family::Operators, &path), Err(LoadError::Broken { .. })));
        // Any small library can stand in for a good one.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mapped = maps.lines().filter_map(|line| line.split_whitespace().last());
        let small = mapped.into_iter().find(|path| path.contains("/libgcc_s") || path.contains("/libm."));
        let small = small.expect("a program of Rust has one of them mapped");
        for name in ["libnnopbase.so", "libopapi_good.so"] {
            let _ = std::fs::remove_file(folder.path().join(name));
            std::fs::copy(small, folder.path().join(name)).unwrap();
        }
        let mut opened = Opened::default();
        opened.family(Family::Operators, &path).unwrap();
        assert_eq!(opened.found.len(), 2);
        assert!(
            matches!(&opened.skipped[..], [LoadError::Broken { path, .. }] if path.ends_with("libopapi_broken.so"))
        );
    }

    #[test]
    fn folders_come_from_the_environment_in_order_and_once() {
        let variable = |name: &str| match name {
            "ASCEND_HOME_PATH" | "ASCEND_TOOLKIT_HOME" => Some(OsString::from("/opt/cann")),
            "LD_LIBRARY_PATH" => Some(OsString::from("/a::/usr/local/dcmi")),
            _ => None,
        };
        let SearchPath(folders) = SearchPath::from_variables(&variable);
        let text: Vec<&str> = folders.iter().filter_map(|f| f.to_str()).collect();
        assert_eq!(text[..3], ["/opt/cann/lib64", "/a", "/usr/local/dcmi"]);
        assert_eq!(text.iter().filter(|f| **f == "/usr/local/dcmi").count(), 1);
        assert_eq!(SearchPath::from_variables(&|_| None).0.len(), 6);
    }
}
