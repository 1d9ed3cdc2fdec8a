//! Units in values: times like "1.5s" and rates like "1e-4", read and written.

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
