//! The protocol of the control socket: one request and one reply per line, both JSON
//! objects.
//!
//! ```text
//!   {"do":"status"}   ->  {"ok":true,"status":{...}}
//!   {"do":"open"}     ->  {"ok":true,"did":"opened by command"}
//!                     ->  {"error":"lockdown; end that first"}
//!   {"do":"site-join","code":"..."}
//!                     ->  {"ok":true,"did":"asking the site to admit this door ..."}
//! ```

use crate::access::door;
use crate::access::event::plain;
use crate::service::site::SiteOrder;
use crate::service::status::Status;
use facelatch_site::CodeError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fmt;
use thiserror::Error;

/// Longest request in bytes, including its line end.
pub const MAX_REQUEST: usize = 1024;
/// Characters of a parser's message that are shown.
const SHOWN: usize = 160;

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
    /// The wall clock is right, although it is before the last time known.
    TrustClock,
    /// Read the configuration again.
    Reload,
    /// Trust the camera that answers now.
    AcceptCamera,
    /// An order about the site that the door belongs to.
    Site(SiteOrder),
}

const JOIN: &str = "site-join";

/// Requests without parameters, by name.
static NAMES: [(&str, Request); 11] = [
    ("status", Request::Status),
    ("open", Request::Order(Command::Door(door::Command::Open))),
    ("lockdown", Request::Order(Command::Door(door::Command::Lockdown))),
    ("normal", Request::Order(Command::Door(door::Command::Normal))),
    ("always-open", Request::Order(Command::Door(door::Command::AlwaysOpen))),
    ("local-reset", Request::Order(Command::LocalReset)),
    ("trust-clock", Request::Order(Command::TrustClock)),
    ("reload", Request::Order(Command::Reload)),
    ("accept-camera", Request::Order(Command::AcceptCamera)),
    ("site-show", Request::Order(Command::Site(SiteOrder::Show))),
    ("site-leave", Request::Order(Command::Site(SiteOrder::Leave))),
];

/// Errors of parsing a request.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// Not a JSON object of the expected form.
    #[error("not a request: {0}; send one JSON object per line, such as {{\"do\":\"status\"}}")]
    Form(String),
    /// An unknown request name.
    #[error("{} is not a known request; {}", plain(&format!("{name:?}")), advice(.name))]
    Unknown {
        /// The name given, cut to 40 characters.
        name: String,
    },
    /// A field has a value that it may not have.
    #[error("{field}: {fault}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The fault and the values that are allowed.
        fault: String,
    },
    /// Longer than [`MAX_REQUEST`].
    #[error("a request has at most {MAX_REQUEST} bytes")]
    TooLong,
}

impl Request {
    /// Parses a line, with or without its line end.
    ///
    /// # Errors
    /// If the line is too long, is not a JSON object of the expected form, names an unknown
    /// request, or a field is out of its range. The error has no character that is not plain.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            r#do: String,
            code: Option<String>,
        }
        if line.len() > MAX_REQUEST {
            return Err(RequestError::TooLong);
        }
        // Serde would take a list for an object without names.
        if line.trim_ascii_start().first() != Some(&b'{') {
            return Err(RequestError::Form("no object".to_owned()));
        }
        let Line { r#do: name, code } =
            serde_json::from_slice(line).map_err(|error| RequestError::Form(shown(&error)))?;
        if name == JOIN {
            let Some(code) = code else {
                return Err(RequestError::Form("site-join needs code".to_owned()));
            };
            // The code itself is secret.
            let code = code.parse().map_err(|fault: CodeError| RequestError::Field {
                field: "code",
                fault: fault.to_string(),
            })?;
            return Ok(Self::Order(Command::Site(SiteOrder::Join(code))));
        }
        let Some((_, request)) = NAMES.iter().find(|(known, _)| *known == name) else {
            return Err(RequestError::Unknown { name: name.chars().take(40).collect() });
        };
        if code.is_some() {
            return Err(RequestError::Form(format!("{name} takes no code")));
        }
        Ok(request.clone())
    }

    /// The request as a line of JSON.
    pub fn line(&self) -> String {
        let object = match self {
            Self::Order(Command::Site(SiteOrder::Join(code))) => {
                json!({"do": JOIN, "code": code.to_string()})
            }
            named => json!({"do": named.to_string()}),
        };
        format!("{object}\n")
    }
}

/// A parser's message, which may repeat what the client sent.
fn shown(error: &serde_json::Error) -> String {
    plain(&error.to_string()).chars().take(SHOWN).collect()
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMES.iter().find(|(_, request)| request == self);
        f.write_str(named.map_or(JOIN, |(name, _)| name))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Request::Order(self.clone()).fmt(f)
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name).chain([JOIN])
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
    /// Nothing was done for want of a place: connect and ask again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
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

    /// The reply to a client without a place, whose request was not read.
    pub fn again(reason: impl Into<String>) -> Self {
        Self { again: true, ..Self::error(reason) }
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
    use crate::access::event::is_plain;
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
            (b"{\"do\":\"open\",\"code\":\"Ada\"}", "open takes no code"),
            (b"{\"do\":\"site-join\"}", "site-join needs code"),
            (b"{\"do\":\"site-join\",\"code\":\"abcde\"}", "code: no code"),
            (b"{\"do\":\"site-join\",\"code\":7}", "expected a string"),
            (b"{\"do\":\"open\",\"do\":\"lockdown\"}", "duplicate field"),
            (b"{\"do\":\"open\",\"a\\u001b[2J\\n\":1}", "unknown field `a\\u{1b}[2J\\u{a}`"),
            (b"{\"do\":\"open\\u0000\"}", "\"open\\0\" is not a known request"),
            (b"{\"do\":1}", "{\"do\":\"status\"}"),
            (b"[\"open\",null,null,null]", "no object"),
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
                r#"\{"do":"site-join","code":"[0-9a-z-]{0,30}"\}"#.prop_map(String::into_bytes),
                any::<(String, String)>()
                    .prop_map(|(key, value)| json!({"do": "open", key: value}).to_string().into_bytes()),
            ],
        ) {
            match Request::parse(&line) {
                Ok(request) => {
                    let text = String::from_utf8(line).expect("text");
                    let expected = format!("\"{}\"", request);
                    prop_assert!(text.contains(&expected));
                    prop_assert_eq!(Request::parse(request.line().as_bytes()), Ok(request.clone()));
                }
                Err(error) => {
                    let message = error.to_string();
                    prop_assert!(message.chars().all(is_plain), "{:?}", message);
                    prop_assert!(message.len() < 4 * SHOWN + 200, "{}", message.len());
                }
            }
        }
    }
}
