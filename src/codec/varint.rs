//! Numbers in frames and compact keys: LEB128 varints, zigzag for signed differences, and the bounds-checked reader.

/// Seven bits a byte, lowest first; at most ten bytes.
pub(crate) fn put_varint(out: &mut impl Extend<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            return out.extend([low]);
        }
        out.extend([low | 0x80]);
    }
}

/// A wrapping difference: small in either direction is short.
pub(crate) fn put_zigzag(out: &mut impl Extend<u8>, difference: u64) {
    let sign = if difference >> 63 == 1 { u64::MAX } else { 0 };
    put_varint(out, (difference << 1) ^ sign);
}

/// Reads forward; `None` once the bytes end or make no sense.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.position..)?.get(..count)?;
        self.position += count;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                return None; // more than 64 bits
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn zigzag(&mut self) -> Option<u64> {
        let coded = self.varint()?;
        let sign = if coded & 1 == 1 { u64::MAX } else { 0 };
        Some((coded >> 1) ^ sign)
    }

    /// Whether all bytes have been read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.position == self.bytes.len()
    }

    /// A length that fits this machine.
    pub(crate) fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }
}
