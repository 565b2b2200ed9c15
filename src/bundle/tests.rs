//! A bundle by hand: its files on disk, what the reader refuses, what a replay sees.

use std::fs;
use std::io::{Cursor, Read, Write};

use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::privacy::Private;
use super::replay::{Replay, check, forced};
use super::*;

fn bundle() -> Bundle {
    let call = |phase: &str, code| Call {
        phase: phase.into(),
        operator: "aclnnRmsNorm".into(),
        arguments: vec!["fp16 [3, 256]".into(), "fp16 [256]".into(), "0.00001".into()],
        code,
        message: if code == Some(0) { "" } else { "no kernel" }.into(),
    };
    let refused = call("rms_norm", Some(561_003));
    Bundle {
        summary: Summary {
            schema: SCHEMA,
            kind: KIND.into(),
            program: "glmbench 0.1.0".into(),
            created: "2026-11-28T12:00:00Z".into(),
            card: "300i-duo".into(),
            clock: Clock::Modelled,
            profile: Some(Profile { name: "300i-duo".into(), sha256: "ab".into() }),
            dtype: "fp16".into(),
            tp: 2,
            widths: Shapes { hidden: 256, ffn: 320, heads: 8, kv_heads: 2, channels: 64, vocab: 128 },
            failed: 1,
            lost: None,
            first_failure: Some(Failure {
                operator: "rms_norm".into(),
                note: "no kernel".into(),
                call: Some(refused.clone()),
            }),
            files: BTreeMap::new(),
        },
        machine: Machine {
            system: "linux aarch64".into(),
            chip: Some("Ascend310P3".into()),
            runtime: Some("1.12.0".into()),
            driver: Some("25.0.rc1".into()),
            libraries: vec!["libascendcl.so".into()],
            details: BTreeMap::from([("decode refused".into(), vec!["fused: no kernel".into()])]),
            memory: vec![ChipMemory { free_bytes: Some(1), total_bytes: Some(2), problem: None }],
            environment: BTreeMap::from([("HCCL_BUFFSIZE".into(), "110".into())]),
        },
        capabilities: Capabilities {
            choices: BTreeMap::from([("decode".into(), "incre".into()), ("kv".into(), "copy".into())]),
            alternatives: vec![
                Alternative { capability: "decode".into(), word: "incre".into(), refused: None },
                Alternative { capability: "kv".into(), word: "copy".into(), refused: Some("no".into()) },
            ],
        },
        operators: Operators {
            rows: vec![Row {
                operator: "rms_norm".into(),
                variant: "aclnnRmsNorm".into(),
                shape: "[3, 256]".into(),
                status: RowStatus::Fail,
                max_error: Some(0.5),
                bound: Some(0.25),
                time_ns: Some(7000),
                note: String::new(),
            }],
        },
        calls: Calls { calls: vec![call("survey", Some(0)), refused] },
        timings: Timings {
            operators: vec![OperatorTime {
                operator: "linear down".into(),
                shape: BTreeMap::from([("rows".into(), 1), ("k".into(), 320), ("n".into(), 256)]),
                bytes: 163_840,
                flops: 163_840,
                time_ns: vec![5000, 5100],
            }],
            copies: vec![SizeTime { what: "to_device".into(), bytes: 4096, time_ns: vec![9000] }],
            collectives: vec![SizeTime { what: "all_reduce".into(), bytes: 512, time_ns: vec![11_000] }],
            host_launch_ns: Some(3000),
        },
    }
}

fn files(zip: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut zip = ZipArchive::new(Cursor::new(zip)).unwrap();
    (0..zip.len())
        .map(|index| {
            let mut member = zip.by_index(index).unwrap();
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes).unwrap();
            (member.name().unwrap().into_owned(), bytes)
        })
        .collect()
}

