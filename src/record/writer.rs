//! The process that writes a run directory on a file system that several machines share.
//!
//! Such directories take no file locks: a lock on a network file system can outlive its machine, or reach no other one.
//! Instead a process claims the directory with `writer.json`, which only one can create. Every [`BEAT`] it rewrites the
//! file. If the beats stop, the file is stale, and the next process renames it away and goes on.

use super::error::RecordError;
use super::time::rfc3339_utc;
use crate::bounded;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

/// Name of the file in the run directory.
pub const WRITER: &str = "writer.json";
/// Time between two beats.
pub const BEAT: Duration = Duration::from_secs(10);
/// Age of the last beat from which a writer counts as gone. NFS clients see changes of a file up to 60 s late.
pub const STALE: Duration = Duration::from_secs(90);

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 16;
/// The file is padded to this length, so that a rewrite in place never leaves the end of a longer text.
const LENGTH: usize = 768;

/// A process that writes a run directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// When the process began to write: RFC 3339, UTC.
    pub started: String,
    /// When the system started the process, in clock ticks since boot; `None` if the system does not tell. A later
    /// process may have the same id.
    pub process_start: Option<u64>,
    /// The boot and the process namespace in which the id is valid; empty if the system does not tell.
    pub place: String,
    /// Number of beats so far.
    pub beat: u64,
}

impl Writer {
    fn own(host: &str) -> Self {
        let pid = std::process::id();
        Self {
            host: host.chars().take(128).collect(),
            pid,
            started: rfc3339_utc(SystemTime::now()),
            process_start: process_start(pid),
            place: place(),
            beat: 0,
        }
    }

    /// Whether both are the same process.
    fn is_same(&self, other: &Self) -> bool {
        let key =
            |of: &Self| (of.host.clone(), of.pid, of.started.clone(), of.process_start, of.place.clone());
        key(self) == key(other)
    }

    /// Whether the process runs; `None` if that cannot be seen from here.
    fn runs(&self) -> Option<bool> {
        let here = place();
        if here.is_empty() || here != self.place {
            return None;
        }
        let start = self.process_start?;
        Some(process_start(self.pid) == Some(start))
    }

    /// Names the process: `process 4711 on host a, since 2026-01-01T00:00:00Z`.
    pub fn words(&self) -> String {
        format!("process {} on host {}, since {}", self.pid, self.host, self.started)
    }
}

/// Returns when the system started a process, in clock ticks since boot: field 22 of `/proc/PID/stat`. The name before it,
/// in parentheses, may contain anything.
fn process_start(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Returns the boot and the process namespace of this process.
fn place() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

/// Returns an ending for the name of a temporary file that no other process uses, in whatever container or machine: host,
/// process id and nanoseconds. Processes of two containers may have one id, and the containers of one machine one host.
pub(crate) fn own_ending() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{host}-{}-{}", std::process::id(), since.as_nanos())
}

/// A `writer.json` as found.
#[derive(Debug, Clone)]
pub struct FoundWriter {
    /// The process; `None` if the file cannot be read, for example because its process died while it wrote.
    pub writer: Option<Writer>,
    /// Time since the last beat.
    pub age: Duration,
    /// How far the last beat is in the future.
    pub ahead: Duration,
    /// Whether the process is gone: it does not run any more, or its beats stopped. A beat that is further in the future
    /// than [`STALE`] is none: it would never age.
    pub stale: bool,
    /// Whether the process is seen to run on this machine.
    pub seen: bool,
}

