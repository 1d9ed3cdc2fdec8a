//! YUV4MPEG2: a text header, then frames of planar YCbCr, each after a line that begins
//! with `FRAME`. The format comes from mjpegtools; ffmpeg, GStreamer and others write it.

use super::FrameLimit;
use super::yuv::{self, Chroma, Colours, LARGEST_SIDE};
use crate::vision::frame::Frame;
use std::io::{BufRead, Read};
use thiserror::Error;

/// Longest header or `FRAME` line, bytes; a longer one is an error.
const LONGEST_LINE: u64 = 1024;

/// Errors of reading a YUV4MPEG2 stream.
#[derive(Debug, Error)]
pub enum Y4mError {
    /// The first line is not a valid header.
    #[error(
        "not a YUV4MPEG2 stream ({0}); make the program write one, as ffmpeg does with -f yuv4mpegpipe -pix_fmt yuv420p -"
    )]
    Header(String),
    /// The frames are interlaced.
    #[error(
        "a YUV4MPEG2 stream of interlaced frames ({0}), whose lines are of two moments; put a \
         deinterlacer into the program, as ffmpeg does with -vf yadif"
    )]
    Interlaced(String),
    /// The colour space is not read.
    #[error(
        "a YUV4MPEG2 stream in a colour space that is not read ({0}); convert it, as ffmpeg does \
         with -pix_fmt yuv420p"
    )]
    Colours(String),
    /// The frames are larger than the camera's may be.
    #[error("a YUV4MPEG2 stream: {0}, as ffmpeg does with -vf scale=1280:-2")]
    Large(String),
    /// A frame does not begin with a `FRAME` line.
    #[error(
        "expected FRAME after {after}, found {found:?}; the header's {width}x{height} or colour \
         space does not match what the program writes"
    )]
    Frame {
        /// The part read before: the header, or a frame by its number.
        after: String,
        /// The text found instead.
        found: String,
        /// Columns according to the header.
        width: usize,
        /// Rows according to the header.
        height: usize,
    },
    /// The stream ends within a frame.
    #[error("cut short within a frame: {got} of {expected} bytes")]
    Cut {
        /// Bytes read of the frame.
        got: usize,
        /// Bytes of a whole frame.
        expected: usize,
    },
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A stream of frames, read from `R`.
#[derive(Debug)]
pub struct Y4m<R> {
    reader: R,
    width: usize,
    height: usize,
    chroma: Chroma,
    full_range: bool,
    /// Frames read so far.
    frames: usize,
    planes: Vec<u8>,
}

impl<R: BufRead> Y4m<R> {
    /// [`Self::within`] with the default limit.
    pub fn new(reader: R) -> Result<Self, Y4mError> {
        Self::within(reader, FrameLimit::default())
    }

    /// Reads the header. An error if it is not a YUV4MPEG2 header, is interlaced, has an
    /// unknown colour space, a side outside 1 to [`LARGEST_SIDE`], or larger frames than
    /// `limit`.
    pub fn within(mut reader: R, limit: FrameLimit) -> Result<Self, Y4mError> {
        let bytes = line(&mut reader)?;
        let line = match bytes.split_last() {
            None => return Err(Y4mError::Header("it is empty".to_owned())),
            Some((b'\n', line)) => std::str::from_utf8(line)
                .map_err(|_| Y4mError::Header(format!("not text: {:?}", shown(&bytes))))?,
            Some(_) => {
                return Err(Y4mError::Header(format!("no line end after {:?}", shown(&bytes))));
            }
        };
        let broken = |fault: &str| Y4mError::Header(format!("{fault} in {line:?}"));
        let mut words = line.split(' ');
        if words.next() != Some("YUV4MPEG2") {
            return Err(broken("no signature"));
        }
        let (mut width, mut height) = (0, 0);
        let mut chroma = Chroma::Every { columns: 2, rows: 2 };
        let mut full_range = false;
        for word in words.filter(|word| !word.is_empty()) {
            let (key, value) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
            match key {
                "W" => width = value.parse().map_err(|_| broken("a bad width"))?,
                "H" => height = value.parse().map_err(|_| broken("a bad height"))?,
                "C" => {
                    chroma = chroma_of(value).ok_or_else(|| Y4mError::Colours(word.to_owned()))?
                }
                "I" if !matches!(value, "p" | "?") => {
                    return Err(Y4mError::Interlaced(word.to_owned()));
                }
                "X" if value == "COLORRANGE=FULL" => full_range = true,
                // Frame rate, aspect ratio and comments are not needed.
                _ => {}
            }
        }
        if !(1..=LARGEST_SIDE).contains(&width) || !(1..=LARGEST_SIDE).contains(&height) {
            return Err(broken(&format!("a size outside 1 to {LARGEST_SIDE}")));
        }
        limit.check(width, height).map_err(Y4mError::Large)?;
        Ok(Self { reader, width, height, chroma, full_range, frames: 0, planes: Vec::new() })
    }

    /// Columns and rows of every frame.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The next frame as RGB; `None` if the stream ends between two frames.
    pub fn read_frame(&mut self) -> Result<Option<Frame>, Y4mError> {
        let line = line(&mut self.reader)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line != b"FRAME\n" && !(line.starts_with(b"FRAME ") && line.ends_with(b"\n")) {
            let after = match self.frames {
                0 => "the header".to_owned(),
                read => format!("frame {read}"),
            };
            let (width, height) = self.size();
            return Err(Y4mError::Frame { after, found: shown(&line), width, height });
        }
        let expected = yuv::planar_bytes(self.width, self.height, self.chroma);
        self.planes.clear();
        // The buffer grows with the data that arrives, not with the size in the header.
        let got = (&mut self.reader).take(expected as u64).read_to_end(&mut self.planes)?;
        if got < expected {
            return Err(Y4mError::Cut { got, expected });
        }
        self.frames += 1;
        let colours = Colours { full_range: self.full_range, ..Colours::default() };
        let frame = yuv::planar(&self.planes, self.width, self.height, self.chroma, colours);
        // Cannot fail: the data is complete and the size was checked.
        Ok(frame.ok())
    }
}

