//! Markers of a JPEG file and the segments behind them (ITU-T T.81, annex B).

/// Marker of the end of the picture.
pub(crate) const END: u8 = 0xd9;
/// Marker of a scan, whose data follows its segment.
pub(crate) const SCAN: u8 = 0xda;
/// Marker of Huffman tables.
pub(crate) const HUFFMAN_TABLES: u8 = 0xc4;

/// The bytes after the marker that every JPEG begins with; `None` if it is missing.
pub(crate) fn after_start(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(&[0xff, 0xd8])
}

/// The marker at the beginning of `bytes`, and the bytes after it.
pub(crate) fn marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let fill = bytes.iter().position(|byte| *byte != 0xff)?;
    (fill > 0).then(|| (bytes[fill], &bytes[fill + 1..]))
}

/// The segment at the beginning of `bytes` without its length, and the bytes after it.
pub(crate) fn segment(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(word(bytes, 0)?);
    Some((bytes.get(2..length)?, bytes.get(length..)?))
}

/// The number in two bytes from `at` on.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// Whether the JPEG has its end marker. Segments are skipped, since a thumbnail inside one
/// has an end marker of its own.
pub(crate) fn has_end(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..);
    while let Some(data) = rest {
        // In the data of a scan, 0xff also begins stuffed zeros and restarts.
        let found = data.windows(2).position(|pair| {
            pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0x01 | 0xd0..=0xd7)
        });
        let Some(at) = found else { return false };
        if data[at + 1] == END {
            return true;
        }
        let after = &data[at + 2..];
        rest = word(after, 0).and_then(|length| after.get(usize::from(length)..));
    }
    false
}
