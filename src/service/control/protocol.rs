//! The protocol of the control socket: one request and one reply per line, both JSON
//! objects.
//!
//! ```text
//!   {"do":"status"}   ->  {"ok":true,"status":{...}}
//!   {"do":"open"}     ->  {"ok":true,"did":"opened by command"}
//!                     ->  {"error":"lockdown; end that first"}
//!   {"do":"passed","who":"Ada Lovelace","way":"in","ago_ms":200}
//!                     ->  {"ok":true,"did":"noted"}
//! ```

use crate::access::door::{self, Role};
use crate::service::status::Status;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// Longest request in bytes, including its line end.
pub const MAX_REQUEST: usize = 1024;

/// A request to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// State and counters of the service.
    Status,
    /// An order.
    Order(Command),
}

/// An order to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An order to the door.
    Door(door::Command),
    /// Local reset by somebody who is at the device.
    LocalReset,
    /// Read the configuration again.
    Reload,
    /// Trust the camera that answers now.
    AcceptCamera,
    /// Note that somebody passed at another door.
    Passed(Passage),
}

/// A passage at another door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Name of the person in both galleries.
    pub who: String,
    /// Direction of the passage.
    pub way: Role,
    /// Time since the passage.
    pub ago: Duration,
}

const PASSED: &str = "passed";

/// Requests without parameters, by name.
static NAMES: [(&str, Request); 8] = [
    ("status", Request::Status),
    ("open", Request::Order(Command::Door(door::Command::Open))),
    ("lockdown", Request::Order(Command::Door(door::Command::Lockdown))),
    ("normal", Request::Order(Command::Door(door::Command::Normal))),
    ("always-open", Request::Order(Command::Door(door::Command::AlwaysOpen))),
    ("local-reset", Request::Order(Command::LocalReset)),
    ("reload", Request::Order(Command::Reload)),
    ("accept-camera", Request::Order(Command::AcceptCamera)),
];

/// Errors of parsing a request.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// Not a JSON object of the expected form.
    #[error("not a request: {0}; send one JSON object per line, such as {{\"do\":\"status\"}}")]
    Form(String),
    /// An unknown request name.
    #[error("{name:?} is not a known request; {}", advice(.name))]
    Unknown {
        /// The name given, cut to 40 characters.
        name: String,
    },
    /// Longer than [`MAX_REQUEST`].
    #[error("a request has at most {MAX_REQUEST} bytes")]
    TooLong,
}

impl Request {
    /// Parses a line, with or without its line end.
    ///
    /// # Errors
    /// If the line is too long, is not a JSON object of the expected form, or names an unknown
    /// request.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            r#do: String,
            who: Option<String>,
            way: Option<Role>,
            ago_ms: Option<u64>,
        }
        if line.len() > MAX_REQUEST {
            return Err(RequestError::TooLong);
        }
        let Line { r#do: name, who, way, ago_ms } =
            serde_json::from_slice(line).map_err(|error| RequestError::Form(error.to_string()))?;
        if name == PASSED {
            let (Some(who), Some(way), Some(ago)) = (who, way, ago_ms) else {
                let needs = "passed needs who, way (\"in\" or \"out\") and ago_ms";
                return Err(RequestError::Form(needs.to_owned()));
            };
            let ago = Duration::from_millis(ago);
            return Ok(Self::Order(Command::Passed(Passage { who, way, ago })));
        }
        let Some((_, request)) = NAMES.iter().find(|(known, _)| *known == name) else {
            return Err(RequestError::Unknown { name: name.chars().take(40).collect() });
        };
        if who.is_some() || way.is_some() || ago_ms.is_some() {
            return Err(RequestError::Form(format!("{name} takes neither who, way nor ago_ms")));
        }
        Ok(request.clone())
    }

    /// The request as a line of JSON.
    pub fn line(&self) -> String {
        let object = match self {
            Self::Order(Command::Passed(Passage { who, way, ago })) => {
                let ago_ms = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                json!({"do": PASSED, "who": who, "way": way, "ago_ms": ago_ms})
            }
            named => json!({"do": named.to_string()}),
        };
        format!("{object}\n")
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMES.iter().find(|(_, request)| request == self);
        f.write_str(named.map_or(PASSED, |(name, _)| name))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Request::Order(self.clone()).fmt(f)
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name).chain([PASSED])
}

