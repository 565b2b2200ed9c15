//! The root file system of a program.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, pivot_root};

use super::{NOBODY, Refused, Step, WORK};
use crate::{InputFile, Limits};

/// Where the machine's root is while the new one is built.
const OLD: &str = "/old";

/// What every program sees of the machine: programs, libraries, and what the loader needs to find them.
const COMMON: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
];

const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

const QUIET: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

/// Makes this process's root a new one, with the files in the working folder, and goes there. `owner` is the user that the
/// working folder belongs to, if not this process's.
pub(super) fn build(
    read_only: &[PathBuf],
    files: &[InputFile],
    limits: &Limits,
    owner: Option<u32>,
) -> Result<(), Refused> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step(|| "private mounts".into())?;
    enter()?;
    folder("/proc")?;
    let noexec = QUIET | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), noexec, Some("hidepid=2"))
        .step(|| "a /proc of its own".into())?;
    for path in COMMON.iter().map(Path::new).chain(read_only.iter().map(PathBuf::as_path)) {
        show(path)?;
    }
    devices()?;
    users()?;
    work(files, limits, owner)?;
    umount2(OLD, MntFlags::MNT_DETACH).step(|| "to leave the machine's root".into())?;
    fs::remove_dir(OLD).step(|| "to remove the old root's folder".into())?;
    close()?;
    chdir(WORK).step(|| "the working folder".into())
}

/// Mounts an empty root and moves the machine's below it.
fn enter() -> Result<(), Refused> {
    let base = ["/tmp", "/mnt", "/run"].into_iter().find(|base| Path::new(base).is_dir()).unwrap_or("/proc");
    let options = Some("mode=755,size=4m,nr_inodes=8192");
    mount(Some("tmpfs"), base, Some("tmpfs"), QUIET, options)
        .step(|| format!("a file system in memory at {base}"))?;
    chdir(base).step(|| "the new root".into())?;
    folder("old")?;
    pivot_root(".", "old").step(|| "a root of its own (pivot_root)".into())?;
    chdir("/").step(|| "the new root".into())
}

fn folder(path: impl AsRef<Path>) -> Result<(), Refused> {
    let path = path.as_ref();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(path).step(|| format!("the folder {}", path.display()))
}

/// Shows a folder or file of the machine at its own path. Links are made again, and what is missing is left out.
fn show(path: &Path) -> Result<(), Refused> {
    let old = Path::new(OLD).join(path.strip_prefix("/").unwrap_or(path));
    let Ok(kind) = fs::symlink_metadata(&old).map(|meta| meta.file_type()) else { return Ok(()) };
    if path.exists() {
        return Ok(());
    }
    let name = || format!("{} in the sandbox", path.display());
    if let Some(parent) = path.parent() {
        folder(parent)?;
    }
    if kind.is_symlink() {
        return fs::read_link(&old).and_then(|to| symlink(to, path)).step(name);
    }
    if kind.is_dir() {
        folder(path)?;
    } else {
        File::create(path).step(name)?;
    }
    let bound = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(old.as_path()), path, None::<&str>, bound, None::<&str>).step(name)
}

fn devices() -> Result<(), Refused> {
    folder("/dev")?;
    DEVICES.iter().try_for_each(|name| show(&Path::new("/dev").join(name)))?;
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("shm", "/tmp/shm"),
    ] {
        symlink(to, Path::new("/dev").join(name)).step(|| format!("/dev/{name}"))?;
    }
    Ok(())
}

/// Names the program's user, for programs that ask.
fn users() -> Result<(), Refused> {
    folder("/etc")?;
    fs::write("/etc/passwd", format!("nobody:x:{NOBODY}:{NOBODY}::{WORK}:/bin/sh\n"))
        .and_then(|()| fs::write("/etc/group", format!("nobody:x:{NOBODY}:\n")))
        .step(|| "the list of users".into())
}

/// Mounts `/tmp` and puts the files into the working folder.
fn work(files: &[InputFile], limits: &Limits, owner: Option<u32>) -> Result<(), Refused> {
    folder("/tmp")?;
    let options = format!("mode=1777,size={},nr_inodes={}", limits.disk, 4096 + limits.disk / 4096);
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), QUIET, Some(options.as_str()))
        .step(|| "a /tmp in memory".into())?;
    let own = |path: &Path| owner.map_or(Ok(()), |owner| chown(path, Some(owner), Some(owner)));
    for path in ["/tmp/shm", WORK] {
        folder(path)?;
        own(Path::new(path)).step(|| format!("to give {path} to the program"))?;
    }
    for InputFile { path: name, bytes } in files {
        let path = Path::new(WORK).join(name);
        path.parent().map_or(Ok(()), folder)?;
        File::create_new(&path)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| own(&path))
            .step(|| format!("the file {name}, {} bytes", bytes.len()))?;
    }
    Ok(())
}

/// Makes every mount but `/proc` and `/tmp` read-only.
fn close() -> Result<(), Refused> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").step(|| "the list of mounts".into())?;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
        if point == "/proc" || point == "/tmp" {
            continue;
        }
        // A user namespace may not take away the flags that a mount came with.
        let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        flags.set(MsFlags::MS_NODEV, !point.starts_with("/dev/"));
        for (option, flag) in [
            ("nodev", MsFlags::MS_NODEV),
            ("noexec", MsFlags::MS_NOEXEC),
            ("noatime", MsFlags::MS_NOATIME),
            ("nodiratime", MsFlags::MS_NODIRATIME),
            ("relatime", MsFlags::MS_RELATIME),
        ] {
            if options.split(',').any(|has| has == option) {
                flags |= flag;
            }
        }
        let point = unescaped(point);
        let none = None::<&str>;
        mount(none, point.as_path(), none, flags, none).step(|| format!("{} read-only", point.display()))?;
    }
    Ok(())
}

/// Undoes the octal escapes of the list of mounts.
fn unescaped(point: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = point.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail.get(..3).and_then(|code| std::str::from_utf8(code).ok());
        let byte = code.and_then(|code| u8::from_str_radix(code, 8).ok()).filter(|_| first == b'\\');
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_mounts_escapes_blanks() {
        for (escaped, plain) in [
            ("/a\\040b", "/a b"),
            ("/a\\134", "/a\\"),
            ("/usr", "/usr"),
            ("\\04", "\\04"),
            ("\\999", "\\999"),
        ] {
            assert_eq!(unescaped(escaped), Path::new(plain));
        }
    }
}
