//! Reader of the pickle that `torch.save` writes for a state dict. It executes nothing.
//!
//! A pickle is a program for a stack machine, and Python's machine can call any function. This one implements the
//! opcodes of protocol 2 that build plain data. For the two calls in a state dict (an `OrderedDict`, a tensor over a
//! storage) it creates its own records. It rejects every other opcode and global by name. Opcodes: `pickletools.py` in
//! Python. What torch writes: `torch/_utils.py`, `torch/serialization.py`.
//!
//! Values are small and copied. Containers live in one arena and are referenced by index. A hostile file can therefore
//! build no cycle that leaks and no nesting that overflows the stack on release. Its memory is limited to a small
//! multiple of its length.

mod refusal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

pub use self::refusal::PickleError;
use self::refusal::opcode_name;
use super::StorageType;
use super::tensor::ElementType;

/// A tensor of a state dict: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateTensor {
    /// Key in the dict.
    pub name: String,
    /// Storage type of its numbers.
    pub dtype: ElementType,
    /// Key of its storage.
    pub storage: String,
    /// Length of that storage, in numbers.
    pub storage_len: usize,
    /// Offset of the tensor in its storage, in numbers.
    pub offset: usize,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// Distance between neighbours in each dimension, in numbers.
    pub stride: Vec<usize>,
}

/// Reads a pickled state dict. Returns its tensors in the order of the dict.
pub(super) fn read_state(bytes: &[u8]) -> Result<Vec<StateTensor>, PickleError> {
    let mut machine = Machine::new(bytes);
    let top = machine.run()?;
    machine.state(top)
}

/// The only accepted globals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
    OrderedDict,
    RebuildTensor,
    Storage(ElementType),
}

