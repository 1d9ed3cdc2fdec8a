//! EDGE: a camera that plays image files.

use super::{CameraError, Captured, FrameLimit};
use crate::hardware::uri;
use crate::vision::frame::Frame;
use crate::vision::picture;
use image::ImageReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options allowed after the last `?`.
const OPTIONS: [&str; 2] = ["fps", "loop"];
/// Frames per second unless the URI sets `fps=`.
const FRAMES_A_SECOND: f64 = 10.0;

/// Image files in the order of their names.
#[derive(Debug)]
pub struct Images {
    files: Vec<PathBuf>,
    next: usize,
    period: Duration,
    repeat: bool,
    limit: FrameLimit,
    /// Images read in this round. With `loop`, a round without a readable image is the
    /// end.
    read: usize,
}

impl Images {
    pub(super) fn open(uri: &str, rest: &str, limit: FrameLimit) -> Result<Self, CameraError> {
        let wrong = |fault: String| CameraError::Option { uri: uri.to_owned(), fault };
        let Wish { path, period, repeat } = parse(rest).map_err(wrong)?;
        let files = files(Path::new(path))?;
        Ok(Self { files, next: 0, period, repeat, limit, read: 0 })
    }

    /// Reads a picture. One with too many pixels is refused before it is decoded, as far as
    /// its header tells its size.
    fn picture(&self, path: &Path) -> Result<Frame, String> {
        let size = ImageReader::open(path).ok().and_then(|reader| {
            reader.with_guessed_format().ok().and_then(|reader| reader.into_dimensions().ok())
        });
        if let Some((width, height)) = size {
            self.limit.check(width as usize, height as usize)?;
        }
        let frame = picture::read(path).map_err(|error| fault(path, &error))?;
        self.limit.check(frame.width(), frame.height())?;
        Ok(frame)
    }
}

/// The parsed part after `images:` in a URI.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'r> {
    /// Folder, file or pattern.
    path: &'r str,
    period: Duration,
    repeat: bool,
}

/// Parses path and options; an error names the fault and the expected form.
pub(super) fn parse(rest: &str) -> Result<Wish<'_>, String> {
    let (path, options) = split_options(rest);
    if path.trim().is_empty() {
        return Err("names no pictures; write images:DIR or images:DIR/*.png".to_owned());
    }
    let period = Duration::from_secs_f64(1.0 / FRAMES_A_SECOND);
    let mut wish = Wish { path, period, repeat: false };
    for option in uri::options(options, &OPTIONS)? {
        if option.key == "fps" {
            let fps = option.number(0.01..=1000.0, "0.01 to 1000")?;
            wish.period = Duration::from_secs_f64(1.0 / fps);
        } else if option.value.is_empty() {
            wish.repeat = true;
        } else {
            return Err(option.expected("loop alone"));
        }
    }
    Ok(wish)
}

impl Iterator for Images {
    type Item = Result<Captured, CameraError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > 0 && self.next.is_multiple_of(self.files.len()) {
            if !self.repeat || self.read == 0 {
                return None;
            }
            self.read = 0;
        }
        let path = self.files[self.next % self.files.len()].clone();
        // u32 counts 13 years of frames at 10 frames per second.
        let at = self.period * self.next.min(u32::MAX as usize) as u32;
        self.next += 1;
        Some(match self.picture(&path) {
            Ok(frame) => {
                self.read += 1;
                Ok(Captured { frame, at })
            }
            Err(fault) => Err(CameraError::Images { path, fault }),
        })
    }
}

/// Splits a path from the options after its last `?`. A `?` may also belong to a pattern:
/// the text after it counts as options only if it has no `.`, `/` or `*`, or if it has a
/// `=`.
fn split_options(rest: &str) -> (&str, &str) {
    match rest.rsplit_once('?') {
        Some((path, options)) if !options.contains(['.', '/', '*']) || options.contains('=') => {
            (path, options)
        }
        _ => (rest, ""),
    }
}

/// The error message without its leading path, which the caller's error already names.
fn fault(path: &Path, error: &picture::PictureError) -> String {
    let message = error.to_string();
    let known = format!("{}: ", path.display());
    message.strip_prefix(&known).unwrap_or(&message).to_owned()
}

/// The image files of a folder, or those whose names match a pattern with `*` and `?` in
/// the last path component. Sorted by name; an error if there is none.
fn files(path: &Path) -> Result<Vec<PathBuf>, CameraError> {
    let error = |path: &Path, fault: String| CameraError::Images { path: path.to_owned(), fault };
    let pattern = path
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|name| name.contains(['*', '?']) && !path.exists());
    if pattern.is_none() && path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let folder = match (pattern, path.parent()) {
        (Some(_), Some(parent)) if parent.as_os_str().is_empty() => Path::new("."),
        (Some(_), Some(parent)) => parent,
        _ => path,
    };
    let entries = std::fs::read_dir(folder).map_err(|reason| error(folder, reason.to_string()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.is_file() && picture::looks_like_a_picture(file))
        .filter(|file| match (pattern, file.file_name().and_then(|name| name.to_str())) {
            (None, _) => true,
            (Some(pattern), Some(name)) => matches(pattern, name),
            (Some(_), None) => false,
        })
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(error(path, "no .jpg, .jpeg or .png file found".to_owned()));
    }
    Ok(files)
}

