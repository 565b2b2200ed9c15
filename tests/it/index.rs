//! A new user's history: the quickstart a few times, then one page over all of it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use glmbench::record::hex;
use sha2::{Digest, Sha256};

use crate::support::{Answer, glmbench};

/// Runs a few items of the quickstart, and times one small shape.
fn quickstart(root: &Path, more: &[&str]) -> Answer {
    let suite = root.join("quickstart.toml");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/boolq-sample");
    let text = format!(
        "schema = 1\nname = \"quickstart\"\nabout = \"A part of the quickstart.\"\n[model]\npath = \"demo\"\n\
         [[accuracy]]\ntask = \"boolq\"\ndataset = {data:?}\nprotocol = \"modeltest\"\nlimit = 12\n\
         [[performance]]\nbatch = [1]\nlengths = [[8, 4]]\nrepetitions = 5\n"
    );
    fs::write(&suite, text).unwrap();
    let mut command = glmbench(&["run"]);
    Answer::of(command.arg(&suite).arg("--out").arg(root.join("reports")).args(more).output().unwrap())
}

fn index(folder: &Path) -> Answer {
    Answer::of(glmbench(&["index"]).arg(folder).output().unwrap())
}

/// The cells of a CSV file, by the names of its columns.
fn table(path: &Path) -> Vec<std::collections::HashMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let heads = reader.headers().unwrap().clone();
    let row =
        |row: csv::StringRecord| heads.iter().map(str::to_owned).zip(row.iter().map(str::to_owned)).collect();
    reader.records().map(|record| row(record.unwrap())).collect()
}

#[test]
fn a_folder_of_quickstarts_becomes_a_page_with_tables() {
    let root = tempfile::tempdir().unwrap();
    let reports = root.path().join("reports");
    quickstart(root.path(), &[]).expect(0, &[]);
    // Another form of the model is compared with the first run as it is, and has lines of its own.
    let names = |folder: &Path| {
        let entries =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            entries.filter(|name| name.contains("quickstart-cpu") && !name.contains("compare")).collect();
        names.sort();
        names
    };
    let first = names(&reports).remove(0);
    let compared = quickstart(root.path(), &["--dtype", "w8a8-dynamic", "--baseline", &first]);
    let compared = compared.expect(0, &[]);
    assert!(compared.out.contains("The runs have different identities"), "{}", compared.out);
    assert!(compared.out.contains("quantisation"), "{}", compared.out);
    quickstart(root.path(), &[]).expect(0, &[]);
    // A run of yesterday that broke off, and a folder that is no longer a run.
    let broken = reports.join("20260101T000000Z-quickstart-cpu-000000");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("run.json"), "{\"schema\": 4").unwrap();

    let found = index(&reports).expect(0, &["3 by their history.json", "1 not readable", "20260101T000000Z"]);
    assert!(found.out.contains("3 valid runs on "), "{}", found.out);
    assert!(found.out.contains("Without lines: 1 broken."), "{}", found.out);
    let html = fs::read_to_string(reports.join("index.html")).unwrap();
    for part in ["glmbench history", "Filters", "w8a8-dynamic", "Last run against the one before"] {
        assert!(html.contains(part), "{part}");
    }
    for name in names(&reports) {
        assert!(html.contains(&name), "{name}");
    }
    let lines = table(&reports.join("index/lines.csv"));
    let of_fp16 = || lines.iter().filter(|line| line["form"] == "fp16");
    assert_eq!(of_fp16().filter(|line| line["runs"] == "2").count(), of_fp16().count());
    // The same program gives the same answers.
    let answers: Vec<_> = of_fp16().filter(|line| line["kind"] == "accuracy").collect();
    assert!(
        !answers.is_empty() && answers.iter().all(|line| line["previous_verdict"] == "same"),
        "{answers:?}"
    );
    // Two runs say nothing about the noise between runs.
    let speeds: Vec<_> = of_fp16().filter(|line| line["kind"] == "decode").collect();
    assert!(speeds.len() == 1 && speeds[0]["previous_verdict"] == "cannot tell", "{speeds:?}");
    assert!(lines.iter().any(|line| line["form"].starts_with("w8a8-dynamic") && line["runs"] == "1"));
    let runs = table(&reports.join("index/runs.csv"));
    let standings: Vec<&str> = runs.iter().map(|run| run["standing"].as_str()).collect();
    assert_eq!(standings, ["broken", "valid", "valid", "valid"]);

    // Nothing changed: the same page, from the cache. It also knows the folder that cannot be read.
    let again = index(&reports).expect(0, &["4 from the cache", "is left out"]);
    assert_eq!(again.out, found.out);
    assert_eq!(fs::read_to_string(reports.join("index.html")).unwrap(), html);
}

