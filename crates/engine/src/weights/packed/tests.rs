use super::*;
use glmbench_device::DType;
use std::time::Duration;

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
    PackFile { path: folder.join("x.packs"), made: "made".into(), ranks: 2, key: KEY, is_settled: true }
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

/// The parts of each rank, and the faults.
type Whole = (Vec<Vec<Range<usize>>>, Vec<WeightFault>);

/// Checks header, index and parts.
fn whole(file: &PackFile, bytes: &[u8]) -> Result<Whole, String> {
    let (parts, faults) = file.read(bytes)?;
    Ok((checked(bytes, parts)?, faults))
}

#[test]
fn the_format_is_this() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = bytes(dir.path());
    // The CRC-32 of zlib: other programs can check it.
    let index = concat!(
        r#"{"ranks":[[[256,3,553455314]],[[128,70,589710046],[320,0,0]]],"faults":[{"tensor":"w","index":[1,2],"#,
        r#""stored":"BF16","value":2143289344,"becomes":"fp16","count":3,"of":4}]}"#
    );
    let mut expected = forged(index, 320);
    expected[128..198].fill(1);
    expected[256..259].fill(2);
    assert_eq!(bytes, expected);
    let (ranks, faults) = whole(&file(dir.path()), &bytes).unwrap();
    let (only, first, second) = (256..259, 128..198, 320..320);
    assert_eq!(ranks, [vec![only], vec![first, second]]);
    assert_eq!(format!("{faults:?}"), format!("{:?}", [fault()]));
}

/// Every byte counts, except those between the parts, and so does the length.
#[test]
fn no_changed_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let good = bytes(dir.path());
    let file = file(dir.path());
    for at in (0..HEADER).chain(128..198).chain(256..259).chain(320..good.len()) {
        for bit in [1, 128] {
            let mut bad = good.clone();
            bad[at] ^= bit;
            assert!(whole(&file, &bad).is_err(), "byte {at}");
        }
    }
    for length in 0..good.len() {
        assert!(whole(&file, &good[..length]).is_err(), "{length} bytes");
    }
    assert!(whole(&file, &[&good[..], b" "].concat()).is_err());
    let other = PackFile { key: [8; 32], ..file };
    assert!(whole(&other, &good).unwrap_err().starts_with("of other weights"));
}

/// A file of someone who can compute checksums is read without harm, and refused.
#[test]
fn no_forged_index_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(dir.path());
    let parts = |one: &str| format!(r#"{{"ranks":[[{one}],[]],"faults":[]}}"#);
    let most = u64::MAX;
    let crc = |length| crc32fast::hash(&vec![0; length]);
    let part = |at: u64, length| format!("[{at},{length},{}]", crc(length));
    assert!(whole(&file, &forged(&parts(&part(128, 64)), 192)).is_ok());
    let bad = [
        parts(&part(128, 65)),
        parts(&part(129, 1)),
        parts(&part(0, 64)),
        parts(&part(64, 64)),
        parts(&part(most, 1)),
        parts(&format!("[128,{most},0]")),
        parts(&format!("[128,64,{}]", crc(64) ^ 1)),
        parts("[128,64,-1]"),
        parts("[-64,64,0]"),
        parts("[128,64]"),
        // More bytes than the file has, by overlaps: checking them could take forever.
        parts(&vec![part(128, 64); 8].join(",")),
        r#"{"ranks":[[]],"faults":[]}"#.to_owned(),
        r#"{"ranks":[[],[],[]],"faults":[]}"#.to_owned(),
        r#"{"ranks":[[],[]]}"#.to_owned(),
        r#"{"ranks":[[],[]],"faults":[{"tensor":"w","index":[],"stored":"I8","value":0,"becomes":null,"count":0,"of":0}]}"#.to_owned(),
        "[".repeat(100_000),
        String::new(),
    ];
    for index in bad {
        assert!(whole(&file, &forged(&index, 192)).is_err(), "{index:.80}");
    }
    for start in [0, 64, most] {
        let mut bad = forged(&parts(""), 192);
        bad[16..24].copy_from_slice(&u64::to_le_bytes(start));
        assert!(whole(&file, &bad).is_err());
    }
}

/// Returns the file of weights that have not changed for long. The second time of a file cannot be set back.
fn settled(path: &Path, made: &str, ranks: usize, source: &One) -> PackFile {
    let file = PackFile::new(path.to_owned(), made, ranks, source).unwrap();
    PackFile { is_settled: true, ..file }
}

