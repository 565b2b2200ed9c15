//! What the harness and the sandbox's process say to each other: a line of JSON, then bytes. The line has their
//! lengths.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{End, InputFile, Limits, Outcome, Output, Program};

/// Bytes of a line that are read at most: arguments and names of files.
const MAX_LINE: usize = 4 << 20;

/// What the harness asks for. Without a program, the sandbox is only made.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) program: Option<Program>,
    pub(crate) limits: Limits,
}

#[derive(Serialize, Deserialize)]
struct RequestLine {
    program: Option<Program>,
    limits: Limits,
    input: u64,
    files: Vec<(String, u64)>,
}

/// What a process of the sandbox reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    /// The program ended.
    Ended(End),
    /// The sandbox was made, and no program was asked for.
    Made,
    /// The program cannot be executed.
    NotExecuted(String),
    /// A step failed.
    Refused { step: String, error: String, hint: String },
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: Status,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    pub(crate) wall: Duration,
}

#[derive(Serialize, Deserialize)]
struct AnswerLine {
    status: Status,
    stdout: (u64, u64),
    stderr: (u64, u64),
    wall: Duration,
}

impl Request {
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let empty = Program::default();
        let program = self.program.as_ref().unwrap_or(&empty);
        let files = program.files.iter().map(|file| (file.path.clone(), file.bytes.len() as u64)).collect();
        let input = program.input.len() as u64;
        write_line(to, &RequestLine { program: self.program.clone(), limits: self.limits, input, files })?;
        to.write_all(&program.input)?;
        program.files.iter().try_for_each(|file| to.write_all(&file.bytes))
    }

    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let line: RequestLine = read_line(from)?;
        let mut program = line.program;
        let input = read_bytes(from, line.input)?;
        let mut files = Vec::new();
        for (path, length) in line.files {
            files.push(InputFile { path, bytes: read_bytes(from, length)? });
        }
        if let Some(program) = &mut program {
            (program.input, program.files) = (input, files);
        }
        Ok(Self { program, limits: line.limits })
    }
}

impl Answer {
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let lengths = |output: &Output| (output.kept.len() as u64, output.dropped);
        let (stdout, stderr) = (lengths(&self.stdout), lengths(&self.stderr));
        write_line(to, &AnswerLine { status: self.status.clone(), stdout, stderr, wall: self.wall })?;
        to.write_all(&self.stdout.kept)?;
        to.write_all(&self.stderr.kept)?;
        to.flush()
    }

    pub(crate) fn read(from: &mut impl Read) -> io::Result<Self> {
        let line: AnswerLine = read_line(from)?;
        let mut output =
            |(length, dropped)| io::Result::Ok(Output { kept: read_bytes(from, length)?, dropped });
        let (stdout, stderr) = (output(line.stdout)?, output(line.stderr)?);
        Ok(Self { status: line.status, stdout, stderr, wall: line.wall })
    }

    pub(crate) fn outcome(self, end: End) -> Outcome {
        Outcome { end, stdout: self.stdout, stderr: self.stderr, wall: self.wall }
    }
}

fn write_line(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads a line from a buffered reader.
fn read_line<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_LINE && from.read(&mut byte)? == 1 {
        if byte == *b"\n" {
            return Ok(serde_json::from_slice(&line)?);
        }
        line.extend(byte);
    }
    let beginning = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
    Err(io::Error::other(if beginning.is_empty() { "no answer".into() } else { format!("`{beginning}`") }))
}

fn read_bytes(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if from.by_ref().take(length).read_to_end(&mut bytes)? as u64 == length {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