impl FoundWriter {
    /// Reads the file of a run directory; `None` if there is none. Changes nothing in the directory.
    ///
    /// The clock of the file system gives the age of a beat. It set the beat's time, and may be another machine's. A file made for a
    /// moment beside the directory tells it. Where no file can be made, this machine's clock counts.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>, RecordError> {
        Self::aged(dir, &|| {
            server_now(dir.parent().filter(|of| !of.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        })
    }

    /// Reads the file at a known time.
    fn at(dir: &Path, now: SystemTime) -> Result<Option<Self>, RecordError> {
        Self::aged(dir, &|| now)
    }

    /// Reads the file, and the clock if there is one.
    fn aged(dir: &Path, clock: &dyn Fn() -> SystemTime) -> Result<Option<Self>, RecordError> {
        let path = dir.join(WRITER);
        let read = || -> io::Result<_> {
            Ok((bounded::regular(&path, MAX_BYTES)?, fs::metadata(&path)?.modified()?))
        };
        let (bytes, beaten) = match read() {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(RecordError::io("read", &path)(e)),
        };
        let writer: Option<Writer> = serde_json::from_slice(&bytes).ok();
        let now = clock();
        let age = now.duration_since(beaten).unwrap_or_default();
        let ahead = beaten.duration_since(now).unwrap_or_default();
        let runs = writer.as_ref().and_then(Writer::runs);
        let stale = runs.map_or(age >= STALE || ahead > STALE, |runs| !runs);
        Ok(Some(Self { writer, age, ahead, stale, seen: runs == Some(true) }))
    }

    /// Whether the last beat is so far in the future that it says nothing.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead > STALE
    }

    /// Describes the writer: `process 4711 on host a, since …, last sign of life 12 s ago`.
    pub fn words(&self) -> String {
        let who = self.writer.as_ref().map_or_else(|| "an unknown process".to_owned(), Writer::words);
        if self.is_ahead() {
            return format!(
                "{who}, last sign of life {} s in the future: its clock is ahead",
                self.ahead.as_secs()
            );
        }
        format!("{who}, last sign of life {} s ago", self.age.as_secs())
    }
}

/// What became of a claim.
pub enum Claim {
    /// The directory is this process's. The sentence tells of a stale writer before.
    Mine(Holder, Option<String>),
    /// Another process writes.
    Busy(FoundWriter),
}

/// Keeps a run directory until it is dropped, and beats meanwhile.
#[derive(Debug)]
pub struct Holder {
    path: PathBuf,
    own: Writer,
    lost: Arc<AtomicBool>,
    stop: Option<mpsc::Sender<()>>,
    beating: Option<JoinHandle<()>>,
}

impl Holder {
    /// Claims a directory for this process on `host`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn claim(dir: &Path, host: &str) -> Result<Claim, RecordError> {
        let path = dir.join(WRITER);
        let mut told = None;
        if let Some(found) = FoundWriter::at(dir, server_now(dir))? {
            if !found.stale {
                return Ok(Claim::Busy(found));
            }
            if !set_aside(dir, &found)? {
                // Another process was faster, and its file is there now.
                return match FoundWriter::at(dir, server_now(dir))? {
                    Some(now) => Ok(Claim::Busy(now)),
                    None => Self::claim(dir, host),
                };
            }
            told = Some(format!(
                "{} was being written by {}. It is taken for gone. If it still runs, it notices and ends",
                dir.display(),
                found.words()
            ));
        }
        let own = Writer::own(host);
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return match FoundWriter::at(dir, server_now(dir))? {
                    Some(found) => Ok(Claim::Busy(found)),
                    None => Self::claim(dir, host),
                };
            }
            Err(e) => return Err(RecordError::io("create", &path)(e)),
        };
        write_beat(&mut file, &own).map_err(RecordError::io("write", &path))?;
        let lost = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = mpsc::channel();
        let beating = {
            let (path, own, lost) = (path.clone(), own.clone(), lost.clone());
            std::thread::Builder::new()
                .name("heartbeat".into())
                .spawn(move || beat(file, &path, own, &lost, &stopped))
                .map_err(RecordError::io("beat for", dir))?
        };
        Ok(Claim::Mine(Self { path, own, lost, stop: Some(stop), beating: Some(beating) }, told))
    }

    /// Whether no beat found the directory taken over.
    pub(super) fn holds(&self) -> bool {
        !self.lost.load(Ordering::Relaxed)
    }

    /// Whether the file is still this process's, or was removed by hand.
    pub(super) fn is_own(&self) -> bool {
        self.holds() && (is_of(&self.path, &self.own) || !self.path.exists())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(beating) = self.beating.take() {
            // A beat does not panic.
            let _ = beating.join();
        }
        if self.holds() && is_of(&self.path, &self.own) {
            // If this fails, the next writer finds a process that is gone.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_of(path: &Path, own: &Writer) -> bool {
    let read = bounded::regular(path, MAX_BYTES).ok();
    let there: Option<Writer> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    there.is_some_and(|there| there.is_same(own))
}

/// Rewrites the file until the holder is dropped or another process has the directory.
fn beat(mut file: File, path: &Path, mut own: Writer, lost: &AtomicBool, stopped: &mpsc::Receiver<()>) {
    while stopped.recv_timeout(BEAT) == Err(mpsc::RecvTimeoutError::Timeout) {
        if !is_of(path, &own) {
            // A file that was removed by hand is made again, unless another process has been faster.
            match OpenOptions::new().write(true).create_new(true).open(path) {
                Ok(again) => file = again,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    lost.store(true, Ordering::Relaxed);
                    return;
                }
                Err(_) => continue,
            }
        }
        own.beat += 1;
        // A beat that fails is missed. The file system may be back for the next one.
        let _ = write_beat(&mut file, &own);
    }
}

