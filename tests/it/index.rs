//! A new user's history: the quickstart a few times, then one page over all of it.

use std::fs;
use std::path::Path;

use crate::support::{Answer, glmbench};

/// Runs a few of the quickstart's items, and times one small shape.
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
        let mut names: Vec<String> = entries.filter(|name| name.contains("quickstart-cpu")).collect();
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

    // Nothing changed: the same page, from the cache.
    let again = index(&reports).expect(0, &["3 from the cache"]);
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
