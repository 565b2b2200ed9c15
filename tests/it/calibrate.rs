//! `glmbench calibrate` from the user's view: a card with known figures, its runs and its bundle, and the fitted profile in use.

use std::fs;
use std::path::{Path, PathBuf};

use glmbench_ascend::profile::{Mark, Profile};

use crate::support::answer;

/// Figures of a card that differ from those of the shipped profile, and within which share a run gives them back. A launch is 3 % of a
/// decode step, and a latency 6 %, so a run tells them less well than the efficiencies.
const KNOWN: [(&str, f64, f64); 6] = [
    ("memory_efficiency", 0.66, 0.02),
    ("single_launch_ns", 8_000.0, 0.15),
    ("compute_efficiency", 0.41, 0.02),
    ("prompt_layer_ns", 200_000.0, 0.05),
    ("collective_latency_ns", 55_000.0, 0.10),
    ("link_efficiency", 0.33, 0.02),
];

/// Writes the shipped profile with these figures.
fn card(folder: &Path) -> PathBuf {
    let mut text = Profile::builtin("300i-duo").unwrap().text;
    for (key, value, _) in KNOWN {
        let start = text.find(&format!("[{key}]")).unwrap();
        let line = start + text[start..].find("value = ").unwrap();
        let end = line + text[line..].find('\n').unwrap();
        text.replace_range(line..end, &format!("value = {value}"));
    }
    let path = folder.join("card.toml");
    fs::write(&path, text).unwrap();
    path
}

fn run_of(runs: &Path) -> PathBuf {
    let mut paths = fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.join("run.json").exists()).unwrap()
}

/// Checks the fitted figures, within `share` of the tolerance of each.
fn check_figures(profile: &Path, share: f64) -> Profile {
    let found = Profile::from_file(profile).unwrap();
    for (key, wanted, within) in KNOWN {
        let entry = found.entries.iter().find(|entry| entry.key == key).unwrap();
        assert_eq!(entry.mark, Mark::Calibrated, "{key}");
        assert!(
            (entry.value / wanted - 1.0).abs() < share * within,
            "{key}: {}, expected {wanted}",
            entry.value
        );
        assert!(entry.source.contains("REHEARSAL on modelled times"), "{}", entry.source);
    }
    found
}

/// The suite for cards on an emulated card: its figures come back, and the profile states the error of the fit. A report of a
/// run with the profile shows it.
#[test]
fn a_run_of_the_cards_suite_gives_the_cards_figures() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (card, out, mine) = (card(folder.path()), path("runs"), path("mine.toml"));
    let suite = concat!(env!("CARGO_MANIFEST_DIR"), "/suites/calibrate-card.toml");
    let emulated = ["--device", "300i-duo", "--emulate", "--profile"];
    let args = [&["run", suite, "--out", &out][..], &emulated, &[card.to_str().unwrap()]].concat();
    answer(&args).expect(0, &[]);
    let run = run_of(Path::new(&out));
    let measured =
        ["calibrate", "--profile", "300i-duo", "--measured", run.to_str().unwrap(), "--out", &mine];
    answer(&measured).expect(2, &["are modelled", "--rehearsal takes modelled ones"]);
    let told = answer(&[&measured[..], &["--rehearsal"]].concat()).expect(0, &["6 calibrated figures"]);
    assert!(
        told.out.contains("on shapes left out of the fit") && told.out.contains("tp2-b32-i2048"),
        "{}",
        told.out
    );
    let found = check_figures(Path::new(&mine), 1.0);
    // The hash of the lines in the run, as its seal has it.
    let record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(run.join("run.json")).unwrap()).unwrap();
    let hash = &record["seal"]["requests.jsonl"]["sha256"].as_str().unwrap()[..16];
    assert!(found.entries.iter().any(|entry| entry.source.contains(hash)), "{hash}");
    let told: Vec<(&str, u32, u32)> =
        found.fits.iter().map(|fit| (fit.phase.as_str(), fit.chips, fit.rows)).collect();
    assert_eq!(told, [("prefill", 1, 9), ("prefill", 2, 9), ("decode", 1, 9), ("decode", 2, 9)]);
    assert!(found.fits.iter().all(|fit| fit.error < 0.05 && fit.worst < 0.2), "{:?}", found.fits);
    // The profile in use: the report has the error of its own fit, and says where it extrapolates.
    let out = path("own");
    let small = path("s.toml");
    let text = "schema = 1\nname = \"s\"\n[model]\npath = \"dummy:chatglm2-6b\"\n[[performance]]\nbatch = [1, 64]\n\
        lengths = [[128, 4]]\nrepetitions = 1\nmax_warmups = 0\n";
    fs::write(&small, text).unwrap();
    let told =
        answer(&[&["run", small.as_str(), "--out", &out][..], &emulated, &[&mine]].concat()).expect(0, &[]);
    assert!(
        told.out.contains("measured times of 9 shapes") && told.out.contains("batch 64 (fitted up to 32)"),
        "{}",
        told.out
    );
    let run = run_of(Path::new(&out));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(
        page.contains("fitted to, on shapes left out of the fit")
            && page.contains("The profile behind the modelled times")
    );
    let errors = fs::read_to_string(run.join("model_error.csv")).unwrap();
    assert_eq!(errors.lines().count(), 1 + 6, "{errors}");
    assert!(errors.contains("batch 64 (fitted up to 32)"), "{errors}");
}

/// A bundle has times of single operators and of collectives: the same figures come back, without an error of steps.
#[test]
fn a_bundle_gives_the_cards_figures() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (card, bundle, mine) = (card(folder.path()), path("b.zip"), path("mine.toml"));
    let selftest =
        ["npu-selftest", "--tp", "2", "--emulate", "--profile", card.to_str().unwrap(), "--bundle", &bundle];
    answer(&selftest).expect(0, &[]);
    let calibrate = ["calibrate", "--profile", "300i-duo", "--measured", &bundle, "--out", &mine];
    answer(&calibrate).expect(2, &["b.zip: its times are modelled"]);
    let told = answer(&[&calibrate[..], &["--rehearsal"]].concat()).expect(0, &["no error of whole steps"]);
    assert!(told.out.contains("all_reduce (") && told.out.contains("linear down (rows 1"), "{}", told.out);
    // Single operators tell every figure.
    let found = check_figures(Path::new(&mine), 0.1);
    assert!(found.fits.is_empty());
    assert!(found.entries.iter().any(|entry| entry.source.contains("of bundle ")));
    answer(&["calibrate", "--profile", "800i-a2", "--rehearsal", "--measured", &bundle])
        .expect(2, &["--profile 800i-a2: of Ascend910B4; the bundle"]);
}
