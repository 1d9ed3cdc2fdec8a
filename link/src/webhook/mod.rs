//! Events to a webhook: one POST each, signed.
//!
//! ```text
//! POST /door HTTP/1.1
//! Content-Type: application/json
//! Facelatch-Event: 7f3a000000000000-42
//! Facelatch-Timestamp: 1764500000
//! Facelatch-Signature: v1=5f0c...
//!
//! {"event_type":"admitted",...}
//! ```
//!
//! The signature is HMAC-SHA256 in hexadecimal, with the shared secret as key, over the
//! timestamp, a dot and the body. A receiver that refuses timestamps which are minutes old
//! cannot be sent an old request again. The number of the event tells a repetition: one
//! whose answer was lost is sent once more.

mod http;

pub use http::{Target, post};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use zeroize::Zeroizing;

/// Shortest and longest secret, characters.
const SECRET: std::ops::RangeInclusive<usize> = 16..=1024;

/// One event to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Number of the door and of the event.
    pub event: String,
    /// The event, as JSON.
    pub body: Vec<u8>,
}

/// What became of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Taken,
    /// The receiver understood and will never take this one.
    Refused {
        /// The reason.
        reason: String,
    },
    /// It is not known to have arrived.
    Failed {
        /// The reason.
        reason: String,
    },
}

/// The secret of a file: its first line.
///
/// # Errors
/// If it cannot be read, or is too short or too long.
pub fn secret(path: &Path) -> Result<Zeroizing<String>, String> {
    let secret = first_line(path)?;
    let length = secret.chars().count();
    if !SECRET.contains(&length) {
        let (least, most) = (SECRET.start(), SECRET.end());
        return Err(format!(
            "{}: expected {least} to {most} characters, found {length}; openssl rand -hex 32 makes \
             a secret",
            path.display()
        ));
    }
    Ok(secret)
}

/// The first line of a file that holds a secret.
///
/// # Errors
/// If it cannot be read or has none.
pub fn first_line(path: &Path) -> Result<Zeroizing<String>, String> {
    let fault = |reason: &str| format!("{}: {reason}", path.display());
    let file = std::fs::File::open(path).map_err(|error| fault(&error.to_string()))?;
    let mut text = Zeroizing::new(String::new());
    let read = file.take(8192).read_to_string(&mut text);
    read.map_err(|error| fault(&error.to_string()))?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(fault("has no text in its first line"));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// The signature of a body that is sent at this time, seconds since 1970.
pub fn signature(secret: &str, time_s: u64, body: &[u8]) -> String {
    // Cannot fail: a key of HMAC has any length.
    let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    hmac.update(time_s.to_string().as_bytes());
    hmac.update(b".");
    hmac.update(body);
    let mut text = "v1=".to_owned();
    for byte in hmac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A thread that posts one event at a time.
pub struct Webhook {
    posts: SyncSender<Post>,
}

impl Webhook {
    /// Starts the thread. Each [`Outcome`] goes to `outcomes`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start<T: From<Outcome> + Send + 'static>(
        target: Target,
        outcomes: SyncSender<T>,
    ) -> std::io::Result<Self> {
        let (posts, waiting) = sync_channel::<Post>(1);
        std::thread::Builder::new().name("webhook".to_owned()).spawn(move || {
            for event in waiting {
                if outcomes.send(post(&target, &event).into()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { posts })
    }

    /// Posts an event. Whether the thread was free for it.
    pub fn send(&self, post: Post) -> bool {
        self.posts.try_send(post).is_ok()
    }
}

#[cfg(test)]
mod tests;
