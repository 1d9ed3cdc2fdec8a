//! What a file is by its first bytes, for messages about files that are not read.

/// What to do about a file of a kind that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing, or only zeros: a copy or a download that failed.
    Lost,
    /// A pointer to content that is kept elsewhere.
    Pointer,
    /// A page or a message in place of the file.
    Page,
    /// Other text.
    Text,
    /// A picture.
    Picture,
    /// A video.
    Video,
    /// A document that may contain pictures.
    Document,
    /// An archive or a compressed file.
    Archive,
    /// A file that a system keeps beside another file.
    Side,
}

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name with an article, such as "a web page".
    pub name: &'static str,
    /// What to do about it.
    pub class: Class,
}

use Class::{Archive, Document, Page, Picture, Pointer, Side, Video};

/// Kinds by the bytes at an offset.
const SIGNATURES: [(usize, &[u8], &str, Class); 56] = [
    (0, b"\xff\xd8", "a JPEG", Picture),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG", Picture),
    (0, b"GIF8", "a GIF", Picture),
    (0, b"BM", "a BMP", Picture),
    (0, b"II*\0", "a TIFF or camera raw file", Picture),
    (0, b"MM\0*", "a TIFF or camera raw file", Picture),
    (0, b"II+\0", "a BigTIFF", Picture),
    (0, b"MM\0+", "a BigTIFF", Picture),
    (0, b"IIU\0", "a camera raw file", Picture),
    (0, b"IIRO", "a camera raw file", Picture),
    (0, b"FUJIFILM", "a camera raw file", Picture),
    (0, b"\0MRM", "a camera raw file", Picture),
    (8, b"WEBP", "a WebP picture", Picture),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 file", Picture),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 codestream", Picture),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file", Picture),
    (0, b"\xff\x0a", "a JPEG XL file", Picture),
    (0, b"II\xbc", "a JPEG XR file", Picture),
    (0, b"8BPS", "a Photoshop file", Picture),
    (0, b"gimp xcf", "a GIMP file", Picture),
    (0, b"\0\0\x01\0", "an icon", Picture),
    (0, b"\x8aMNG", "an MNG", Picture),
    (0, b"\x8bJNG", "a JNG", Picture),
    (0, b"qoif", "a QOI picture", Picture),
    (0, b"DDS ", "a DDS texture", Picture),
    (0, b"v/1\x01", "an OpenEXR picture", Picture),
    (0, b"#?RADIANCE", "a Radiance picture", Picture),
    (0, b"icns", "an icon", Picture),
    (8, b"AVI ", "an AVI video", Video),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video", Video),
    (0, b"FLV", "a Flash video", Video),
    (0, b"\0\0\x01\xba", "an MPEG video", Video),
    (0, b"\0\0\x01\xb3", "an MPEG video", Video),
    (0, b"\x30\x26\xb2\x75", "a Windows Media video", Video),
    (0, b"OggS", "an Ogg file", Video),
    (0, b"YUV4MPEG2", "a y4m video", Video),
    (0, b"\0\0\0\x01\x67", "an H.264 video", Video),
    (0, b"%PDF", "a PDF", Document),
    (0, b"%!PS", "a PostScript document", Document),
    (0, b"\xd0\xcf\x11\xe0", "an Office document", Document),
    (0, b"{\\rtf", "a text document", Document),
    (0, b"PK\x03\x04", "a zip archive", Archive),
    (0, b"PK\x05\x06", "an empty zip archive", Archive),
    (0, b"\x1f\x8b", "a gzip file", Archive),
    (0, b"\xfd7zXZ\0", "an xz file", Archive),
    (0, b"BZh", "a bzip2 file", Archive),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", Archive),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", Archive),
    (0, b"Rar!", "a RAR archive", Archive),
    (257, b"ustar", "a tar archive", Archive),
    (0, b"\0\x05\x16\x07", "the side file in which macOS keeps a file's attributes", Side),
    (0, b"\0\x05\x16\x00", "the side file in which macOS keeps a file's attributes", Side),
    (0, b"version https://git-lfs", "a Git LFS pointer", Pointer),
    (0, b"/annex/objects/", "a git-annex pointer", Pointer),
    (0, b"\x7fELF", "a program", Document),
    (0, b"MZ", "a program", Document),
];

/// What the bytes of a whole file, or at least its first kilobytes, are. `None` if that is
/// not known.
pub fn kind_of(bytes: &[u8]) -> Option<Kind> {
    let kind = |name, class| Some(Kind { name, class });
    if bytes.is_empty() {
        return kind("an empty file", Class::Lost);
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return kind("only zeros", Class::Lost);
    }
    if let Some((box_type, brands)) = boxes(bytes) {
        return by_brand(box_type, brands);
    }
    let found = SIGNATURES.iter().find(|(at, signature, ..)| {
        bytes.get(*at..).is_some_and(|bytes| bytes.starts_with(signature))
    });
    if let Some((_, _, name, class)) = found {
        return kind(name, *class);
    }
    if bytes.len() > 376 && [0, 188, 376].iter().all(|at| bytes[*at] == 0x47) {
        return kind("an MPEG transport stream", Video);
    }
    text(bytes)
}

