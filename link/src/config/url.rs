//! Addresses of brokers and of webhooks.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest URL, bytes.
const LONGEST: usize = 2000;

/// Address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MqttUrl {
    /// Whether the connection has TLS.
    pub tls: bool,
    /// Name or address of the host.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Address of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpUrl {
    /// Whether the connection has TLS.
    pub tls: bool,
    /// Name or address of the host.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Path and query, with the slash at its beginning.
    pub path: String,
}

impl MqttUrl {
    /// Whether the host is this computer.
    pub fn local(&self) -> bool {
        local(&self.host)
    }
}

impl HttpUrl {
    /// Whether the host is this computer.
    pub fn local(&self) -> bool {
        local(&self.host)
    }

    /// Host and port, as the field `Host` of a request has them.
    pub fn authority(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        let host = bracketed(&self.host);
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

fn local(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Host and port; the port is `usual` if there is none.
fn authority(text: &str, usual: u16) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => {
            let (host, rest) = text.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (host, rest) = text.split_at(end);
            let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if host.is_empty() || host.len() > 253 || !host.chars().all(name) {
                return None;
            }
            (host, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => usual,
        None => return None,
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
    };
    Some((host.to_owned(), port))
}

/// The scheme's place in `schemes`, and what follows it.
fn split<'t>(text: &'t str, schemes: [&str; 2]) -> Result<(bool, &'t str), String> {
    let [secure, open] = schemes;
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if text.len() > LONGEST {
        return Err(format!("a URL has at most {LONGEST} bytes"));
    }
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        return Err("a URL has no name or password here; each has a key of its own".to_owned());
    }
    match scheme {
        _ if scheme == secure => Ok((true, rest)),
        _ if scheme == open => Ok((false, rest)),
        _ => Err(format!("expected a URL like \"{secure}://host\" or \"{open}://host\"")),
    }
}

impl FromStr for MqttUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tls, rest) = split(text, ["mqtts", "mqtt"])?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = authority(rest, if tls { 8883 } else { 1883 }).ok_or_else(|| {
            let shown = crate::text::plain(text, 80);
            format!("\"{shown}\": expected a host and perhaps a port, like \"mqtts://host:8883\"")
        })?;
        Ok(Self { tls, host, port })
    }
}

impl FromStr for HttpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tls, rest) = split(text, ["https", "http"])?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (before, path) = rest.split_at(end);
        let (host, port) = authority(before, if tls { 443 } else { 80 }).ok_or_else(|| {
            let shown = crate::text::plain(text, 80);
            format!("\"{shown}\": expected a host and a path, like \"https://host/path\"")
        })?;
        if !path.chars().all(|c| c.is_ascii_graphic() && c != '#') {
            return Err("a path has no spaces, no # and only ASCII; encode others as %20".into());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { tls, host, port, path })
    }
}

impl fmt::Display for MqttUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}:{}", bracketed(&self.host), self.port)
    }
}

/// Without the path, which may be a secret.
impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl TryFrom<String> for MqttUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MqttUrl> for String {
    fn from(url: MqttUrl) -> Self {
        url.to_string()
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> Self {
        format!("{url}{}", url.path)
    }
}
