//! Where keys live in a cluster: CRC16 of the name, or of its hash tag, modulo 16,384.

pub(super) const SLOTS: u16 = 16_384;

pub(super) fn slot(name: &[u8]) -> u16 {
    let tag = name.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &name[open + 1..];
        let length = rest.iter().position(|&byte| byte == b'}')?;
        (length > 0).then(|| &rest[..length])
    });
    crc16(tag.unwrap_or(name)) % SLOTS
}

/// CRC-16/XMODEM, bit by bit over a nibble table.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, &byte| {
        let crc = (crc << 4) ^ NIBBLES[usize::from((crc >> 12) ^ u16::from(byte >> 4)) & 15];
        (crc << 4) ^ NIBBLES[usize::from((crc >> 12) ^ u16::from(byte & 15)) & 15]
    })
}

const NIBBLES: [u16; 16] = {
    let mut table = [0; 16];
    let (mut index, mut nibble) = (0, 0_u16);
    while index < 16 {
        let mut crc = nibble << 12;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
        nibble += 1;
    }
    table
};

/// Hash tags, one for each of `count` equal pieces of the slots: the same in every process.
pub(super) fn spread(count: usize) -> Vec<String> {
    let mut tags = vec![None; count];
    let mut missing = count;
    for number in 0_u32.. {
        if missing == 0 {
            break;
        }
        let tag = number.to_string();
        let piece = usize::from(slot(tag.as_bytes())) * count / usize::from(SLOTS);
        if tags[piece].is_none() {
            tags[piece] = Some(tag);
            missing -= 1;
        }
    }
    tags.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"user1000"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS, "an empty tag is none");
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
    }

    #[test]
    fn tags_cover_the_slots_evenly() {
        let tags = spread(64);
        assert_eq!(tags.len(), 64);
        for (piece, tag) in tags.iter().enumerate() {
            assert_eq!(usize::from(slot(tag.as_bytes())) / 256, piece);
        }
    }
}
