//! EDGE: one request of HTTP/1.1, and the status of its answer. Nothing else of the answer
//! is used: redirects are not followed, and its body is not read.

use super::{Outcome, Post, signature};
use crate::config::HttpUrl;
use crate::mqtt::Tls;
use crate::mqtt::stream::{Peer, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Most bytes of an answer in which its status has to be.
const MOST_BYTES: usize = 1024;
const RECEIVER: Peer = Peer { name: "the receiver", table: "webhook", open: "http://" };

/// Where events are posted.
#[derive(Clone, Debug)]
pub struct Target {
    /// The receiver.
    pub url: HttpUrl,
    /// TLS, for a URL with TLS.
    pub tls: Tls,
    /// The shared secret.
    pub secret: Zeroizing<String>,
    /// Longest time for connecting and the answer each.
    pub timeout: Duration,
}

/// Posts an event, and waits for the answer.
pub fn post(target: &Target, post: &Post) -> Outcome {
    match exchange(target, post) {
        Ok(200..=299) => Outcome::Taken,
        Ok(status @ (400 | 413 | 415 | 422)) => Outcome::Refused {
            reason: format!("the receiver refuses the event with status {status}"),
        },
        Ok(status @ (401 | 403)) => Outcome::Failed {
            reason: format!("the receiver answers {status}; has it the same secret and clock?"),
        },
        Ok(status @ (301 | 302 | 303 | 307 | 308)) => Outcome::Failed {
            reason: format!("the receiver answers {status}: it has moved; change webhook.url"),
        },
        Ok(status @ 404) => Outcome::Failed {
            reason: format!("the receiver answers {status}; is the path of webhook.url right?"),
        },
        Ok(status) => Outcome::Failed { reason: format!("the receiver answers {status}") },
        Err(reason) => Outcome::Failed { reason },
    }
}

fn exchange(target: &Target, post: &Post) -> Result<u16, String> {
    let Target { url, tls, secret, timeout } = target;
    let tls =
        if url.tls { Some(tls.client_config().map_err(|error| error.to_string())?) } else { None };
    let mut stream = Stream::connect(&url.host, url.port, tls, *timeout, RECEIVER)?;
    let time_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    stream.push(&request(url, post, time_s, &signature(secret, time_s, &post.body)));
    let until = Instant::now() + *timeout;
    let (mut answer, mut buffer) = (vec![], [0; 512]);
    loop {
        stream.flush()?;
        while let Some(read) = stream.read(&mut buffer)? {
            answer.extend_from_slice(&buffer[..read]);
            if let Some(status) = status(&answer)? {
                return Ok(status);
            }
            if answer.len() > MOST_BYTES {
                return Err("the receiver does not speak HTTP".to_owned());
            }
        }
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Err(format!("no answer within {} s", timeout.as_secs()));
        }
        let wanted =
            if stream.wants_write() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let rest = Timespec {
            tv_sec: i64::try_from(rest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: rest.subsec_nanos().into(),
        };
        // Interrupted or not: everything is looked at again.
        let _ = poll(&mut [PollFd::new(&stream.socket, wanted)], Some(&rest));
    }
}

pub(super) fn request(url: &HttpUrl, post: &Post, time_s: u64, signature: &str) -> Vec<u8> {
    let mut head = String::new();
    // Writing into text cannot fail.
    let _ = write!(
        head,
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: facelatch-link/{}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\
         Facelatch-Event: {}\r\nFacelatch-Timestamp: {time_s}\r\n\
         Facelatch-Signature: {signature}\r\n\r\n",
        url.path,
        url.authority(),
        env!("CARGO_PKG_VERSION"),
        post.body.len(),
        post.event,
    );
    [head.as_bytes(), &post.body].concat()
}

/// The status of an answer; `None` if its first line is not all there.
pub(super) fn status(answer: &[u8]) -> Result<Option<u16>, String> {
    let fault = || "the receiver does not speak HTTP/1.1".to_owned();
    let Some(end) = answer.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let line = std::str::from_utf8(&answer[..end]).map_err(|_| fault())?;
    let mut parts = line.trim_end().splitn(3, ' ');
    if !parts.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
        return Err(fault());
    }
    let status = parts.next().filter(|status| status.len() == 3).and_then(|s| s.parse().ok());
    match status {
        // "Go on": the answer follows.
        Some(100..=199) => {
            let blank = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            blank.map_or(Ok(None), |blank| self::status(&answer[blank + 4..]))
        }
        Some(status) => Ok(Some(status)),
        None => Err(fault()),
    }
}
