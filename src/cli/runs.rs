//! Finding the run that a command-line argument names.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The default output folder of `glmbench run`.
pub const ROOT: &str = "reports";

/// The expected argument, for error messages.
const EXPECTED: &str = "expected a run directory as `glmbench run` leaves it, with a run.json, or the beginning of the name of \
     one in reports/";

/// Finds the run directory for an argument: a path, or an unambiguous prefix of a name in [`ROOT`].
///
/// # Errors
/// Fails for a folder without a run, or a prefix that matches no or several names. The message lists the existing
/// names.
pub fn find_run(word: &Path) -> anyhow::Result<PathBuf> {
    find_run_in(Path::new(ROOT), word)
}

/// Finds the run directory for an argument, among the runs of a folder.
///
/// # Errors
/// As [`find_run`].
pub fn find_run_in(root: &Path, word: &Path) -> anyhow::Result<PathBuf> {
    if is_run(word) {
        return Ok(word.to_path_buf());
    }
    let shown = word.display();
    if word.is_dir() {
        bail!("{shown} is no run: it has no run.json; {EXPECTED}");
    }
    if word.exists() {
        match word.parent().filter(|parent| is_run(parent)) {
            Some(run) => bail!("{shown} is a file of a run; give the folder, {}", run.display()),
            None => bail!("{shown} is a file; {EXPECTED}"),
        }
    }
    let name = word.as_os_str().as_encoded_bytes();
    if name.is_empty() || name.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
        bail!("{shown} is not there; {EXPECTED}");
    }
    let runs =
        runs_in(root).with_context(|| format!("{shown} is not there, nor a folder {}", root.display()))?;
    // A complete name selects its run, although the name of a run of the same second may start with it.
    let whole = runs.iter().filter(|run| run.as_encoded_bytes() == name).collect::<Vec<_>>();
    let fitting: Vec<&OsString> = match whole.as_slice() {
        [] => runs.iter().filter(|run| run.as_encoded_bytes().starts_with(name)).collect(),
        _ => whole,
    };
    match fitting.as_slice() {
        [one] => Ok(root.join(one)),
        [] if runs.is_empty() => {
            bail!("{shown} is not there, and {} has no runs; {EXPECTED}", root.display())
        }
        [] => bail!("no run in {} begins with {shown}; there are {}", root.display(), listed(&runs)),
        several => {
            bail!("{} runs in {} begin with {shown}: {}", several.len(), root.display(), listed(several))
        }
    }
}

fn is_run(path: &Path) -> bool {
    path.join("run.json").is_file()
}

/// Returns the names of the run directories in a folder, oldest first.
pub fn runs_in(root: &Path) -> std::io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(root)?.flatten().filter(|entry| is_run(&entry.path()));
    let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    Ok(names)
}

/// Formats the names; only the newest few if there are many.
fn listed<S: AsRef<OsStr>>(names: &[S]) -> String {
    const SHOWN: usize = 8;
    let newest: Vec<_> = names.iter().rev().take(SHOWN).map(|name| name.as_ref().to_string_lossy()).collect();
    let more = names.len() - newest.len();
    if more == 0 { newest.join(", ") } else { format!("{} and {more} older ones", newest.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_run_is_meant_by_its_path_or_by_the_beginning_of_its_name() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for run in [
            "20260101T000000Z-a-cpu-1",
            "20260101T000000Z-a-cpu-1-2",
            "20260101T000000Z-b-cpu-2",
            "20260202T000000Z-a-cpu-3",
        ] {
            fs::create_dir(root.join(run)).unwrap();
            fs::write(root.join(run).join("run.json"), "{}").unwrap();
        }
        fs::create_dir(root.join("20260303-no-run")).unwrap();
        let find = |word: &str| find_run_in(root, Path::new(word));
        assert_eq!(find("202602").unwrap(), root.join("20260202T000000Z-a-cpu-3"));
        let path = root.join("20260101T000000Z-a-cpu-1");
        assert_eq!(find("20260101T000000Z-a-cpu-1").unwrap(), path);
        assert_eq!(find_run_in(root, &path).unwrap(), path);
        for (word, says) in [
            ("202601", "3 runs in"),
            ("202603", "no run in"),
            ("", "is not there"),
            ("no/such", "is not there"),
        ] {
            let message = find(word).unwrap_err().to_string();
            assert!(message.contains(says), "{word}: {message}");
        }
        let wrong = [root.join("20260303-no-run"), path.join("run.json")];
        for (word, says) in wrong.iter().zip(["has no run.json", "give the folder"]) {
            let message = find_run_in(root, word).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