/// Type and brands of the first box of an ISO base media file (ISO/IEC 14496-12).
fn boxes(bytes: &[u8]) -> Option<([u8; 4], &[u8])> {
    let box_type = *bytes.get(4..8)?.first_chunk::<4>()?;
    let length = u32::from_be_bytes(*bytes.first_chunk::<4>()?) as usize;
    let known = matches!(&box_type, b"ftyp" | b"moov" | b"mdat" | b"wide" | b"free" | b"skip");
    known.then(|| (box_type, bytes.get(8..length.min(256)).unwrap_or_default()))
}

fn by_brand(box_type: [u8; 4], brands: &[u8]) -> Option<Kind> {
    let major = brands.get(..4).unwrap_or_default();
    let any =
        |wanted: &[&[u8; 4]]| brands.as_chunks::<4>().0.iter().any(|brand| wanted.contains(&brand));
    let (name, class) = match &box_type {
        b"ftyp" if major == b"crx " => ("a camera raw file", Picture),
        b"ftyp" if any(&[b"avif", b"avis"]) => ("an AVIF picture", Picture),
        b"ftyp" if any(&[b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"]) => {
            ("a HEIC picture", Picture)
        }
        b"ftyp" if any(&[b"jp2 ", b"jpx "]) => ("a JPEG 2000 file", Picture),
        b"ftyp" if any(&[b"jxl "]) => ("a JPEG XL file", Picture),
        _ => ("an MP4 or QuickTime video", Video),
    };
    Some(Kind { name, class })
}

/// Kinds of text. `None` if the bytes are none.
fn text(bytes: &[u8]) -> Option<Kind> {
    let kind = |name, class| Some(Kind { name, class });
    let start = &bytes[..bytes.len().min(1024)];
    let wide = start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff");
    let start =
        start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(if wide { &start[2..] } else { start });
    let lower: String = start
        .iter()
        .filter(|byte| **byte != 0)
        .map(|byte| byte.to_ascii_lowercase() as char)
        .collect();
    let lower = lower.trim_start();
    if lower.starts_with("<svg") || lower.starts_with("<?xml") && lower.contains("<svg") {
        return kind("an SVG drawing", Picture);
    }
    if lower.starts_with("<!doctype html")
        || lower.starts_with("<html")
        || lower.starts_with('<') && lower.contains("<html")
    {
        return kind("a web page", Page);
    }
    if lower.starts_with("<?xml") {
        return kind("an XML document", Page);
    }
    if lower.starts_with("data:image/")
        || lower.starts_with("/9j/")
        || lower.starts_with("ivborw0kgg")
    {
        return kind("a picture as base64 text", Class::Text);
    }
    let mut header = lower.bytes();
    if (header.next(), header.next().map(|digit| digit.is_ascii_digit()))
        == (Some(b'p'), Some(true))
        && header.next().is_some_and(|byte| byte.is_ascii_whitespace())
    {
        return kind("a PNM picture", Picture);
    }
    let printable = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    let cut = std::str::from_utf8(start).map_or_else(|error| error.valid_up_to() + 4, str::len);
    if wide || (start.iter().all(printable) && cut >= start.len()) {
        let page = lower.starts_with('{') || lower.starts_with('<');
        return kind("text", if page { Page } else { Class::Text });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(bytes: &[u8]) -> &'static str {
        kind_of(bytes).map_or("unknown", |kind| kind.name)
    }

    #[test]
    fn files_are_known_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b""[..], "an empty file"),
            (&[0; 100], "only zeros"),
            (b"\xff\xd8\xff", "a JPEG"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP picture"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "an AVIF picture"),
            (b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 ", "a JPEG 2000 file"),
            (b"\0\0\0\x14ftypisom\0\0\0\0mp42", "an MP4 or QuickTime video"),
            (b"\0\0\0\x08wide\0\0\0\0mdat", "an MP4 or QuickTime video"),
            (b"RIFF\x10\0\0\0AVI LIST", "an AVI video"),
            (b"\n <!DOCTYPE html><html>", "a web page"),
            (b"<!-- x --><HTML lang=en>", "a web page"),
            (b"\xff\xfe<\0h\0t\0m\0l\0>\0", "a web page"),
            (b"<?xml version=\"1.0\"?><Error>", "an XML document"),
            (b"<?xml version=\"1.0\"?>\n<svg>", "an SVG drawing"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
            (b"/9j/4AAQSkZJRg", "a picture as base64 text"),
            (b"P6\n1 1\n255\n\x01\x02\x03", "a PNM picture"),
            ("Größe".as_bytes(), "text"),
            (b"{\"message\": \"Not Found\"}", "text"),
            (&[0x80, 0x02, 0x7d, 0x71], "unknown"),
        ] {
            assert_eq!(name(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = "ä".repeat(2000);
        assert_eq!((name(long.as_bytes()), name(&long.as_bytes()[..1023])), ("text", "text"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = kind_of(&bytes);
        }
    }
}