/// A cure: the most similar name, or all names.
fn advice(name: &str) -> String {
    let near = names().map(|known| (strsim::damerau_levenshtein(known, name), known));
    match near.min() {
        Some((far, known)) if far <= 2 => format!("did you mean {known:?}?"),
        _ => format!("the requests are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// A reply to a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reply {
    /// Whether the request succeeded.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ok: bool,
    /// The reason if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Result of an order, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did: Option<String>,
    /// State and counters of the service, for `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
}

impl Reply {
    /// The reply to `status`.
    pub fn status(snapshot: Status) -> Self {
        Self { ok: true, status: Some(Box::new(snapshot)), ..Self::default() }
    }

    /// The reply to a failed request.
    pub fn error(reason: impl Into<String>) -> Self {
        Self { error: Some(reason.into()), ..Self::default() }
    }

    /// The reply as a line of JSON.
    pub fn line(&self) -> String {
        // Cannot fail: all keys are text and every value can be written.
        let mut line = serde_json::to_string(self)
            .unwrap_or_else(|_| "{\"error\":\"the reply cannot be written\"}".to_owned());
        line.push('\n');
        line
    }
}

impl From<Result<String, String>> for Reply {
    fn from(done: Result<String, String>) -> Self {
        match done {
            Ok(did) => Self { ok: true, did: Some(did), ..Self::default() },
            Err(reason) => Self::error(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_request_is_read_as_it_is_written() {
        for (name, request) in &NAMES {
            assert_eq!(request.line(), format!("{{\"do\":\"{name}\"}}\n"));
            assert_eq!(Request::parse(request.line().as_bytes()).as_ref(), Ok(request));
        }
        assert_eq!(
            Request::parse(b" { \"do\" : \"open\" } \r\n").expect("one").to_string(),
            "open"
        );
    }

    #[test]
    fn a_mistake_is_reported_with_its_cure() {
        for (line, expected) in [
            (&b"{\"do\":\"opne\"}"[..], "did you mean \"open\""),
            (b"{\"do\":\"burn\"}", "always-open"),
            (b"{\"do\":\"status\",\"force\":true}", "force"),
            (b"{\"do\":\"open\",\"who\":\"Ada\"}", "open takes neither"),
            (b"{\"do\":\"passed\",\"who\":\"Ada\",\"way\":\"in\"}", "passed needs"),
            (b"{\"do\":\"passed\",\"who\":\"A\",\"way\":\"in\",\"ago_ms\":-1}", "u64"),
            (b"{\"do\":\"passed\",\"who\":\"Ada\",\"way\":\"up\"}", "up"),
            (b"{\"do\":1}", "{\"do\":\"status\"}"),
            (b"open", "one JSON object per line"),
            (b"", "one JSON object per line"),
            (b"{}", "do"),
            (b"\xff\xfe", "not a request"),
            (&[b'['; MAX_REQUEST + 1], "1024 bytes"),
            (&[b'['; MAX_REQUEST], "not a request"),
        ] {
            let message = Request::parse(line).expect_err("no request").to_string();
            assert!(message.contains(expected), "{message}");
            assert!(message.len() < 300, "{message}");
        }
    }

    #[test]
    fn a_reply_says_only_what_it_has_to() {
        assert_eq!(Reply::error("no").line(), "{\"error\":\"no\"}\n");
        let done = Reply::from(Ok("opened".to_owned()));
        assert_eq!(done.line(), "{\"ok\":true,\"did\":\"opened\"}\n");
        let status = Reply::status(Status { pid: 5, ..Status::default() }).line();
        assert!(status.starts_with("{\"ok\":true,\"status\":{") && status.contains("\"pid\":5"));
    }

    proptest! {
        #[test]
        fn no_line_panics_and_none_but_requests_are_taken(
            line in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..1200),
                r#"\{ ?"(do|did|o)" ?: ?"[a-z-]{0,12}" ?\}"#.prop_map(String::into_bytes),
                r#"\{"do":"passed","who":"[^"\\\x00-\x1f]{0,90}","way":"(in|out)","ago_ms":[0-9]{1,9}\}"#
                    .prop_map(String::into_bytes),
            ],
        ) {
            match Request::parse(&line) {
                Ok(request) => {
                    let text = String::from_utf8(line).expect("text");
                    let expected = format!("\"{}\"", request);
                    prop_assert!(text.contains(&expected));
                    prop_assert_eq!(Request::parse(request.line().as_bytes()), Ok(request));
                }
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }
    }
}