#[test]
fn a_folder_that_is_none_or_has_no_run_says_so() {
    let root = tempfile::tempdir().unwrap();
    index(&root.path().join("none")).expect(2, &["cannot read the folder of runs", "none"]);
    let empty = index(root.path()).expect(0, &["0 runs"]);
    assert!(empty.out.contains("No valid run here"), "{}", empty.out);
    fs::write(root.path().join("file"), "").unwrap();
    index(&root.path().join("file")).expect(2, &["cannot read the folder of runs"]);
}

/// Makes `count` runs of one real run: other names, times of start, models and speeds. With `figures`, each has its `history.json`.
fn multiply(run: &Path, reports: &Path, count: usize, figures: bool) {
    let text = fs::read_to_string(run.join("run.json")).unwrap();
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("history.json")).unwrap()).unwrap();
    let name = kept["run_id"].as_str().unwrap();
    for index in 0..count {
        let folder = reports.join(format!("r{index:05}"));
        fs::create_dir_all(&folder).unwrap();
        let own = text.replace(name, &format!("r{index:05}"));
        fs::write(folder.join("run.json"), &own).unwrap();
        if !figures {
            for journal in ["samples.jsonl", "prompts.jsonl", "requests.jsonl"] {
                fs::copy(run.join(journal), folder.join(journal)).unwrap();
            }
            continue;
        }
        let mut of = kept.clone();
        of["run_json"] = hex(&Sha256::digest(own.as_bytes())).into();
        of["run_id"] = format!("r{index:05}").into();
        of["journals"] = serde_json::json!({});
        let (day, hour) = (index / 24, index % 24);
        of["started"] =
            format!("{}-{:02}-{:02}T{hour:02}:00:00Z", 2024 + day / 336, 1 + day / 28 % 12, 1 + day % 28)
                .into();
        of["model"] = format!("model-{}", index % 20).into();
        let figure = of["figures"]
            .as_array()
            .unwrap()
            .iter()
            .find(|figure| figure["kind"] == "decode")
            .unwrap()
            .clone();
        for shape in 0..8 {
            let mut more = figure.clone();
            // A value that differs from run to run, and falls half-way.
            let noise = (index * 7919 + shape * 104_729) % 1000;
            let value = (100.0 + noise as f64 / 500.0) * if index > count / 2 { 0.9 } else { 1.0 };
            more["case"] = format!("batch {shape}, 512 in, 128 out").into();
            (more["value"], more["low"], more["high"]) =
                (value.into(), (0.99 * value).into(), (1.01 * value).into());
            of["figures"].as_array_mut().unwrap().push(more);
        }
        fs::write(folder.join("history.json"), of.to_string()).unwrap();
    }
}

/// Seconds of the command.
fn seconds(reports: &Path, says: &str) -> f64 {
    let begin = Instant::now();
    index(reports).expect(0, &[says]);
    begin.elapsed().as_secs_f64()
}

/// `cargo test --release --test it -- --ignored --nocapture ten_thousand_runs`, on a quiet machine.
#[test]
#[ignore = "writes ten thousand runs and measures times"]
fn ten_thousand_runs_are_a_page_in_seconds() {
    let root = tempfile::tempdir().unwrap();
    quickstart(root.path(), &[]).expect(0, &[]);
    let first = root.path().join("reports");
    let run = fs::read_dir(&first).unwrap().next().unwrap().unwrap().path();
    let many = root.path().join("many");
    multiply(&run, &many, 10_000, true);
    let cold = seconds(&many, "10000 by their history.json");
    let warm = seconds(&many, "10000 from the cache");
    let bytes = fs::metadata(many.join("index.html")).unwrap().len();
    eprintln!("10,000 runs: {cold:.2} s cold, {warm:.2} s with the cache, page {:.2} MB", bytes as f64 / 1e6);
    // Runs of older programs: without history.json. Each has 12 items and one timed case.
    let older = root.path().join("older");
    multiply(&run, &older, 500, false);
    eprintln!("500 runs from their records: {:.2} s", seconds(&older, "500 from their records"));
    assert!(cold <= 10.0 && warm <= 2.0 && bytes <= 5_000_000, "{cold:.2} s, {warm:.2} s, {bytes} bytes");
}
