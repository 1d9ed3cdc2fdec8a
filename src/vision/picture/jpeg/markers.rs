//! Markers of a JPEG file and the segments behind them (ITU-T T.81, annex B).

/// Marker of the beginning of the picture.
pub(crate) const START: u8 = 0xd8;
/// Marker of the end of the picture.
pub(crate) const END: u8 = 0xd9;
/// Marker of a scan, whose data follows its segment.
pub(crate) const SCAN: u8 = 0xda;
/// Marker of Huffman tables.
pub(crate) const HUFFMAN_TABLES: u8 = 0xc4;
/// Marker of the number of lines, which may follow the first scan.
const LINES: u8 = 0xdc;
/// Marker of EXIF data.
const EXIF: u8 = 0xe1;

/// The bytes after the marker that every JPEG begins with; `None` if it is missing.
pub(crate) fn after_start(bytes: &[u8]) -> Option<&[u8]> {
    bytes.strip_prefix(&[0xff, START])
}

/// Number of bytes before the next marker. In the data of a scan, 0xff also begins stuffed
/// zeros; repeated, it fills up to a marker.
pub(super) fn before_marker(bytes: &[u8]) -> usize {
    let found = bytes.windows(2).position(|pair| pair[0] == 0xff && pair[1] != 0);
    found.unwrap_or(bytes.len())
}

/// The next marker, and the bytes after it. Other bytes before it are skipped, as libjpeg
/// does with a warning.
pub(crate) fn marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut rest = bytes.get(before_marker(bytes)..)?;
    loop {
        match rest {
            [0xff, 0xff, ..] => rest = &rest[1..],
            // Fill bytes before a stuffed zero are no marker.
            [0xff, 0, after @ ..] => rest = after.get(before_marker(after)..)?,
            [0xff, marker, after @ ..] => return Some((*marker, after)),
            _ => return None,
        }
    }
}

/// Whether the marker has no segment: restarts, `START` and the reserved 0x01.
pub(crate) fn is_bare(marker: u8) -> bool {
    matches!(marker, 0x01 | 0xd0..=START)
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

/// What the segments of a JPEG say, without decoding it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline<'a> {
    /// Marker of the first frame header, which is that of its coding process, and bits per
    /// sample.
    pub(crate) process: Option<(u8, u8)>,
    /// Columns and rows. A number of lines after the first scan counts more than that of
    /// the frame header.
    pub(crate) size: Option<(usize, usize)>,
    /// Whether it contains Huffman tables.
    pub(crate) tables: bool,
    /// Whether it has its end marker.
    pub(crate) end: bool,
    /// Segments of EXIF data, without their name.
    pub(crate) exif: Vec<&'a [u8]>,
}

impl<'a> Outline<'a> {
    /// Reads the segments up to the end marker or the end of the data, the data of scans
    /// skipped; `None` if it is not a JPEG. A thumbnail inside a segment has markers of its
    /// own, which do not count.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = after_start(bytes)?;
        let mut outline = Self::default();
        while let Some((marker, after)) = marker(rest) {
            rest = after;
            if is_bare(marker) {
                continue;
            }
            if marker == END {
                outline.end = true;
                break;
            }
            let Some((content, after)) = segment(after) else { break };
            match marker {
                HUFFMAN_TABLES => outline.tables = true,
                // Frame headers (SOF) of every coding process, that of JPEG-LS too.
                0xc0..=0xcf | 0xf7 if !matches!(marker, 0xc8 | 0xcc) => {
                    outline.frame(marker, content);
                }
                LINES => outline.lines(content),
                EXIF if content.starts_with(b"Exif\0") => outline.exif.extend(content.get(6..)),
                _ => {}
            }
            rest = after;
        }
        Some(outline)
    }

    fn frame(&mut self, marker: u8, content: &[u8]) {
        if let (None, [bits, ..], Some(rows), Some(columns)) =
            (self.process, content, word(content, 1), word(content, 3))
        {
            self.process = Some((marker, *bits));
            self.size = Some((usize::from(columns), usize::from(rows)));
        }
    }

    fn lines(&mut self, content: &[u8]) {
        if let (Some((_, rows)), Some(lines)) = (&mut self.size, word(content, 0))
            && (*rows == 0 || usize::from(lines) < *rows)
            && lines > 0
        {
            *rows = usize::from(lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [u8; 13] = [0xff, 0xc0, 0, 11, 8, 0, 30, 0, 40, 1, 1, 0x11, 0];

    fn outline(parts: &[&[u8]]) -> Outline<'static> {
        let bytes: &'static [u8] = Vec::leak([&[0xff, 0xd8], &parts.concat()[..]].concat());
        Outline::read(bytes).expect("a JPEG")
    }

    #[test]
    fn segments_are_found_over_data_and_bytes_that_belong_to_none() {
        let scan = [0xff, SCAN, 0, 2, 1, 2, 0xff, 0, 0xff, 0xd0, 3];
        let whole = outline(&[&[0xff, 0xd8, 7, 7], &HEADER, &[9; 5], &scan, &[0xff, 0xff, END]]);
        assert_eq!((whole.size, whole.process), (Some((40, 30)), Some((0xc0, 8))));
        assert!(whole.end && !whole.tables);
        // The end marker of a thumbnail does not count.
        let thumbnail = [0xff, EXIF, 0, 10, b'E', b'x', b'i', b'f', 0, 0, 0xff, END];
        let cut = outline(&[&thumbnail, &HEADER, &scan]);
        assert_eq!((cut.end, cut.exif), (false, vec![&[0xff, END][..]]));
        assert_eq!(Outline::read(b"YUYV"), None);
    }

    #[test]
    fn the_number_of_lines_may_follow_the_scan() {
        let scan = [0xff, SCAN, 0, 2, 1, 0xff, LINES, 0, 4, 0, 20, 0xff, END];
        assert_eq!(outline(&[&HEADER, &scan]).size, Some((40, 20)));
        let mut unknown = HEADER;
        unknown[6] = 0;
        assert_eq!(outline(&[&unknown, &scan]).size, Some((40, 20)));
    }
}
