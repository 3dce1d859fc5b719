//! Reading letters back.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::dead_letter::DeadLetter;
use super::line;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::RuntimeHandle;

/// How many letters, and about how many bytes of them, are read in one job.
const LETTERS: usize = 128;
const BYTES: usize = 4 << 20;
/// No line of ours is longer: values are not, by far.
const MAX_LINE: u64 = 256 << 20;

/// Reads the letters of a file, a few at a time, on the runtime's blocking pool. From
/// [`FileLetters::read`](super::FileLetters::read).
pub struct LetterReader {
    path: PathBuf,
    runtime: RuntimeHandle,
    file: Option<BufReader<File>>,
    ready: VecDeque<Result<DeadLetter>>,
    /// How many lines have been read.
    lines: u64,
    ended: bool,
}

impl LetterReader {
    pub(super) fn new(path: &Path, runtime: RuntimeHandle) -> Self {
        let (file, ready) = (None, VecDeque::new());
        Self { path: path.to_owned(), runtime, file, ready, lines: 0, ended: false }
    }

    /// The next letter; `None` at the end of the file. An error of kind [`ErrorKind::Decode`] is about one line, and
    /// reading goes on after it; after any other the file is at its end.
    ///
    /// Dropped before it is finished, it makes the reader end.
    pub async fn next(&mut self) -> Option<Result<DeadLetter>> {
        while self.ready.is_empty() && !self.ended {
            let (path, file, lines) = (self.path.clone(), self.file.take(), self.lines);
            // Without its file, a reader whose future was dropped here could only start all over.
            self.ended = true;
            let job = self.runtime.spawn_blocking(move || read_some(&path, file, lines)).await;
            match job {
                Ok(Ok((file, ready, lines))) => {
                    self.ended = file.is_none();
                    (self.file, self.ready, self.lines) = (file, ready, lines);
                }
                Ok(Err(error)) => self.ready.push_back(Err(self.failed(error))),
                Err(error) => self.ready.push_back(Err(self.failed(std::io::Error::other(error)))),
            }
        }
        self.ready.pop_front()
    }

    fn failed(&self, source: std::io::Error) -> Error {
        let message = format!("the file of dead letters `{}` cannot be read ({source})", self.path.display());
        Error::new(ErrorKind::Unavailable, message).with_source(source)
    }
}

type Part = (Option<BufReader<File>>, VecDeque<Result<DeadLetter>>, u64);

/// Reads on, from where `file` stands. Gives the file back unless it is at its end.
fn read_some(path: &Path, file: Option<BufReader<File>>, mut lines: u64) -> std::io::Result<Part> {
    let mut file = match file {
        Some(file) => file,
        None => BufReader::new(File::open(path)?),
    };
    let mut ready = VecDeque::new();
    let mut bytes = 0;
    let mut text = Vec::new();
    while ready.len() < LETTERS && bytes < BYTES {
        text.clear();
        let length = file.by_ref().take(MAX_LINE).read_until(b'\n', &mut text)?;
        if length as u64 == MAX_LINE {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "a line is too long for a letter",
            ));
        }
        if length == 0 {
            return Ok((None, ready, lines));
        }
        bytes += length;
        lines += 1;
        let line = text.trim_ascii();
        if !line.is_empty() {
            ready.push_back(line::decode(line).map_err(|error| {
                let message = format!("line {lines} of `{}`: {}", path.display(), error.message());
                Error::new(error.kind(), message).with_source(error)
            }));
        }
    }
    Ok((Some(file), ready, lines))
}

/// Whether the last byte of a file is a newline.
pub(super) fn ends_a_line(file: &mut File) -> std::io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

impl fmt::Debug for LetterReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LetterReader")
            .field("path", &self.path)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}
