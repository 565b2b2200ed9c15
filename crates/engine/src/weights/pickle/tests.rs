//! What the pickle reader accepts and what it rejects.

use super::*;

fn refusal(program: &[u8]) -> String {
    read_state(program).expect_err("refused").to_string()
}

/// Concatenates the parts of a program.
fn program(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

const STORAGE: &[u8] = b"(X\x07\0\0\0storagectorch\nHalfStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ";

/// A 2 x 3 fp16 tensor as the entry `w` of a dict.
fn good() -> Vec<u8> {
    program(&[
        b"\x80\x02}q\0(",
        &text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        STORAGE,
        b"K\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRu.",
    ])
}

#[test]
fn a_state_dict_is_read() {
    let expected = StateTensor {
        name: "w".into(),
        dtype: StorageType::F16.into(),
        storage: "0".into(),
        storage_len: 6,
        offset: 0,
        shape: vec![2, 3],
        stride: vec![3, 1],
    };
    assert_eq!(read_state(&good()).unwrap(), [expected]);
    assert_eq!(read_state(b"\x80\x02}.").unwrap(), []);
}

#[test]
fn the_attributes_of_an_ordered_dict_are_dropped_those_of_all_else_refused() {
    let ordered: &[u8] = b"ccollections\nOrderedDict\n)R";
    let attributes = program(&[b"}", &text("_metadata"), b"Ns"]);
    assert_eq!(read_state(&program(&[ordered, &attributes, b"b."])).unwrap(), []);
    for target in [&b"}"[..], b"]", b"N", b"ctorch\nHalfStorage\n", b"ccollections\nOrderedDict\n"] {
        assert!(refusal(&program(&[target, &attributes, b"b."])).contains("BUILD"));
    }
    assert!(refusal(&program(&[ordered, b"Nb."])).contains("BUILD"));
}

#[test]
fn every_opcode_that_could_do_more_is_refused_by_name() {
    let refused: [(&[u8], &str); 23] = [
        (b"(S'echo'\nios\nsystem\n.", "STRING"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(o.", "OBJ"),
        (b")\x81.", "NEWOBJ (0x81)"),
        (b"))}\x92.", "NEWOBJ_EX"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\0.", "EXT2"),
        (b"\x84\x01\0\0\0.", "EXT4"),
        (b"\x8c\x02os\x8c\x06system\x93.", "SHORT_BINUNICODE"),
        (b"X\x02\0\0\0osX\x06\0\0\0system\x93.", "STACK_GLOBAL"),
        (b"Pos\n.", "PERSID"),
        (b"N2.", "DUP"),
        (b"N0.", "POP (0x30)"),
        (b"(1.", "POP_MARK"),
        (b"I1\n.", "INT"),
        (b"L1L\n.", "LONG"),
        (b"\x8b\xff\xff\xff\x7f.", "LONG4"),
        (b"\x95\0\0\0\0\0\0\0\0.", "FRAME"),
        (b"N\x94.", "MEMOIZE"),
        (b"B\xff\xff\xff\xff.", "BINBYTES"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "BINBYTES8"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\xff.", "BYTEARRAY8"),
        (b"\xfe.", "unknown (0xfe)"),
    ];
    for (program, opcode) in refused {
        let message = refusal(program);
        assert!(message.contains(opcode) && message.contains("is refused"), "{opcode}: {message}");
    }
}

#[test]
fn no_opcode_but_the_known_ones_is_carried_out() {
    let known = b"\x80(N\x88\x89JKM\x8aGXc)\x85\x86\x87t]ae}suqrhjQRb.";
    for opcode in (0..=u8::MAX).filter(|opcode| !known.contains(opcode)) {
        let message = refusal(&[opcode, b'.']);
        assert!(message.contains(&format!("(0x{opcode:02x}) is refused")), "{message}");
    }
}

#[test]
fn every_other_global_is_refused_by_name() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch", "LongStorage"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict.__init__"),
        ("collections.OrderedDict", ""),
        ("", ""),
    ] {
        let message = refusal(format!("c{module}\n{name}\n)R.").as_bytes());
        assert!(message.contains(&format!("global {module}.{name} is refused")), "{message}");
    }
    let message = refusal(b"ctorch\nByteStorage\n)R.");
    assert!(message.contains("ByteStorage") && message.contains("unsigned integers"), "{message}");
    assert!(refusal(b"cos\x1b[31m\nsystem\n.").contains("os\\u{1b}[31m.system"), "shown escaped");
    assert!(refusal(&program(&[b"c", &b"a".repeat(100_000), b"\nb\n."])).len() < 300, "and cut");
}

#[test]
fn known_globals_are_called_in_one_way_only() {
    for (program, expected) in [
        (&b"ctorch\nHalfStorage\n)R."[..], "a call of Storage(Float(F16))"),
        (b"ccollections\nOrderedDict\nN\x85R.", "a call of OrderedDict"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "other arguments"),
        (b"ctorch._utils\n_rebuild_tensor_v2\nNR.", "expected a tuple"),
        (b"})R.", "a call of a dict"),
        (b"NQ.", "names no storage"),
        (b")Q.", "names no storage"),
    ] {
        let message = refusal(program);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn nonsense_is_answered() {
    for (program, expected) in [
        (&b""[..], "cut short"),
        (b".", "the stack is empty"),
        (b"(.", "the stack is empty"),
        (b"N(.", "the stack is empty"),
        (b"N(\x85.", "the stack is empty"),
        (b"t.", "no MARK"),
        (b"u.", "no MARK"),
        (b"R.", "the stack is empty"),
        (b"b.", "the stack is empty"),
        (b"q\0.", "the stack is empty"),
        (b"h\0.", "memo 0 is empty"),
        (b"j\xff\xff\xff\xff.", "memo 4294967295 is empty"),
        (b"}(Nu.", "a key without a value"),
        (b"}(Ne.", "expected a list"),
        (b"]NNs.", "expected a dict"),
        (b"X\xff\xff\xff\xffab", "cut short"),
        (b"X\x01\0\0\0\xff.", "no UTF-8"),
        (b"\x8a\xff", "cut short"),
        (b"\x8a\x09123456789.", "an integer of 9 bytes"),
        (b"\x80\x04.", "protocol 4"),
        (b"cos", "cut short"),
        (b"N.", "holds None, expected a dict"),
        (b"}NNs.", "a key is None"),
        (b"}X\x01\0\0\0eK\x03s.", "\"e\" is an integer, expected a tensor"),
    ] {
        let message = refusal(program);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn a_program_cut_anywhere_or_changed_anywhere_is_answered() {
    let good = good();
    for cut in 0..good.len() {
        assert!(read_state(&good[..cut]).is_err(), "cut at {cut}");
    }
    for position in 0..good.len() {
        for byte in 0..=u8::MAX {
            let mut changed = good.clone();
            changed[position] = byte;
            drop(read_state(&changed));
        }
    }
}

#[test]
fn sizes_that_cannot_be_are_answered() {
    let with = |offset: &[u8], size: &[u8], stride: &[u8]| {
        let tail: &[u8] = b"\x89NtRu.";
        program(&[
            b"}(",
            &text("w"),
            b"ctorch._utils\n_rebuild_tensor_v2\n(",
            STORAGE,
            offset,
            size,
            stride,
            tail,
        ])
    };
    assert!(read_state(&with(b"K\0", b"K\x02\x85", b"K\x01\x85")).is_ok());
    assert!(refusal(&with(b"J\xff\xff\xff\xff", b")", b")")).contains("whole number"));
    assert!(refusal(&with(b"\x8a\x01\xff", b")", b")")).contains("whole number"));
    assert!(refusal(&with(b"K\0", b"N\x85", b"K\x01\x85")).contains("whole number"));
    assert!(refusal(&with(b"K\0", b"K\x02\x85", b")")).contains("with strides []"));
    let many = program(&[b"(", &b"K\x01".repeat(9), b"t"]);
    assert!(refusal(&with(b"K\0", &many, &many)).contains("more than 8 dimensions"));
}

#[test]
fn bombs_do_not_go_off() {
    // A million nested tuples, a list that contains itself, and tuples that double their content each time.
    let nested = program(&[b")", &b"\x85".repeat(1_000_000), b"."]);
    assert!(refusal(&nested).contains("holds a tuple"));
    assert!(refusal(b"]q\0h\0a.").contains("holds a list"));
    let doubling = program(&[b")q\0", &b"h\0h\0\x86q\0".repeat(100_000), b"."]);
    assert!(refusal(&doubling).contains("holds a tuple"));
    let marks = b"(".repeat(1_000_000);
    assert!(refusal(&marks).contains("cut short"));
}
