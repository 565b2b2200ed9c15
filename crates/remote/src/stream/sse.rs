//! Server-sent events (WHATWG HTML, section 9.2.6), as inference servers write them.

use super::{Frame, TooLong};

/// The fields of the format. A line with any other name is text that does not belong into the stream.
const FIELDS: [&[u8]; 4] = [b"data", b"event", b"id", b"retry"];

/// An incremental parser. Lines end with LF, CRLF or CR, and bytes may be cut anywhere.
#[derive(Debug)]
pub struct Sse {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    event: Option<String>,
    after_cr: bool,
    at_start: bool,
    limit: usize,
}

impl Sse {
    /// Returns a parser of lines and events of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { line: Vec::new(), data: None, event: None, after_cr: false, at_start: true, limit }
    }

    /// Takes bytes and appends the events that they complete.
    ///
    /// # Errors
    /// If a line or an event is longer than the bound.
    pub fn push(&mut self, mut bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            // The LF of a CRLF whose CR has ended the line already.
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|&b| b == b'\n' || b == b'\r');
            let piece = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + piece.len() > self.limit {
                return Err(TooLong(self.limit));
            }
            self.line.extend_from_slice(piece);
            let Some(end) = end else { return Ok(()) };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.take_line(&line, frames)?;
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    /// Ends the stream. Returns the payload that no empty line closed: the standard drops it, but some servers forget the
    /// line behind their end marker.
    pub fn finish(mut self) -> Option<Frame> {
        let mut frames = Vec::new();
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() && self.take_line(&line, &mut frames).is_err() {
            return None;
        }
        self.dispatch(&mut frames);
        frames.pop()
    }

    fn take_line(&mut self, line: &[u8], frames: &mut Vec<Frame>) -> Result<(), TooLong> {
        let bom: &[u8] = if std::mem::take(&mut self.at_start) { b"\xEF\xBB\xBF" } else { b"" };
        let line = line.strip_prefix(bom).unwrap_or(line);
        if line.is_empty() {
            self.dispatch(frames);
            return Ok(());
        }
        let colon = line.iter().position(|&b| b == b':');
        let (name, value) = match colon {
            Some(0) => return Ok(()),
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &line[line.len()..]),
        };
        if !FIELDS.contains(&name) {
            frames.push(Frame::Raw(String::from_utf8_lossy(line).into_owned()));
            return Ok(());
        }
        let value = value.strip_prefix(b" ").unwrap_or(value);
        if name == b"event" {
            self.event = Some(String::from_utf8_lossy(value).into_owned());
        } else if name == b"data" {
            let data = match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data
                }
                none => none.insert(Vec::new()),
            };
            if data.len() + value.len() > self.limit {
                return Err(TooLong(self.limit));
            }
            data.extend_from_slice(value);
        }
        Ok(())
    }

    fn dispatch(&mut self, frames: &mut Vec<Frame>) {
        let event = self.event.take();
        if let Some(data) = self.data.take() {
            frames.push(Frame::Data { event, text: String::from_utf8_lossy(&data).into_owned() });
        }
    }
}