fn write_beat(file: &mut File, own: &Writer) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(own)?;
    bytes.resize(LENGTH.max(bytes.len() + 1) - 1, b' ');
    bytes.push(b'\n');
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// Renames a stale file away. Returns whether it was the one that was found stale: two processes may try at once.
fn set_aside(dir: &Path, stale: &FoundWriter) -> Result<bool, RecordError> {
    let (path, aside) = (dir.join(WRITER), dir.join(format!("writer.{}.stale", own_ending())));
    match fs::rename(&path, &aside) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(RecordError::io("set aside", &path)(e)),
        Ok(()) => {}
    }
    let bytes = bounded::regular(&aside, MAX_BYTES).map_err(RecordError::io("read", &aside))?;
    let moved: Option<Writer> = serde_json::from_slice(&bytes).ok();
    let is_it = match (&moved, &stale.writer) {
        (Some(moved), Some(stale)) => moved.is_same(stale),
        (None, None) => true,
        _ => false,
    };
    if is_it {
        let _ = fs::remove_file(&aside);
    } else {
        // It is the file of a process that was faster. A hard link replaces nothing.
        let _ = fs::hard_link(&aside, &path);
        let _ = fs::remove_file(&aside);
    }
    Ok(is_it)
}

/// Returns the time by the clock of the file system, which may be another machine's: the time of a new file.
fn server_now(dir: &Path) -> SystemTime {
    let probe = dir.join(format!(".clock-{}", own_ending()));
    let now = File::create(&probe).and_then(|mut file| {
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::metadata(&probe)?.modified()
    });
    let _ = fs::remove_file(&probe);
    now.unwrap_or_else(|_| SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plant(dir: &Path, writer: &Writer, age: Duration) {
        let mut file = File::create(dir.join(WRITER)).unwrap();
        write_beat(&mut file, writer).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn endings_are_part_of_a_files_name_and_differ() {
        let first = own_ending();
        std::thread::sleep(Duration::from_millis(20));
        let second = own_ending();
        assert_ne!(first, second);
        assert!(
            first.contains(&format!("-{}-", std::process::id())) && !first.contains(['/', '.', '\n']),
            "{first}"
        );
    }

    #[test]
    fn one_process_has_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let Claim::Mine(holder, None) = Holder::claim(dir.path(), "h").unwrap() else { panic!("not free") };
        assert!(holder.holds() && holder.is_own());
        let Claim::Busy(found) = Holder::claim(dir.path(), "h").unwrap() else { panic!("taken twice") };
        assert!(found.seen && found.words().contains(&format!("process {} on host h", std::process::id())));
        drop(holder);
        assert!(!dir.path().join(WRITER).exists());
        assert!(matches!(Holder::claim(dir.path(), "h").unwrap(), Claim::Mine(_, None)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "files are left");
    }

    #[test]
    fn a_file_server_with_another_clock_makes_no_writer_stale() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("run");
        fs::create_dir(&dir).unwrap();
        let far = Writer { host: "far".into(), place: "another boot".into(), ..Writer::own("far") };
        let skew = 4 * STALE;
        for server in [SystemTime::now() + skew, SystemTime::now() - skew] {
            plant(&dir, &far, Duration::ZERO);
            let file = OpenOptions::new().write(true).open(dir.join(WRITER)).unwrap();
            file.set_modified(server - Duration::from_secs(5)).unwrap();
            // By the clock of the file system, the beat is 5 s old. By this machine's, it never was or is gone.
            let found = FoundWriter::aged(&dir, &|| server).unwrap().unwrap();
            assert_eq!((found.stale, found.age.as_secs(), found.ahead), (false, 5, Duration::ZERO));
            assert!(FoundWriter::at(&dir, SystemTime::now()).unwrap().unwrap().stale);
        }
        // The clock's file is beside the directory, for a moment.
        plant(&dir, &far, Duration::from_secs(7));
        let found = FoundWriter::read(&dir).unwrap().unwrap();
        assert!(!found.stale && found.age.as_secs().abs_diff(7) <= 5, "{:?}", found.age);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "a file is left");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a file is left in the run");
        assert!(FoundWriter::read(Path::new("")).unwrap().is_none());
    }

    #[test]
    fn a_stale_writer_is_told_of_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let far = Writer { host: "far".into(), place: "another boot".into(), ..Writer::own("far") };
        // Another machine's process counts as alive while its beats are young.
        plant(dir.path(), &far, Duration::from_secs(5));
        let Claim::Busy(found) = Holder::claim(dir.path(), "h").unwrap() else { panic!("taken") };
        assert!(!found.seen && !found.stale && found.words().contains("host far"), "{}", found.words());
        plant(dir.path(), &far, STALE + BEAT);
        let Claim::Mine(holder, Some(told)) = Holder::claim(dir.path(), "h").unwrap() else { panic!("busy") };
        assert!(told.contains("host far") && told.contains("it notices and ends"), "{told}");
        // A file of the future would never grow old.
        let future = tempfile::tempdir().unwrap();
        plant(future.path(), &far, Duration::ZERO);
        let file = OpenOptions::new().write(true).open(future.path().join(WRITER)).unwrap();
        file.set_modified(SystemTime::now() + 2 * STALE).unwrap();
        let Claim::Mine(_, Some(told)) = Holder::claim(future.path(), "h").unwrap() else { panic!("busy") };
        assert!(told.contains("its clock is ahead"), "{told}");
        // The machine was not gone after all: whoever has the file last has the directory.
        plant(dir.path(), &far, Duration::ZERO);
        assert!(!holder.is_own());
        drop(holder);
        assert!(dir.path().join(WRITER).exists(), "another's file was removed");
        // A process of this machine that ended, or whose id is another's now.
        let own = Writer::own("h");
        for gone in
            [Writer { pid: u32::MAX - 1, ..own.clone() }, Writer { process_start: Some(1), ..own.clone() }]
        {
            plant(dir.path(), &gone, Duration::ZERO);
            assert!(matches!(Holder::claim(dir.path(), "h").unwrap(), Claim::Mine(_, Some(_))));
        }
        fs::write(dir.path().join(WRITER), "{\"host\":").unwrap();
        let Claim::Busy(found) = Holder::claim(dir.path(), "h").unwrap() else { panic!("torn and young") };
        assert!(found.words().starts_with("an unknown process"));
    }
}