fn chroma_of(name: &str) -> Option<Chroma> {
    match name {
        "mono" => Some(Chroma::Grey),
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Some(Chroma::Every { columns: 2, rows: 2 }),
        "422" => Some(Chroma::Every { columns: 2, rows: 1 }),
        "444" => Some(Chroma::Every { columns: 1, rows: 1 }),
        _ => None,
    }
}

/// The next line with its line end, if it has one; empty at the end of the stream.
fn line(reader: &mut impl BufRead) -> Result<Vec<u8>, Y4mError> {
    let mut bytes = Vec::new();
    reader.take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    Ok(bytes)
}

/// The first 60 bytes as text, for messages.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn video(header: &str, frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("YUV4MPEG2 {header}\n").into_bytes();
        for frame in frames {
            bytes.extend(b"FRAME\n");
            bytes.extend(*frame);
        }
        bytes
    }

    fn first_pixel(header: &str, planes: &[u8]) -> [u8; 3] {
        let bytes = video(header, &[planes]);
        let mut video = Y4m::new(&bytes[..]).expect("a video");
        video.read_frame().expect("a stream").expect("a frame").pixel(0, 0)
    }

    #[test]
    fn colours_are_those_of_bt_601() {
        // Red, green and blue of the standard's colour bars at full strength.
        for (ycc, rgb) in [
            ([16, 128, 128], [0, 0, 0]),
            ([235, 128, 128], [255, 255, 255]),
            ([81, 90, 240], [254, 0, 0]),
            ([145, 54, 34], [0, 255, 1]),
            ([41, 240, 110], [0, 0, 255]),
        ] {
            let got = first_pixel("W1 H1 F10:1 C444", &ycc);
            let near = got.iter().zip(rgb).all(|(a, b)| a.abs_diff(b) <= 1);
            assert!(near, "{ycc:?} gave {got:?}, expected {rgb:?}");
        }
        assert_eq!(first_pixel("W1 H1 Cmono XCOLORRANGE=FULL", &[77]), [77; 3]);
    }

    #[test]
    fn odd_sizes_round_their_colours_up() {
        let header = "W3 H3 F25:1 Ip A1:1 C420jpeg";
        let bytes = video(header, &[&[128; 9 + 2 * 4], &[200; 9 + 2 * 4]]);
        let mut video = Y4m::new(&bytes[..]).expect("a video");
        assert_eq!(video.size(), (3, 3));
        assert!(video.read_frame().expect("a stream").is_some());
        assert!(video.read_frame().expect("a stream").is_some());
        assert!(video.read_frame().expect("a stream").is_none());
    }

    #[test]
    fn false_headers_and_truncation_are_named() {
        for (header, expected) in [
            ("W0 H4", "size"),
            ("W99999 H4", "size"),
            ("H4", "size"),
            ("W-3 H4", "width"),
            ("W4 H4 C411", "colour space"),
            ("W4 H4 It", "-vf yadif"),
            ("W4 H4 Ib", "interlaced frames (Ib)"),
            ("W4 H4 Im", "interlaced frames (Im)"),
            ("W4 H4 C420p10", "-pix_fmt yuv420p"),
            ("W1921 H1200", "1921x1200 pixels"),
        ] {
            let message = Y4m::new(&video(header, &[])[..]).expect_err(header).to_string();
            assert!(message.contains(expected), "{message}");
        }
        let bytes = video("W8000 H8000", &[&[1; 100]]);
        let most = FrameLimit::megapixels(64.0);
        let error =
            Y4m::within(&bytes[..], most).expect("a header").read_frame().expect_err("too short");
        assert!(matches!(error, Y4mError::Cut { got: 100, expected: 96_000_000 }), "{error}");
        let bytes = video("W2 H2", &[&[1; 9]]);
        let mut stream = Y4m::new(&bytes[..]).expect("a header");
        assert!(stream.read_frame().is_ok());
        assert!(stream.read_frame().is_err(), "three bytes too many are no frame");
        // The program writes larger frames than the header says, with arbitrary bytes.
        for (frames, after) in [(1, "after the header"), (2, "after frame 1")] {
            let mut bytes = video("W2 H2", &vec![&[1; 6][..]; frames - 1]);
            bytes.extend([0xff, b'\n', 7]);
            let mut stream = Y4m::new(&bytes[..]).expect("a header");
            let message =
                (0..frames).find_map(|_| stream.read_frame().err()).expect("no frame").to_string();
            assert!(message.contains(&format!("expected FRAME {after}, found")), "{message}");
            assert!(message.contains("2x2 or colour space"), "{message}");
        }
        assert!(Y4m::new(&b"RIFF....AVI"[..]).is_err());
        assert!(Y4m::new(&vec![b'x'; 100_000][..]).is_err());
        assert!(Y4m::new(&b""[..]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(mut video) = Y4m::new(&bytes[..]) {
                while let Ok(Some(_)) = video.read_frame() {}
            }
        }

        #[test]
        fn no_header_makes_it_panic(
            words in prop::collection::vec("[WHCIFAX][0-9a-z:=-]{0,8}", 0..6),
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = video(&words.join(" "), &[&body, &body]);
            if let Ok(mut video) = Y4m::new(&bytes[..]) {
                while let Ok(Some(frame)) = video.read_frame() {
                    prop_assert_eq!((frame.width(), frame.height()), video.size());
                }
            }
        }
    }
}
