//! Laws of the framing: where bytes are cut changes nothing, and no bytes panic.

#![allow(clippy::unwrap_used, reason = "tests")]

use glmbench_remote::stream::{Frame, Nul, Sse, TooLong};
use proptest::prelude::*;

const LIMIT: usize = 1 << 12;

/// Parses bytes that come in the given pieces.
fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Frame>, TooLong> {
    let mut sse = Sse::new(LIMIT);
    let mut frames = Vec::new();
    for piece in pieces {
        sse.push(piece, &mut frames)?;
    }
    frames.extend(sse.finish());
    Ok(frames)
}

/// Cuts bytes at the given places, taken modulo the length.
fn cut<'a>(bytes: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// A stream in a random style, and the payloads in it.
fn streams() -> impl Strategy<Value = (Vec<u8>, Vec<String>)> {
    let payload = "[a-z0-9 :{}\"中文😀]{0,12}(\n[a-z ]{0,5})?";
    let style = (0..3usize, any::<bool>(), any::<bool>());
    (proptest::collection::vec(payload, 0..8), style).prop_map(|(payloads, (end, space, comments))| {
        let end = ["\n", "\r\n", "\r"][end];
        let space = if space { " " } else { "" };
        let mut text = String::new();
        for payload in &payloads {
            if comments {
                text.push_str(&format!(": ping{end}id: 7{end}"));
            }
            for line in payload.split('\n') {
                // A payload that begins with a space needs the space of the format in front.
                let space = if line.starts_with(' ') { " " } else { space };
                text.push_str(&format!("data:{space}{line}{end}"));
            }
            text.push_str(end);
        }
        (text.into_bytes(), payloads)
    })
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_events((bytes, payloads) in streams(), places in proptest::collection::vec(any::<usize>(), 0..20)) {
        let expected: Vec<Frame> =
            payloads.into_iter().map(|text| Frame::Data { event: None, text }).collect();
        prop_assert_eq!(&parse(cut(&bytes, &places)).unwrap(), &expected);
        prop_assert_eq!(&parse(bytes.chunks(1)).unwrap(), &expected);
    }

    #[test]
    fn hostile_bytes_never_panic_and_cuts_do_not_matter(bytes in proptest::collection::vec(
        prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), Just(0u8), any::<u8>()], 0..300),
        places in proptest::collection::vec(any::<usize>(), 0..10)) {
        prop_assert_eq!(parse([bytes.as_slice()]), parse(cut(&bytes, &places)));
    }

    #[test]
    fn nul_streams_may_be_cut_anywhere(payloads in proptest::collection::vec("[a-z中]{1,9}", 0..9),
        places in proptest::collection::vec(any::<usize>(), 0..10)) {
        let bytes: Vec<u8> = payloads.iter().flat_map(|payload| [payload.as_bytes(), &[0]].concat()).collect();
        let (mut nul, mut frames) = (Nul::new(LIMIT), Vec::new());
        for piece in cut(&bytes, &places) {
            nul.push(piece, &mut frames).unwrap();
        }
        prop_assert_eq!(nul.finish(), None);
        let expected: Vec<Frame> = payloads.into_iter().map(|text| Frame::Data { event: None, text }).collect();
        prop_assert_eq!(frames, expected);
    }
}

#[test]
fn lines_and_events_are_bounded() {
    let line = vec![b'x'; LIMIT + 1];
    assert_eq!(parse([line.as_slice()]), Err(TooLong(LIMIT)));
    let event = b"data: 0123456789\n".repeat(LIMIT / 10);
    assert_eq!(parse([event.as_slice()]), Err(TooLong(LIMIT)));
    let mut nul = Nul::new(LIMIT);
    assert_eq!(nul.push(&line, &mut Vec::new()), Err(TooLong(LIMIT)));
}

#[test]
fn text_outside_of_the_format_is_reported() {
    let frames = parse([b"data: a\n\nEngine callback timeout: client timeout".as_slice()]).unwrap();
    assert_eq!(frames[1], Frame::Raw("Engine callback timeout: client timeout".into()));
    let frames = parse([b"\xEF\xBB\xBFevent: error\ndata: b\n\n".as_slice()]).unwrap();
    assert_eq!(frames, [Frame::Data { event: Some("error".into()), text: "b".into() }]);
}
