//! Which of two sets is older.

use crate::models::Manifest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of a set and when it was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    /// Version of the manifest.
    pub version: String,
    /// When the set was signed, Unix seconds; `None` if it was not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_unix: Option<i64>,
    /// The same as in the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_at: Option<String>,
}

impl Age {
    /// Age of the set with this manifest.
    pub fn of(manifest: &Manifest) -> Self {
        let (signed_unix, signed_at) = (manifest.signed_unix(), manifest.signed_at.clone());
        Self { version: manifest.version.clone(), signed_unix, signed_at }
    }

    /// Why this set is older than the other one; `None` if it is not. A lower version is
    /// older, and so is an earlier signature. Versions are compared by their first numbers
    /// with dots, `2026.12` in `2026.12-int8`, if what is before these numbers is the same.
    /// A set without a time is older than one with a time.
    pub fn older_than(&self, other: &Self) -> Option<String> {
        let (name, numbers) = numbers(&self.version);
        let (other_name, other_numbers) = self::numbers(&other.version);
        if name == other_name && numbers < other_numbers {
            return Some(format!("version {} is lower than {}", self.version, other.version));
        }
        if self.signed_unix < other.signed_unix {
            let theirs = other.signed_at.as_deref().unwrap_or("later");
            return Some(match &self.signed_at {
                Some(own) => format!("it was signed at {own}, before {theirs}"),
                None => format!("it has no time of signing, and that one was signed at {theirs}"),
            });
        }
        None
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        self.signed_at.iter().try_for_each(|at| write!(f, ", signed at {at}"))
    }
}

/// What precedes the first digit of a version, and the numbers with dots from there on. A
/// number beyond 64 bits counts as the largest.
fn numbers(version: &str) -> (&str, Vec<u64>) {
    let begin = version.find(|c: char| c.is_ascii_digit()).unwrap_or(version.len());
    let (name, rest) = version.split_at(begin);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let parts = rest[..end].split('.').filter(|part| !part.is_empty());
    (name, parts.map(|part| part.parse().unwrap_or(u64::MAX)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(version: &str, signed: Option<i64>) -> Age {
        let signed_at = signed.map(|at| format!("t{at}"));
        Age { version: version.to_owned(), signed_unix: signed, signed_at }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let older = |a: &str, b: &str| age(a, None).older_than(&age(b, None)).is_some();
        for (low, high) in [("1", "2"), ("9", "10"), ("2026.9-int8", "2026.11"), ("v1", "v1.0.1")] {
            assert!(older(low, high) && !older(high, low), "{low} {high}");
        }
        for (a, b) in [("toy", "other"), ("office-2", "lab-3"), ("2026.12-int8", "2026.12-float")] {
            assert!(!older(a, b) && !older(b, a), "{a} {b}");
        }
        assert!(!older("99999999999999999999999", "18446744073709551615"));
    }

    #[test]
    fn an_earlier_signature_is_older_whatever_the_version() {
        let why = age("3", Some(5)).older_than(&age("2", Some(6))).expect("older");
        assert!(why.contains("t5") && why.contains("t6"), "{why}");
        assert!(age("3", None).older_than(&age("2", Some(6))).is_some());
        assert!(age("2", Some(6)).older_than(&age("2", Some(6))).is_none());
        assert!(age("2", Some(6)).older_than(&age("2", None)).is_none());
        assert!(age("1", Some(7)).older_than(&age("2", Some(6))).is_some());
    }
}
