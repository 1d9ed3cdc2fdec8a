//! EDGE: a camera that plays image files.

use super::{CameraError, Captured};
use crate::hardware::uri;
use crate::vision::picture;
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
    /// Images read in this round. With `loop`, a round without a readable image is the
    /// end.
    read: usize,
}

impl Images {
    pub(super) fn open(uri: &str, rest: &str) -> Result<Self, CameraError> {
        let (path, options) = split_options(rest);
        let wrong = |fault: String| CameraError::Option { uri: uri.to_owned(), fault };
        let mut images = Self {
            files: Vec::new(),
            next: 0,
            period: Duration::from_secs_f64(1.0 / FRAMES_A_SECOND),
            repeat: false,
            read: 0,
        };
        for option in uri::options(options, &OPTIONS).map_err(wrong)? {
            if option.key == "fps" {
                let fps = option.number(0.01..=1000.0, "0.01 to 1000").map_err(wrong)?;
                images.period = Duration::from_secs_f64(1.0 / fps);
            } else if option.value.is_empty() {
                images.repeat = true;
            } else {
                return Err(wrong(option.expected("loop alone")));
            }
        }
        images.files = files(Path::new(path))?;
        Ok(images)
    }
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
        let path = &self.files[self.next % self.files.len()];
        // u32 counts 13 years of frames at 10 frames per second.
        let at = self.period * self.next.min(u32::MAX as usize) as u32;
        self.next += 1;
        Some(match picture::read(path) {
            Ok(frame) => {
                self.read += 1;
                Ok(Captured { frame, at })
            }
            Err(error) => {
                Err(CameraError::Images { path: path.clone(), fault: fault(path, &error) })
            }
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
    use crate::vision::frame::Frame;
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
        Images::open("images:...", &format!("{}{rest}", folder.path().display()))
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