impl Global {
    fn of(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch", "HalfStorage") => Some(Self::Storage(StorageType::F16.into())),
            ("torch", "BFloat16Storage") => Some(Self::Storage(StorageType::Bf16.into())),
            ("torch", "FloatStorage") => Some(Self::Storage(StorageType::F32.into())),
            ("torch", "CharStorage") => Some(Self::Storage(ElementType::I8)),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    None,
    Bool,
    Int(i64),
    Float,
    Str(&'a str),
    Global(Global),
    Tuple(usize),
    List(usize),
    Dict { node: usize, is_ordered: bool },
    Storage(Storage<'a>),
    Tensor(usize),
}

impl Value<'_> {
    fn kind(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool => "a truth value",
            Self::Int(_) => "an integer",
            Self::Float => "a float",
            Self::Str(_) => "a string",
            Self::Global(_) => "a global",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict { .. } => "a dict",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Storage<'a> {
    dtype: ElementType,
    key: &'a str,
    len: usize,
}

struct Tensor<'a> {
    storage: Storage<'a>,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

struct Machine<'a> {
    bytes: &'a [u8],
    /// Offset of the next byte.
    at: usize,
    /// Offset of the current opcode.
    opcode_at: usize,
    stack: Vec<Value<'a>>,
    /// Stack heights of the MARKs.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    /// Contents of tuples, lists and dicts; a dict alternates keys and values.
    nodes: Vec<Vec<Value<'a>>>,
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            opcode_at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            nodes: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Runs the program up to STOP.
    fn run(&mut self) -> Result<Value<'a>, PickleError> {
        loop {
            self.opcode_at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            0x80 => self.protocol(),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'N' => self.push(Value::None),
            0x88 | 0x89 => self.push(Value::Bool),
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))
            }
            b'K' => {
                let number = self.byte()?;
                self.push(Value::Int(number.into()))
            }
            b'M' => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(number.into()))
            }
            0x8a => self.long(),
            b'G' => {
                self.take(8)?;
                self.push(Value::Float)
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                let text = self.take(length as usize)?;
                let text = self.utf8(text)?;
                self.push(Value::Str(text))
            }
            b'c' => self.global(),
            b')' => self.tuple(0),
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84)),
            b't' => {
                let items = self.pop_to_mark()?;
                let node = self.node(items);
                self.push(Value::Tuple(node))
            }
            b']' => {
                let node = self.node(Vec::new());
                self.push(Value::List(node))
            }
            b'a' => {
                let item = self.pop_many(1)?;
                self.extend_list(item)
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(items)
            }
            b'}' => {
                let node = self.node(Vec::new());
                self.push(Value::Dict { node, is_ordered: false })
            }
            b's' => {
                let pair = self.pop_many(2)?;
                self.extend_dict(pair)
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                self.extend_dict(pairs)
            }
            b'q' => {
                let key = self.byte()?;
                self.remember(key.into())
            }
            b'r' => {
                let key = u32::from_le_bytes(self.array()?);
                self.remember(key)
            }
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())
            }
            b'j' => {
                let key = u32::from_le_bytes(self.array()?);
                self.recall(key)
            }
            b'Q' => self.persistent(),
            b'R' => self.reduce(),
            b'b' => self.build(),
            other => Err(PickleError::Opcode { at: self.opcode_at, opcode: opcode_name(other) }),
        }
    }

    fn malformed(&self, problem: impl Into<String>) -> PickleError {
        PickleError::Malformed { at: self.opcode_at, problem: problem.into() }
    }

    // Input.

    fn take(&mut self, length: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(length);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        self.at += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PickleError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        Ok(self.take(N)?.try_into().expect("invariant: as many bytes as asked for"))
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let length = self.bytes[self.at..].iter().position(|&byte| byte == b'\n');
        let length = length.ok_or(PickleError::Truncated { at: self.bytes.len() })?;
        let text = self.take(length + 1)?;
        self.utf8(&text[..length])
    }

    fn utf8(&self, text: &'a [u8]) -> Result<&'a str, PickleError> {
        std::str::from_utf8(text).map_err(|_| self.malformed("text that is no UTF-8"))
    }

    // Stack, memo and arena.

    #[expect(clippy::unnecessary_wraps, reason = "every arm of `step` ends with a result")]
    fn push(&mut self, value: Value<'a>) -> Result<(), PickleError> {
        self.stack.push(value);
        Ok(())
    }

    /// Returns the height below which nothing may be popped: the last MARK.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        if self.stack.len() <= self.floor() {
            return Err(self.malformed("the stack is empty"));
        }
        self.stack.pop().ok_or_else(|| self.malformed("the stack is empty"))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Value<'a>>, PickleError> {
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= self.floor() => Ok(self.stack.split_off(height)),
            _ => Err(self.malformed("the stack is empty")),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, PickleError> {
        let mark = self.marks.pop().ok_or_else(|| self.malformed("no MARK on the stack"))?;
        Ok(self.stack.split_off(mark))
    }

    fn node(&mut self, items: Vec<Value<'a>>) -> usize {
        self.nodes.push(items);
        self.nodes.len() - 1
    }

    fn remember(&mut self, key: u32) -> Result<(), PickleError> {
        let value = self.pop()?;
        self.memo.insert(key, value);
        self.push(value)
    }

    fn recall(&mut self, key: u32) -> Result<(), PickleError> {
        let value = self.memo.get(&key).copied();
        let value = value.ok_or_else(|| self.malformed(format!("memo {key} is empty")))?;
        self.push(value)
    }

    // Opcodes longer than one line.

    fn protocol(&mut self) -> Result<(), PickleError> {
        match self.byte()? {
            2 => Ok(()),
            other => Err(self.malformed(format!("protocol {other}, expected 2 as torch.save writes it"))),
        }
    }

    /// Reads a signed integer, with its length in the next byte.
    fn long(&mut self) -> Result<(), PickleError> {
        let length = self.byte()?;
        let digits = self.take(length.into())?;
        if digits.len() > 8 {
            return Err(self.malformed(format!("an integer of {length} bytes, expected at most 8")));
        }
        let is_negative = digits.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = [if is_negative { 0xFF } else { 0 }; 8];
        wide[..digits.len()].copy_from_slice(digits);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }

    fn global(&mut self) -> Result<(), PickleError> {
        let (module, name) = (self.line()?, self.line()?);
        if let Some(global) = Global::of(module, name) {
            return self.push(Value::Global(global));
        }
        if let ("torch", "ByteStorage") = (module, name) {
            return Err(PickleError::Integers { at: self.opcode_at, global: format!("{module}.{name}") });
        }
        // Shown escaped and truncated, because the text comes from the file.
        let global = format!("{module}.{name}").escape_debug().take(100).collect();
        Err(PickleError::Global { at: self.opcode_at, global })
    }

    fn tuple(&mut self, count: usize) -> Result<(), PickleError> {
        let items = self.pop_many(count)?;
        let node = self.node(items);
        self.push(Value::Tuple(node))
    }

    fn extend_list(&mut self, items: Vec<Value<'a>>) -> Result<(), PickleError> {
        match self.pop()? {
            list @ Value::List(node) => {
                self.nodes[node].extend(items);
                self.push(list)
            }
            other => Err(self.malformed(format!("items are appended to {}, expected a list", other.kind()))),
        }
    }

    fn extend_dict(&mut self, pairs: Vec<Value<'a>>) -> Result<(), PickleError> {
        if !pairs.len().is_multiple_of(2) {
            return Err(self.malformed("a key without a value"));
        }
        match self.pop()? {
            dict @ Value::Dict { node, .. } => {
                self.nodes[node].extend(pairs);
                self.push(dict)
            }
            other => Err(self.malformed(format!("keys are set in {}, expected a dict", other.kind()))),
        }
    }

    /// Handles `('storage', torch.HalfStorage, key, device, numbers)`, which names a storage outside the pickle.
    fn persistent(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        let items = if let Value::Tuple(node) = id { self.nodes[node].as_slice() } else { &[] };
        let [
            Value::Str("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Str(key),
            Value::Str(_),
            len,
        ] = *items
        else {
            return Err(self.malformed("a persistent id that names no storage"));
        };
        let len = self.size(len)?;
        self.push(Value::Storage(Storage { dtype, key, len }))
    }

    fn reduce(&mut self) -> Result<(), PickleError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = arguments else {
            return Err(self.malformed(format!("arguments in {}, expected a tuple", arguments.kind())));
        };
        match callee {
            Value::Global(Global::OrderedDict) if self.nodes[arguments].is_empty() => {
                let node = self.node(Vec::new());
                self.push(Value::Dict { node, is_ordered: true })
            }
            Value::Global(Global::RebuildTensor) => self.rebuild_tensor(arguments),
            Value::Global(global) => {
                Err(self.malformed(format!("a call of {global:?} that no state dict has")))
            }
            other => Err(self.malformed(format!("a call of {}", other.kind()))),
        }
    }

    /// Handles `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)`. The last two do not
    /// affect the numbers.
    fn rebuild_tensor(&mut self, arguments: usize) -> Result<(), PickleError> {
        let [Value::Storage(storage), offset, Value::Tuple(size), Value::Tuple(stride), _, _] =
            *self.nodes[arguments].as_slice()
        else {
            return Err(self.malformed("a tensor from other arguments than storage, offset, size, stride"));
        };
        let offset = self.size(offset)?;
        let (shape, stride) = (self.sizes(size)?, self.sizes(stride)?);
        if shape.len() != stride.len() {
            return Err(self.malformed(format!("a tensor of shape {shape:?} with strides {stride:?}")));
        }
        self.tensors.push(Tensor { storage, offset, shape, stride });
        self.push(Value::Tensor(self.tensors.len() - 1))
    }

    fn size(&self, value: Value<'a>) -> Result<usize, PickleError> {
        let size = if let Value::Int(number) = value { usize::try_from(number).ok() } else { None };
        size.ok_or_else(|| self.malformed("a size that is no whole number from 0 up"))
    }

    fn sizes(&self, node: usize) -> Result<Vec<usize>, PickleError> {
        /// More than any model's tensor has. The limit keeps shapes from multiplying a small file.
        const DIMENSIONS: usize = 8;
        if self.nodes[node].len() > DIMENSIONS {
            return Err(self.malformed(format!("a tensor of more than {DIMENSIONS} dimensions")));
        }
        self.nodes[node].iter().map(|&value| self.size(value)).collect()
    }

    /// BUILD sets attributes of an object. A module's state dict is an `OrderedDict` with the attribute `_metadata`
    /// (version numbers), which is dropped. Attributes of any other object are rejected.
    fn build(&mut self) -> Result<(), PickleError> {
        let attributes = self.pop()?;
        let target = self.pop()?;
        match (target, attributes) {
            (Value::Dict { is_ordered: true, .. }, Value::Dict { .. }) => self.push(target),
            _ => Err(PickleError::Opcode { at: self.opcode_at, opcode: opcode_name(b'b') }),
        }
    }

    // Result.

    fn state(&self, top: Value<'a>) -> Result<Vec<StateTensor>, PickleError> {
        let not_state = |problem| PickleError::NotState { problem };
        let Value::Dict { node, .. } = top else {
            return Err(not_state(format!("the file holds {}, expected a dict of tensors", top.kind())));
        };
        let mut names = BTreeSet::new();
        let mut state = Vec::new();
        for pair in self.nodes[node].chunks_exact(2) {
            let (name, index) = match (pair[0], pair[1]) {
                (Value::Str(name), Value::Tensor(index)) => (name, index),
                (Value::Str(name), other) => {
                    return Err(not_state(format!("{name:?} is {}, expected a tensor", other.kind())));
                }
                (other, _) => return Err(not_state(format!("a key is {}, expected a string", other.kind()))),
            };
            if !names.insert(name) {
                return Err(not_state(format!("{name:?} is there twice")));
            }
            let Tensor { storage, offset, shape, stride } = &self.tensors[index];
            state.push(StateTensor {
                name: name.to_owned(),
                dtype: storage.dtype,
                storage: storage.key.to_owned(),
                storage_len: storage.len,
                offset: *offset,
                shape: shape.clone(),
                stride: stride.clone(),
            });
        }
        Ok(state)
    }
}
