//! Errors of rejected pickles, and the names of opcodes for them.

/// Errors of reading a pickle.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// The file ends within the program.
    #[error("pickle byte {at}: cut short")]
    Truncated {
        /// Offset at which more bytes were expected.
        at: usize,
    },
    /// An opcode that a state dict does not need.
    #[error(
        "pickle byte {at}: opcode {opcode} is refused, only plain tensors are read and nothing is executed"
    )]
    Opcode {
        /// Offset of the opcode.
        at: usize,
        /// Its name and byte.
        opcode: String,
    },
    /// A function or class that a state dict does not need.
    #[error(
        "pickle byte {at}: global {global} is refused, only plain tensors are read and nothing is executed"
    )]
    Global {
        /// Offset of the global.
        at: usize,
        /// Module and name.
        global: String,
    },
    /// A storage of unsigned integers, which neither plain nor THUDM's quantised weights have.
    #[error(
        "pickle byte {at}: global {global}: these weights are unsigned integers; expected fp32, fp16, bf16 or int8. Take the \
         model that was not quantised"
    )]
    Integers {
        /// Offset of the global.
        at: usize,
        /// Module and name.
        global: String,
    },
    /// An invalid program.
    #[error("pickle byte {at}: {problem}")]
    Malformed {
        /// Offset of the opcode.
        at: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// A valid pickle that is not a dict of tensors.
    #[error("no state dict: {problem}")]
    NotState {
        /// What was found and what was expected.
        problem: String,
    },
}

/// Returns an opcode's name in `pickletools`, for messages.
pub(super) fn opcode_name(opcode: u8) -> String {
    let name = match opcode {
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'P' => "PERSID",
        b'S' => "STRING",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'V' => "UNICODE",
        b'B' => "BINBYTES",
        b'C' => "SHORT_BINBYTES",
        b'b' => "BUILD",
        b'd' => "DICT",
        b'g' => "GET",
        b'i' => "INST",
        b'l' => "LIST",
        b'o' => "OBJ",
        b'p' => "PUT",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x8c => "SHORT_BINUNICODE",
        0x8d => "BINUNICODE8",
        0x8e => "BINBYTES8",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x93 => "STACK_GLOBAL",
        0x94 => "MEMOIZE",
        0x95 => "FRAME",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => "unknown",
    };
    format!("{name} (0x{opcode:02x})")
}
