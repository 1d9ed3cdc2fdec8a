//! Units in values: times like "1.5s", sizes like "256 MB" and rates like "1e-4", read and written.

use crate::hardware::uri::{duration_text, parse_duration};
use crate::models::threshold::parse_rate;
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;
use std::time::Duration;

/// Serializes a time with its unit, for `#[serde(with)]`.
pub(super) mod time {
    use super::*;

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration_text(*time))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(Time)
    }

    struct Time;

    impl Visitor<'_> for Time {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time with its unit, like \"3s\", \"1.5s\" or \"250ms\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse_duration(text).ok_or_else(|| {
                E::custom(format!(
                    "{text:?} is not a time with its unit, like \"3s\", \"1.5s\" or \"250ms\""
                ))
            })
        }
    }
}

/// Serializes a number of bytes with its unit, for `#[serde(with)]`.
pub(super) mod size {
    use super::*;

    /// Units, the largest first.
    const UNITS: [(&str, u64); 4] =
        [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000), ("B", 1)];

    /// A size in the largest unit that makes it a whole number.
    pub fn text(bytes: u64) -> String {
        let fits = |(_, factor): &&(&str, u64)| bytes >= *factor && bytes.is_multiple_of(*factor);
        let (unit, factor) = UNITS.iter().find(fits).copied().unwrap_or(("B", 1));
        format!("{} {unit}", bytes / factor)
    }

    /// A size with its unit; `None` if the text is none.
    pub fn parse(text: &str) -> Option<u64> {
        let text = text.trim();
        let at = text.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = text.split_at(at);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        number.trim().parse::<u64>().ok()?.checked_mul(*factor)
    }

    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(*bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_str(Size)
    }

    struct Size;

    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size with its unit, like \"256 MB\" or \"1 GB\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            parse(text).ok_or_else(|| {
                E::custom(format!(
                    "{text:?} is not a size with its unit, like \"256 MB\" or \"1 GB\""
                ))
            })
        }
    }
}

/// Serializes a rate as text like "1e-4", for `#[serde(with)]`; also reads a number.
pub(super) mod rate {
    use super::*;

    pub fn serialize<S: Serializer>(rate: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{rate:e}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(Rate)
    }

    struct Rate;

    impl Visitor<'_> for Rate {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a rate above 0 and below 1, like \"1e-4\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            parse_rate(text).ok_or_else(|| none(format_args!("{text:?}")))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
            let rate = Some(number).filter(|number| *number > 0.0 && *number < 1.0);
            rate.ok_or_else(|| none(format_args!("{number}")))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
            Err(none(format_args!("{number}")))
        }
    }

    fn none<E: Error>(shown: fmt::Arguments<'_>) -> E {
        E::custom(format_args!("{shown} is not a rate above 0 and below 1, like \"1e-4\""))
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for (text, bytes) in
            [("256 MB", 256_000_000), ("1 GB", 1_000_000_000), ("1500 kB", 1_500_000)]
        {
            assert_eq!(size::parse(text), Some(bytes));
            assert_eq!(size::text(bytes), text);
        }
        assert_eq!(size::parse("7B"), Some(7));
        assert_eq!(size::text(0), "0 B");
        for text in ["", "256", "MB", "1.5 MB", "1 mb", "-1 MB", "99999999999 GB"] {
            assert_eq!(size::parse(text), None, "{text}");
        }
    }
}