fn zipped<B: AsRef<[u8]>>(files: &[(String, B)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes.as_ref()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Writes the files as a zip and returns why it is refused.
fn refused<B: AsRef<[u8]>>(files: &[(String, B)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    fs::write(&path, zipped(files)).unwrap();
    let error = Bundle::read(&path).unwrap_err().to_string();
    error.split_once("b.zip: ").unwrap().1.to_owned()
}

fn written() -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    bundle().write(&path, &Private::default()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    files(&fs::read(path).unwrap())
}

#[test]
fn the_files_of_a_bundle() {
    let all: String = written()
        .into_iter()
        .map(|(name, bytes)| format!("== {name}\n{}", String::from_utf8(bytes).unwrap()))
        .collect();
    insta::assert_snapshot!(all);
}

#[test]
fn a_bundle_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    bundle().write(&path, &Private::default()).unwrap();
    let read = Bundle::read(&path).unwrap();
    assert_eq!(read.summary.files.len(), 5);
    let files = BTreeMap::new();
    assert_eq!(Bundle { summary: Summary { files, ..read.summary }, ..read }, bundle());
}

#[test]
fn what_is_no_bundle_of_ours_is_refused_by_name() {
    let good = written();
    let with = |name: &str, change: &dyn Fn(&str) -> String| {
        let changed = |(n, bytes): &(String, Vec<u8>)| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            (n.clone(), if n == name { change(&text) } else { text })
        };
        refused(&good.iter().map(changed).collect::<Vec<_>>())
    };
    let schema = |number: &str| {
        with("bundle.json", &|text| text.replace("\"schema\": 1", &format!("\"schema\": {number}")))
    };
    assert!(schema("2").contains("schema is 2, expected 1; a newer glmbench wrote the bundle"));
    assert!(schema("0").contains("schema is 0, expected 1"));
    assert!(schema("\"1\"").contains("schema is missing, expected 1"));
    let kind = with("bundle.json", &|text| text.replace("npu-selftest", "run"));
    assert_eq!(kind, "bundle.json: kind is \"run\", expected \"npu-selftest\"");
    let changed = with("calls.json", &|text| text.replace("561003", "0"));
    assert!(changed.contains("calls.json has the SHA-256") && changed.contains("was changed"), "{changed}");
    assert!(
        with("bundle.json", &|text| text.replace("\"tp\": 2", "\"tp\": -2")).starts_with("bundle.json: ")
    );
    assert!(with("bundle.json", &|_| "[".repeat(100_000)).starts_with("bundle.json: "));
    // Files that are missing, unknown, or there twice.
    assert!(refused(&good[1..]).starts_with("found 5 files; expected 6: bundle.json, "));
    let renamed: Vec<_> =
        good.iter().map(|(name, bytes)| (name.replace("calls", "../calls"), bytes.clone())).collect();
    assert!(refused(&renamed).contains("found the file \"../calls.json\"; expected one of bundle.json"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    fs::write(&path, b"PK not a zip").unwrap();
    assert!(Bundle::read(&path).unwrap_err().to_string().contains("found no zip"));
    assert!(Bundle::read(folder.path()).is_err() && Bundle::read(&path.join("x")).is_err());
}

/// A few kilobytes that unpack to more than is read.
#[test]
fn a_zip_bomb_is_stopped_at_its_bound() {
    let mut files = written();
    files[4].1 = vec![b' '; 17 << 20];
    assert!(zipped(&files).len() < 1 << 20);
    assert_eq!(refused(&files), format!("calls.json unpacks to more than {} bytes", 16 << 20));
}

#[test]
fn sizes_of_a_bundle_are_checked_before_anything_is_allocated() {
    assert!(check(&bundle()).is_ok());
    let with = |change: &dyn Fn(&mut Summary)| {
        let mut bundle = bundle();
        change(&mut bundle.summary);
        check(&bundle).unwrap_err()
    };
    assert!(with(&|s| s.tp = 0).contains("tp is 0, expected 1 to 64"));
    assert!(with(&|s| s.widths.hidden = usize::MAX).contains("widths.hidden is"));
    assert!(with(&|s| s.widths.ffn = usize::MAX).contains("widths.ffn is"));
    assert!(with(&|s| (s.widths.hidden, s.widths.ffn) = (65_536, 65_536)).contains("hidden * 2 * ffn is"));
    assert!(with(&|s| s.widths.kv_heads = 3).contains("8 heads over 3 KV heads"));
    assert!(with(&|s| s.widths.kv_heads = 0).contains("widths.kv_heads is 0"));
    assert!(with(&|s| s.widths.channels = 65).contains("channels in fours"));
    assert!(with(&|s| s.widths.heads = 257).contains("widths.heads is 257, expected 1 to 256"));
    assert!(with(&|s| s.widths.kv_heads = 257).contains("widths.kv_heads is 257, expected 1 to 256"));
}

#[test]
fn a_replay_sees_rules_and_times_that_differ() {
    let card = bundle();
    let same = Replay::of(&card, &card);
    assert!(same.agrees() && same.calls == 2 && same.only_card.is_empty(), "{same:?}");
    assert!(same.times.iter().all(|time| time.ratio() == 1.0) && same.times.len() == 3);
    let mut here = bundle();
    here.capabilities.alternatives[1].refused = None;
    here.calls.calls[1].code = Some(0);
    here.operators.rows[0].status = RowStatus::Pass;
    here.timings.operators[0].time_ns = vec![2525];
    let found = Replay::of(&card, &here);
    let told: Vec<_> =
        found.differences.iter().map(|d| (d.kind, d.card.as_str(), d.emulator.as_str())).collect();
    assert_eq!(
        told,
        [("alternative", "refused", "accepted"), ("call", "561003", "accepted"), ("row", "FAIL", "pass")]
    );
    assert!((found.times[0].ratio() - 2.0).abs() < 1e-9);
    // Other arguments are another call.
    here.calls.calls[0].arguments[0] = "fp16 [4, 256]".into();
    let found = Replay::of(&card, &here);
    assert_eq!((found.only_card.len(), found.only_emulator.len()), (1, 1));
    assert_eq!(forced(&card, |name, _| name == "decode"), "decode=incre");
    // Without a call to compare, nothing agrees.
    let mut empty = bundle();
    empty.calls.calls.clear();
    let found = Replay::of(&empty, &card);
    assert!(found.differences.is_empty() && found.calls == 0 && !found.agrees(), "{found:?}");
}
