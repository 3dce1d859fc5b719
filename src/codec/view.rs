//! Archives read where they are: checked, unpacked where they must be, aligned, and never decoded.

use std::sync::Arc;

use super::Codecs;
use super::coding::{check_size, contained, unpack};
use super::frame::Header;
use super::options::RKYV;
use super::pace::{Job, SMALL, Way};
use super::rkyv::ALIGNMENT;
use super::stats::add;
use crate::error::{Error, ErrorKind, Result};
use crate::value::Raw;

/// The limit until enough was measured: validating an archive takes a small part of the time of decoding it.
const FIRST: usize = 64 << 10;

impl Codecs {
    /// Calls `see` with the plain bytes of an archive, at an address that suits it: here and now if they are few, else
    /// on the pool. If the future is dropped, a job that runs already runs to its end.
    ///
    /// # Errors
    /// [`ErrorKind::TypeMismatch`] if the entry is in another format, [`ErrorKind::Decode`] if it is damaged or too
    /// large, [`ErrorKind::Overloaded`] if the pool is full; what `see` reports.
    pub(crate) async fn view<R: Send + 'static>(
        self: &Arc<Self>,
        header: Header,
        payload: Raw,
        see: impl FnOnce(&[u8]) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let job = Job { way: Way::View, format: header.format, compressor: header.compressor, level: 0 };
        let limit = self.limit(job, self.options().inline_decode, FIRST);
        let size = header.plain_len.max(payload.len());
        if size <= limit.bytes {
            let measured = limit.measured.filter(|_| size >= SMALL);
            return self.measured(measured, || self.view_now(&header, &payload, see), |_| header.plain_len);
        }
        let this = Arc::clone(self);
        let job = move || {
            let view = || this.view_now(&header, &payload, see);
            this.measured(limit.measured, view, |_| header.plain_len)
        };
        self.pool().run(job).await?
    }

    fn view_now<R>(&self, header: &Header, payload: &Raw, see: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        let counters = self.counters();
        add(&counters.views, 1);
        add(&counters.bytes.decode, payload.len());
        let result = contained(|| self.view_checked(header, payload, see));
        if result.is_err() {
            add(&counters.failures.decode, 1);
        }
        result
    }

    fn view_checked<R>(
        &self,
        header: &Header,
        payload: &Raw,
        see: impl FnOnce(&[u8]) -> Result<R>,
    ) -> Result<R> {
        if header.format != RKYV {
            let message =
                format!("the entry is in format {}, not in rkyv's: it has no archive", header.format);
            return Err(Error::new(ErrorKind::TypeMismatch, message));
        }
        let tools = self.tools();
        check_size(header, payload, tools.max_value)?;
        header.verify(payload)?;
        if header.compressor == 0 && is_aligned(payload) {
            return see(payload);
        }
        let mut buffer = tools.scratch.take();
        let start = align(&mut buffer, header.plain_len);
        if header.compressor == 0 {
            add(&self.counters().view_copies, 1);
            buffer.extend_from_slice(payload);
        } else {
            unpack(header, payload, self, tools.work, &mut buffer)?;
        }
        let result = if is_aligned(&buffer[start..]) {
            see(&buffer[start..])
        } else {
            // A compressor of the application's brought a buffer of its own.
            add(&self.counters().view_copies, 1);
            let mut aligned = tools.scratch.take();
            let at = align(&mut aligned, header.plain_len);
            aligned.extend_from_slice(&buffer[start..]);
            see(&aligned[at..])
        };
        tools.scratch.give(buffer);
        result
    }
}

/// Makes room for `size` bytes at a suitable address; returns where in the buffer that is.
fn align(buffer: &mut Vec<u8>, size: usize) -> usize {
    buffer.clear();
    buffer.reserve_exact(size + ALIGNMENT);
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer.resize(start, 0);
    start
}

fn is_aligned(bytes: &[u8]) -> bool {
    (bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT)
}
