//! Hides secrets in a camera's URI before it appears in logs, replies and errors, which
//! more people read than may know them.
//!
//! A secret may stand anywhere in the command of a `pipe:`: in a URL, a header, an
//! environment variable, or alone behind an option. No list of places is complete. So it is
//! the other way round: only what is known to be harmless is shown, which is the name of
//! each program, options and values that [`KNOWN`] lists, devices, and scheme and host of a
//! URL. Everything else becomes `***`.

mod words;

use words::{Word, words};

/// Placeholder for what is hidden.
pub(super) const HIDDEN: &str = "***";
/// Kinds of cameras whose URI is a path or a name, and has no secrets.
const OPEN: [&str; 3] = ["v4l", "images", "nokhwa"];
/// Programs after which the next word is a program.
const WRAPPERS: [&str; 4] = ["exec", "env", "nohup", "setsid"];
/// Redirections without a file of one's own.
const REDIRECTIONS: [&str; 5] = ["2>&1", "2>/dev/null", ">/dev/null", "</dev/null", "&>/dev/null"];

/// Options of a program that are shown.
struct Known {
    programs: &'static [&'static str],
    /// Options and words without a value.
    alone: &'static [&'static str],
    /// Options whose value, the next word, is a number, a size, or one of [`VALUES`].
    valued: &'static [&'static str],
}

const KNOWN: [Known; 3] = [
    Known {
        programs: &["ffmpeg"],
        alone: &["-nostdin", "-hide_banner", "-nostats", "-an", "-re", "-y"],
        valued: &[
            "-f",
            "-pix_fmt",
            "-c:v",
            "-vcodec",
            "-codec:v",
            "-input_format",
            "-r",
            "-framerate",
            "-s",
            "-video_size",
            "-rtsp_transport",
            "-loglevel",
            "-v",
            "-fflags",
            "-flags",
            "-threads",
            "-vf",
            "-timeout",
            "-stimeout",
            "-probesize",
            "-analyzeduration",
            "-i",
        ],
    },
    Known {
        programs: &["rpicam-vid", "libcamera-vid"],
        alone: &["-n", "--nopreview", "--inline", "--hflip", "--vflip", "--flush"],
        valued: &[
            "-t",
            "--timeout",
            "--width",
            "--height",
            "--framerate",
            "--codec",
            "-o",
            "--output",
            "--camera",
            "--rotation",
        ],
    },
    Known {
        programs: &["gst-launch-1.0"],
        alone: &[
            "-q",
            "!",
            "v4l2src",
            "rtspsrc",
            "decodebin",
            "videoconvert",
            "videoscale",
            "videorate",
            "y4menc",
            "fdsink",
            "rtph264depay",
            "avdec_h264",
            "jpegdec",
        ],
        valued: &[],
    },
];

/// Values that are shown behind an option of [`KNOWN`].
const VALUES: [&str; 36] = [
    "yuv4mpegpipe",
    "rawvideo",
    "v4l2",
    "mjpeg",
    "h264",
    "hevc",
    "copy",
    "rtsp",
    "image2",
    "image2pipe",
    "lavfi",
    "concat",
    "mpegts",
    "wrapped_avframe",
    "yuv420",
    "yuv420p",
    "yuvj420p",
    "yuyv422",
    "nv12",
    "rgb24",
    "gray",
    "tcp",
    "udp",
    "http",
    "quiet",
    "panic",
    "fatal",
    "error",
    "warning",
    "info",
    "nobuffer",
    "low_delay",
    "discardcorrupt",
    "yadif",
    "bwdif",
    "-",
];

/// A URI, or another value of a setting, without secrets. URIs of cameras that are no
/// programs are shown as they are.
pub fn redacted(text: &str) -> String {
    match text.split_once(':') {
        Some((scheme, _)) if OPEN.contains(&scheme) => text.to_owned(),
        Some((scheme, rest)) if is_scheme(scheme) && !rest.starts_with("//") => {
            format!("{scheme}:{}", command(rest))
        }
        _ => command(text),
    }
}

/// A command without secrets, in one line.
pub(super) fn command(text: &str) -> String {
    judged(text).into_iter().map(|(shown, _)| shown).collect::<Vec<_>>().join(" ")
}

/// The words of a command as they are shown, and those that are hidden as they are meant.
/// Hidden words in a row are shown as one.
fn judged(text: &str) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let mut known: Option<&Known> = None;
    // Whether the next word is a program, and whether it is the value of a known option.
    let (mut program, mut value) = (true, false);
    for word in words(text) {
        let (mut shown, mut hidden) = (None, Vec::new());
        match word {
            Word::Operator(operator) => {
                (program, value, known) = (true, false, None);
                shown = Some(operator.to_owned());
            }
            Word::Text { meant, plain } => {
                let valued = std::mem::take(&mut value);
                if let Some((name, secret)) = program.then(|| assignment(&meant)).flatten() {
                    shown = Some(format!("{name}={HIDDEN}"));
                    hidden.push(secret.to_owned());
                } else if REDIRECTIONS.contains(&meant.as_str()) {
                    shown = Some(meant.clone());
                } else if program {
                    let name = Some(&meant).filter(|name| plain && is_program(name));
                    program = name.is_some_and(|name| WRAPPERS.contains(&name.as_str()));
                    known = name.and_then(|name| known_options(name));
                    shown = name.cloned().or_else(|| url(&meant));
                } else if let Some(known) = known.filter(|_| plain) {
                    value = known.valued.contains(&meant.as_str());
                    let harmless = value
                        || known.alone.contains(&meant.as_str())
                        || (valued && is_value(&meant));
                    shown = Some(meant.clone()).filter(|_| harmless);
                }
                let device = || Some(meant.clone()).filter(|word| word == "-" || is_device(word));
                shown = shown.or_else(|| device().filter(|_| plain)).or_else(|| url(&meant));
                if shown.as_ref() != Some(&meant) && hidden.is_empty() {
                    hidden.push(meant);
                }
            }
        }
        match (shown, all.last_mut()) {
            (None, Some((last, more))) if last == HIDDEN => more.append(&mut hidden),
            (shown, _) => all.push((shown.unwrap_or_else(|| HIDDEN.to_owned()), hidden)),
        }
    }
    all
}

