use super::*;
use glmbench_device::DType;

const KEY: Key = [7; 32];

/// A source with one file.
struct One(PathBuf);

impl WeightSource for One {
    fn place(&self) -> String {
        String::new()
    }
    fn stored(&self) -> Vec<StoredTensor> {
        let origin = self.0.display().to_string();
        vec![StoredTensor { name: "w".into(), dtype: "F16".into(), shape: vec![2], bytes: 4, origin }]
    }
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        let data = vec![0; 2 * shape.iter().product::<usize>()].into();
        Ok(TensorView { name: name.into(), dtype: StorageType::F16, shape: shape.to_vec(), data })
    }
    fn release(&self, _name: &str) {}
    fn dtype(&self) -> StorageType {
        StorageType::F16
    }
    fn fingerprint(&self, _hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        Ok(String::new())
    }
}

fn file(folder: &Path) -> PackFile {
    PackFile { path: folder.join("x.packs"), key: KEY, ranks: 2, is_settled: true }
}

fn fault() -> WeightFault {
    WeightFault {
        tensor: "w".into(),
        index: vec![1, 2],
        stored: StorageType::Bf16,
        value: f32::NAN,
        becomes: Some(DType::Fp16),
        count: 3,
        of: 4,
    }
}

/// Returns a whole file with two parts of one rank and one of the other.
fn bytes(folder: &Path) -> Vec<u8> {
    let writer = file(folder).create().unwrap();
    writer.keep(1, &[1; 70]);
    writer.keep(0, &[2; 3]);
    writer.keep(1, &[]);
    writer.finish(&mut writer.lock(), &[fault()]).unwrap();
    fs::read(&writer.part).unwrap()
}

/// Returns a file with this index and a right checksum.
fn forged(index: &str, start: u64) -> Vec<u8> {
    let numbers = [u64::from_le_bytes(MAGIC), u64::from(SCHEMA), start, index.len() as u64];
    let mut file = numbers.map(u64::to_le_bytes).concat();
    file.extend(KEY);
    file.extend(checksum(&file, index.as_bytes()));
    file.resize(start as usize, 0);
    file.extend(index.bytes());
    file
}

#[test]
fn the_format_is_this() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = bytes(dir.path());
    let index = concat!(
        r#"{"ranks":[[[256,3]],[[128,70],[320,0]]],"faults":[{"tensor":"w","index":[1,2],"stored":"BF16","#,
        r#""value":2143289344,"becomes":"fp16","count":3,"of":4}]}"#
    );
    let mut expected = forged(index, 320);
    expected[128..198].fill(1);
    expected[256..259].fill(2);
    assert_eq!(bytes, expected);
    let (ranks, faults) = file(dir.path()).read(&bytes).unwrap();
    assert_eq!(ranks, [vec![256..259], vec![128..198, 320..320]]);
    assert_eq!(format!("{faults:?}"), format!("{:?}", [fault()]));
}

/// Every byte of header and index counts, and so does the length.
#[test]
fn no_changed_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let good = bytes(dir.path());
    let file = file(dir.path());
    for at in (0..HEADER).chain(320..good.len()) {
        for bit in [1, 128] {
            let mut bad = good.clone();
            bad[at] ^= bit;
            assert!(file.read(&bad).is_err(), "byte {at}");
        }
    }
    for length in 0..good.len() {
        assert!(file.read(&good[..length]).is_err(), "{length} bytes");
    }
    assert!(file.read(&[&good[..], b" "].concat()).is_err());
    let other = PackFile { key: [8; 32], ..file };
    assert!(other.read(&good).unwrap_err().starts_with("of other weights"));
}

/// A file of someone who can compute checksums is read without harm, and refused.
#[test]
fn no_forged_index_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(dir.path());
    let parts = |one: &str| format!(r#"{{"ranks":[[{one}],[]],"faults":[]}}"#);
    let most = u64::MAX;
    assert!(file.read(&forged(&parts("[128,64]"), 192)).is_ok());
    let bad = [
        parts("[128,65]"),
        parts("[129,1]"),
        parts("[0,64]"),
        parts("[64,64]"),
        parts(&format!("[{most},1]")),
        parts(&format!("[128,{most}]")),
        parts("[-64,64]"),
        parts("[128]"),
        r#"{"ranks":[[]],"faults":[]}"#.to_owned(),
        r#"{"ranks":[[],[],[]],"faults":[]}"#.to_owned(),
        r#"{"ranks":[[],[]]}"#.to_owned(),
        r#"{"ranks":[[],[]],"faults":[{"tensor":"w","index":[],"stored":"I8","value":0,"becomes":null,"count":0,"of":0}]}"#.to_owned(),
        "[".repeat(100_000),
        String::new(),
    ];
    for index in bad {
        assert!(file.read(&forged(&index, 192)).is_err(), "{index:.80}");
    }
    for start in [0, 64, most] {
        let mut bad = forged(&parts(""), 192);
        bad[16..24].copy_from_slice(&u64::to_le_bytes(start));
        assert!(file.read(&bad).is_err());
    }
}

#[test]
fn a_file_gets_its_name_when_it_is_whole_and_nothing_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("w");
    fs::write(&weights, b"abcd").unwrap();
    let source = One(weights.clone());
    let path = dir.path().join("x.packs");
    let new = || PackFile::new(path.clone(), "made", 1, &source).unwrap();
    assert!(new().create().unwrap_err().contains("changed less than 5 s ago"));
    let age = |seconds| {
        let file = File::options().write(true).open(&weights).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    };
    age(3600);
    assert!(new().open().unwrap().is_none());
    // Of a process that was killed.
    fs::write(dir.path().join(".x.packs.part-1"), b"half").unwrap();
    let writer = new().create().unwrap();
    writer.keep(0, b"part");
    assert!(new().open().unwrap().is_none());
    writer.publish("made", &source, &[]).unwrap();
    drop(writer);
    let names = || fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names(), 2);
    let kept = new().open().unwrap().unwrap();
    assert_eq!(&kept.map.bytes()[kept.ranks[0][0].clone()], b"part");
    let of = |made: &str, ranks| PackFile::new(path.clone(), made, ranks, &source).unwrap().open();
    assert!(of("other", 1).unwrap_err().contains("of other weights"));
    assert!(of("made", 2).unwrap_err().contains("of other weights"));
    // The weights change while they are packed.
    let writer = new().create().unwrap();
    age(1800);
    assert!(writer.publish("made", &source, &[]).unwrap_err().contains("changed while"));
    drop(writer);
    assert_eq!(names(), 2);
    assert!(new().open().unwrap_err().contains("of other weights"));
}

/// As on a full disk, although nothing can fill one here: the file takes no more bytes.
#[test]
fn the_first_error_is_told_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("w");
    fs::write(&weights, b"abcd").unwrap();
    let source = One(weights);
    let (key, _) = identity("made\02", &source).unwrap();
    let writer = PackFile { key, ..file(dir.path()) }.create().unwrap();
    writer.lock().result = Err(io::ErrorKind::StorageFull.into());
    writer.keep(0, b"part");
    let error = writer.publish("made", &source, &[]).unwrap_err();
    assert!(error.contains("storage"), "{error}");
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let nowhere = PackFile { path: dir.path().join("none/x"), ..file(dir.path()) };
    assert!(nowhere.create().is_err());
}