fn set_age(path: &Path, seconds: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[test]
fn a_file_gets_its_name_when_it_is_whole_and_nothing_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("w");
    fs::write(&weights, b"abcd").unwrap();
    let source = One(weights.clone());
    let path = dir.path().join("x.packs");
    let new = || settled(&path, "made", 1, &source);
    assert!(new().open().unwrap().is_none());
    // Of a process that was killed.
    fs::write(dir.path().join(".x.packs.part-1"), b"half").unwrap();
    let writer = new().create().unwrap();
    writer.keep(0, b"part");
    assert!(new().open().unwrap().is_none());
    writer.publish(&source, &[]).unwrap();
    drop(writer);
    let names = || fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names(), 2);
    let kept = new().open().unwrap().unwrap();
    assert_eq!(&kept.map.bytes()[kept.ranks[0][0].clone()], b"part");
    let of = |made: &str, ranks| settled(&path, made, ranks, &source).open();
    assert!(of("other", 1).unwrap_err().contains("of other weights"));
    assert!(of("made", 2).unwrap_err().contains("of other weights"));
    // The weights change while they are packed.
    let writer = new().create().unwrap();
    set_age(&weights, 1800);
    assert!(writer.publish(&source, &[]).unwrap_err().contains("changed while"));
    drop(writer);
    assert_eq!(names(), 2);
    assert!(new().open().unwrap_err().contains("of other weights"));
}

/// Size, name and time of a file are not enough: tools set the time back.
#[test]
fn weights_that_changed_behind_their_time_are_other_weights() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("w");
    fs::write(&weights, b"abcd").unwrap();
    let source = One(weights.clone());
    let key = || identity("made", &source).unwrap().0;
    let (before, written) = (key(), fs::metadata(&weights).unwrap().modified().unwrap());
    assert_eq!(key(), before);
    // The clock of files may tick only every few milliseconds.
    std::thread::sleep(Duration::from_millis(50));
    fs::write(&weights, b"efgh").unwrap();
    File::options().write(true).open(&weights).unwrap().set_modified(written).unwrap();
    assert_eq!(fs::metadata(&weights).unwrap().modified().unwrap(), written);
    assert_ne!(key(), before);
}

#[test]
fn weights_that_have_just_changed_are_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("w");
    fs::write(&weights, b"abcd").unwrap();
    let source = One(weights.clone());
    let create = || PackFile::new(dir.path().join("x.packs"), "made", 1, &source).unwrap().create();
    // Neither a time that was set back nor one of a clock that is ahead hides it.
    for set in [|_: &Path| (), |weights: &Path| set_age(weights, 3600)] {
        set(&weights);
        assert!(create().unwrap_err().contains("changed less than 5 s ago"));
    }
    let ahead = SystemTime::now() + Duration::from_hours(1);
    File::options().write(true).open(&weights).unwrap().set_modified(ahead).unwrap();
    assert!(create().unwrap_err().contains("changed less than 5 s ago"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Each process has a file of its own until it is whole. The last one stays.
#[test]
fn two_writers_at_once_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("w");
    fs::write(&weights, b"abcd").unwrap();
    let source = One(weights);
    let path = dir.path().join("x.packs");
    let new = || settled(&path, "made", 1, &source);
    let (first, second) = (new().create().unwrap(), new().create().unwrap());
    first.keep(0, b"first");
    second.keep(0, b"second");
    let content = || {
        let kept = new().open().unwrap().unwrap();
        kept.map.bytes()[kept.ranks[0][0].clone()].to_vec()
    };
    first.publish(&source, &[]).unwrap();
    let mapped = new().open().unwrap().unwrap();
    assert_eq!(content(), b"first");
    second.publish(&source, &[]).unwrap();
    assert_eq!(content(), b"second");
    // What was mapped before stays as it was.
    assert_eq!(&mapped.map.bytes()[mapped.ranks[0][0].clone()], b"first");
    drop((first, second));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// As on a full disk, although nothing can fill one here: the file takes no more bytes.
#[test]
fn the_first_error_is_told_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("w");
    fs::write(&weights, b"abcd").unwrap();
    let source = One(weights);
    let writer = settled(&dir.path().join("x.packs"), "made", 2, &source).create().unwrap();
    writer.lock().result = Err(io::ErrorKind::StorageFull.into());
    writer.keep(0, b"part");
    let error = writer.publish(&source, &[]).unwrap_err();
    assert!(error.contains("storage"), "{error}");
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let nowhere = PackFile { path: dir.path().join("none/x"), ..file(dir.path()) };
    assert!(nowhere.create().is_err());
}