fn known_options(program: &str) -> Option<&'static Known> {
    let name = program.rsplit('/').next().unwrap_or(program);
    KNOWN.iter().find(|known| known.programs.contains(&name))
}

fn is_scheme(text: &str) -> bool {
    (1..=12).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '+')
}

/// Name and value of a word that sets an environment variable.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (letters && !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()))
        .then_some((name, value))
}

fn is_program(word: &str) -> bool {
    (1..=100).contains(&word.len())
        && !word.starts_with('-')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "_./+-".contains(c))
}

fn is_device(word: &str) -> bool {
    word.strip_prefix("/dev/").is_some_and(|rest| {
        rest.len() <= 100 && rest.chars().all(|c| c.is_ascii_alphanumeric() || "_./:-".contains(c))
    })
}

/// A number, a size, a filter with numbers, or one of [`VALUES`].
fn is_value(word: &str) -> bool {
    let numbers = |text: &str, and: &str| {
        (1..=16).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_digit() || c == '.' || and.contains(c))
    };
    let filter = || ["scale=", "fps="].iter().find_map(|name| word.strip_prefix(name));
    VALUES.contains(&word)
        || numbers(word, "")
        || word.split_once('x').is_some_and(|(a, b)| numbers(a, "") && numbers(b, ""))
        || filter().is_some_and(|value| numbers(value, ":-"))
}

/// Scheme and host of a URL; user, password, path and query are hidden. `None` if the word
/// is no URL.
fn url(word: &str) -> Option<String> {
    let (scheme, rest) = word.split_once("://")?;
    if !is_scheme(scheme) {
        return None;
    }
    let all_hidden = Some(format!("{scheme}://{HIDDEN}"));
    let (user, rest) = match rest.matches('@').count() {
        0 => ("", rest),
        1 => match rest.split_once('@') {
            // A password may contain these without being encoded.
            Some((user, rest)) if !user.contains(['/', '?', '#']) => (user, rest),
            _ => return all_hidden,
        },
        _ => return all_hidden,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if !is_host(host) {
        return all_hidden;
    }
    let user = if user.is_empty() { String::new() } else { format!("{HIDDEN}@") };
    let path = match path {
        "" | "/" => path.to_owned(),
        _ => format!("/{HIDDEN}"),
    };
    Some(format!("{scheme}://{user}{host}{path}"))
}

/// A host name or address, with or without a port.
fn is_host(text: &str) -> bool {
    let address = |text: &str, and: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || and.contains(c))
    };
    let port = |text: &str| {
        text.is_empty()
            || text.strip_prefix(':').is_some_and(|port| {
                (1..=5).contains(&port.len()) && port.chars().all(|c| c.is_ascii_digit())
            })
    };
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return address(host, ":.") && port(rest);
    }
    let end = text.find(':').unwrap_or(text.len());
    address(&text[..end], ".-") && port(&text[end..])
}

/// Shortest part of a hidden word that is looked for in what a program says. Characters.
const SHORTEST: usize = 3;

/// Length from which such a part is hidden inside other words, too. Characters.
const LONG: usize = 6;

/// The hidden words of a command and their parts, to be hidden in what the program says.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// The secrets of a command.
    pub fn of(command: &str) -> Self {
        let judged = judged(command);
        let shown: Vec<&str> = judged.iter().map(|(shown, _)| shown.as_str()).collect();
        let harmless = |part: &str| {
            shown.iter().any(|shown| shown.split(|c: char| !c.is_alphanumeric()).any(|s| s == part))
        };
        let mut parts: Vec<String> = Vec::new();
        for word in judged.iter().flat_map(|(_, hidden)| hidden) {
            let pieces = word.split(|c: char| c.is_whitespace() || "=&?/:@;,'\"#|<>()".contains(c));
            parts.extend(pieces.filter(|part| !harmless(part)).map(str::to_owned));
            parts.push(word.clone());
        }
        parts.retain(|part| part.chars().count() >= SHORTEST);
        // A longer one may contain a shorter one.
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        parts.dedup();
        Self(parts)
    }

    /// A line of the program without its secrets.
    pub fn hide(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for part in &self.0 {
            line = without(&line, part);
        }
        let words = line.split(' ').map(|word| {
            let open = word.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
            let (before, rest) = word.split_at(open);
            url(rest).map_or_else(|| word.to_owned(), |url| format!("{before}{url}"))
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A text in which a part is hidden. A short part is hidden only where it stands alone.
fn without(text: &str, part: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(part) {
        let (before, found) = rest.split_at(at);
        let after = &found[part.len()..];
        let joined = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
        let previous = before.chars().next_back().or_else(|| out.chars().next_back());
        let inside = joined(previous) || joined(after.chars().next());
        out.push_str(before);
        out.push_str(if inside && part.chars().count() < LONG { part } else { HIDDEN });
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests;