/// Whether a name matches a pattern of `*` (anything) and `?` (one character).
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // After a mismatch: the last star, and where in the name its match began.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut retry {
                Some((star, from)) => {
                    *from += 1;
                    (p, n) = (*star + 1, *from);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn folder() -> TempDir {
        let folder = TempDir::new().expect("a folder");
        for (name, grey) in [("b.png", 20), ("a.png", 10), ("note.txt", 0)] {
            let png = picture::encode_png(&Frame::filled(4, 4, [grey; 3])).expect("a picture");
            std::fs::write(folder.path().join(name), png).expect("written");
        }
        std::fs::write(folder.path().join("c.jpg"), "no picture").expect("written");
        folder
    }

    fn open(folder: &TempDir, rest: &str) -> Result<Images, CameraError> {
        let path = format!("{}{rest}", folder.path().display());
        Images::open("images:...", &path, FrameLimit::default())
    }

    #[test]
    fn pictures_come_in_order_with_their_times_and_bad_ones_cost_only_themselves() {
        let folder = folder();
        let mut images = open(&folder, "?fps=4").expect("a camera");
        let first = images.next().expect("a frame").expect("a picture");
        assert_eq!((first.frame.pixel(0, 0), first.at), ([10; 3], Duration::ZERO));
        let second = images.next().expect("a frame").expect("a picture");
        assert_eq!((second.frame.pixel(0, 0), second.at), ([20; 3], Duration::from_millis(250)));
        let third = images.next().expect("an error").expect_err("no picture");
        assert!(third.to_string().contains("c.jpg"), "{third}");
        assert!(images.next().is_none());
    }

    #[test]
    fn a_loop_ends_only_if_no_picture_can_be_read() {
        let folder = folder();
        let mut images = open(&folder, "/?.png?loop").expect("a camera");
        let greys: Vec<u8> = (0..5)
            .map(|_| images.next().expect("a frame").expect("a picture").frame.pixel(0, 0)[0])
            .collect();
        assert_eq!(greys, [10, 20, 10, 20, 10]);
        let mut bad = open(&folder, "/*.jpg?loop").expect("a camera");
        assert!(bad.next().expect("an error").is_err());
        assert!(bad.next().is_none());
    }

    #[test]
    fn faults_are_named() {
        let folder = folder();
        for (rest, expected) in [
            ("?fps=0", "fps=0"),
            ("?colour=red", "colour=red"),
            ("/x*.png", "no .jpg"),
            ("/missing", "missing"),
        ] {
            let message = open(&folder, rest).expect_err(rest).to_string();
            assert!(message.contains(expected), "{message}");
        }
        std::fs::remove_file(folder.path().join("c.jpg")).expect("removed");
        std::fs::remove_file(folder.path().join("a.png")).expect("removed");
        std::fs::remove_file(folder.path().join("b.png")).expect("removed");
        assert!(open(&folder, "").expect_err("text only").to_string().contains("no .jpg"));
    }

    #[test]
    fn a_picture_with_too_many_pixels_costs_only_itself() {
        let folder = folder();
        let large = picture::encode_png(&Frame::filled(40, 30, [9; 3])).expect("a picture");
        std::fs::write(folder.path().join("a.png"), large).expect("written");
        let rest = format!("{}/*.png", folder.path().display());
        let limit = FrameLimit::megapixels(0.001);
        let mut images = Images::open("images:...", &rest, limit).expect("a camera");
        let message = images.next().expect("an error").expect_err("too large").to_string();
        assert!(message.contains("a.png: frames of 40x30 pixels"), "{message}");
        assert!(images.next().expect("a frame").is_ok());
    }

    #[test]
    fn no_pictures_and_wrong_options_are_refused_without_looking() {
        for (rest, expected) in [
            ("", "names no pictures"),
            (" ", "names no pictures"),
            ("?fps=5", "names no pictures"),
            ("?loop", "names no pictures"),
            ("x?fps=0", "fps=0"),
        ] {
            let message = parse(rest).expect_err(rest);
            assert!(message.contains(expected), "{rest}: {message}");
        }
    }

    #[test]
    fn the_example_shows_every_option() {
        let (names, shown) = crate::config::tests::options("# Options of images:");
        assert_eq!(names, OPTIONS);
        let images = open(&folder(), &format!("?{shown}")).expect("a camera");
        assert!(images.repeat);
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.png", "a.png", true),
            ("*.png", "a.jpg", false),
            ("frame-?.png", "frame-1.png", true),
            ("frame-?.png", "frame-12.png", false),
            ("*a*b*", "xaxxbx", true),
            ("*a*b", "ab", true),
            ("*a*b", "abc", false),
            ("**", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
