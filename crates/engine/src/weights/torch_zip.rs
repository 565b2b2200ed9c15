//! Reader of the `.bin` files that `torch.save` writes since 1.6: a zip of stored entries. `NAME/data.pkl` is the
//! pickled state dict, and each `NAME/data/KEY` is one storage.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{PickleError, StateTensor, read_state};
use crate::lfs;

/// Largest accepted pickle, in bytes; the 6B model's have about 5,000 per shard.
const PICKLE_LIMIT: u64 = 4 << 20;
/// Bytes copied at a time.
const COPY_BUFFER: usize = 1 << 20;
const PICKLE_ENTRY: &str = "/data.pkl";

/// Errors of reading a `.bin` file.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The zip that holds the tensors is broken.
    #[error("zip: {0}")]
    Zip(#[from] ZipError),
    /// Its pickle holds more than plain tensors.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// A valid file that cannot be converted.
    #[error("{0}")]
    Unsupported(String),
}

/// An open `.bin` file and its tensors.
pub(super) struct TorchFile {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    /// Common prefix of all entry names.
    root: String,
    tensors: Vec<StateTensor>,
}

impl TorchFile {
    /// Opens a file, reads its pickle, and checks every tensor against its storage.
    pub(super) fn open(path: &Path) -> Result<Self, TorchError> {
        let mut reader = BufReader::new(open_regular(path)?);
        check_magic(&mut reader)?;
        let archive = ZipArchive::new(reader)?;
        if archive.has_duplicate_names() {
            return Err(TorchError::Unsupported("the zip has two entries of one name".into()));
        }
        let root = find_root(&archive)?;
        let mut file = Self { path: path.to_path_buf(), archive, root, tensors: Vec::new() };
        file.check_byte_order()?;
        file.tensors = read_state(&file.small_entry(PICKLE_ENTRY, PICKLE_LIMIT)?)?;
        for index in 0..file.tensors.len() {
            let tensor = file.tensors[index].clone();
            file.check_tensor(&tensor)?;
        }
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the tensors in the order of the state dict. Each is contiguous and inside its storage.
    pub(super) fn tensors(&self) -> &[StateTensor] {
        &self.tensors
    }

    /// Writes the data of one tensor to `out`, one buffer at a time. `copied` receives the size of each in bytes.
    ///
    /// The outer error is the file's, the inner one `out`'s.
    pub(super) fn copy_tensor(
        &mut self,
        index: usize,
        out: &mut dyn Write,
        copied: &mut dyn FnMut(u64),
    ) -> Result<io::Result<()>, TorchError> {
        let tensor = &self.tensors[index];
        let name = storage_entry(&self.root, tensor);
        let bytes = tensor_bytes(tensor);
        let start = (tensor.offset * tensor.dtype.bytes()) as u64;
        let is_whole = start == 0 && bytes == (tensor.storage_len * tensor.dtype.bytes()) as u64;
        if is_whole {
            // At the end of the entry, this reader also checks its checksum.
            let mut reader = self.archive.by_name(&name)?;
            let copied = copy(&mut reader, bytes, out, copied)?;
            io::copy(&mut reader, &mut io::sink())?;
            Ok(copied)
        } else {
            let mut reader = self.archive.by_name_seek(&name)?;
            reader.seek(SeekFrom::Start(start))?;
            Ok(copy(&mut reader, bytes, out, copied)?)
        }
    }

    fn check_byte_order(&mut self) -> Result<(), TorchError> {
        const ENTRY: &str = "/byteorder";
        if self.archive.index_for_name(&format!("{}{ENTRY}", self.root)).is_none() {
            return Ok(()); // Files before torch 2.1 do not say; they are little-endian.
        }
        match self.small_entry(ENTRY, 64)?.as_slice() {
            b"little" => Ok(()),
            other => Err(TorchError::Unsupported(format!(
                "byte order {:?}, expected \"little\"",
                String::from_utf8_lossy(other)
            ))),
        }
    }

    fn small_entry(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, TorchError> {
        let entry = self.archive.by_name(&format!("{}{name}", self.root))?;
        if entry.size() > limit {
            let size = entry.size();
            return Err(TorchError::Unsupported(format!(
                "{name} has {size} bytes, expected at most {limit}"
            )));
        }
        let mut bytes = Vec::new();
        // The file's own size field cannot be trusted.
        entry.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn check_tensor(&mut self, tensor: &StateTensor) -> Result<(), TorchError> {
        let unsupported = |problem: String| Err(TorchError::Unsupported(problem));
        let StateTensor { name, shape, stride, offset, storage_len, .. } = tensor;
        let count = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
        let end = count.and_then(|count| offset.checked_add(count));
        if end.is_none_or(|end| end > *storage_len) {
            return unsupported(format!(
                "tensor {name} of shape {shape:?} from number {offset} on goes past its storage of {storage_len}"
            ));
        }
        if !is_contiguous(shape, stride) {
            return unsupported(format!(
                "tensor {name} of shape {shape:?} has strides {stride:?}, expected the numbers in a row; \
                 save it again after .contiguous()"
            ));
        }
        let entry =
            self.archive.by_name(&storage_entry(&self.root, tensor)).map_err(|error| match error {
                ZipError::FileNotFound => TorchError::Unsupported(format!(
                    "tensor {name}: storage {} is not in the file",
                    tensor.storage
                )),
                other => other.into(),
            })?;
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return unsupported(format!(
                "tensor {name}: its storage is compressed or encrypted, expected it stored"
            ));
        }
        let expected = storage_len.checked_mul(tensor.dtype.bytes()).map(|bytes| bytes as u64);
        if Some(entry.size()) != expected || entry.compressed_size() != entry.size() {
            return unsupported(format!(
                "tensor {name}: its storage has {} bytes, expected {storage_len} numbers of {}",
                entry.size(),
                tensor.dtype
            ));
        }
        Ok(())
    }
}

/// Returns the size in bytes of a checked tensor.
pub(super) fn tensor_bytes(tensor: &StateTensor) -> u64 {
    (tensor.shape.iter().product::<usize>() * tensor.dtype.bytes()) as u64
}

fn storage_entry(root: &str, tensor: &StateTensor) -> String {
    format!("{root}/data/{}", tensor.storage)
}

/// Opens a regular file. Checks its kind first, because opening a named pipe would block.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    File::open(path)
}

fn check_magic(reader: &mut (impl Read + Seek)) -> Result<(), TorchError> {
    let mut start = Vec::new();
    reader.take(64).read_to_end(&mut start)?;
    reader.rewind()?;
    match start.as_slice() {
        [b'P', b'K', 3, 4, ..] => Ok(()),
        start if lfs::is_pointer(start) => Err(TorchError::Unsupported(lfs::POINTER.into())),
        [0x80, ..] => Err(TorchError::Unsupported(
            "written by torch before 1.6 (no zip); load and save it with a newer torch first".into(),
        )),
        _ => Err(TorchError::Unsupported("no torch file: it is no zip".into())),
    }
}

fn find_root(archive: &ZipArchive<BufReader<File>>) -> Result<String, TorchError> {
    let mut roots = Vec::new();
    for name in archive.file_names() {
        if let Some(root) = name?.strip_suffix(PICKLE_ENTRY)
            && !root.contains('/')
        {
            roots.push(root.to_owned());
        }
    }
    match <[String; 1]>::try_from(roots) {
        Ok([root]) => Ok(root),
        Err(roots) => Err(TorchError::Unsupported(format!(
            "no torch file: {} entries NAME/data.pkl in the zip, expected one",
            roots.len()
        ))),
    }
}

/// Whether a tensor is row-major without gaps. Strides of dimensions of extent 1 or of an empty tensor do not matter.
fn is_contiguous(shape: &[usize], stride: &[usize]) -> bool {
    let mut expected = 1usize;
    let in_a_row = shape.iter().zip(stride).rev().all(|(&extent, &stride)| {
        let fits = extent == 1 || stride == expected;
        expected = expected.saturating_mul(extent);
        fits
    });
    in_a_row || shape.contains(&0)
}

/// Copies exactly `bytes` bytes. The outer error is the reader's, the inner one the writer's.
fn copy(
    reader: &mut impl Read,
    bytes: u64,
    out: &mut dyn Write,
    copied: &mut dyn FnMut(u64),
) -> io::Result<io::Result<()>> {
    let mut buffer = vec![0; COPY_BUFFER.min(bytes as usize)];
    let mut left = bytes;
    while left > 0 {
        let piece = &mut buffer[..COPY_BUFFER.min(left as usize)];
        reader.read_exact(piece)?;
        if let Err(error) = out.write_all(piece) {
            return Ok(Err(error));
        }
        left -= piece.len() as u64;
        copied(piece.len() as u64);
    }
    Ok(Ok(()))
}
