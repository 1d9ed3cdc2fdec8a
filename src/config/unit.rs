//! Units in values: times like "1.5s" and rates like "1e-4", read and written.

use crate::models::threshold::parse_rate;
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;
use std::time::Duration;

/// Joins names as in "a, b and c".
pub(crate) fn in_words(names: &[&str]) -> String {
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// Reads a time with its unit, like "3s", "1.5s", "250ms", "2m" or "8h"; `None` for
/// anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = number.trim().parse::<f64>().ok()? * factor;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A time as [`parse_duration`] reads it, in the largest unit that makes it a whole number.
/// Up to a month it reads back to the nanosecond; beyond that f64 has too few digits.
pub fn duration_text(time: Duration) -> String {
    let (seconds, nanoseconds) = (time.as_secs(), time.subsec_nanos());
    match (seconds, nanoseconds) {
        (1.., 0) if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (1.., 0) if seconds % 60 == 0 => format!("{}m", seconds / 60),
        (_, 0) => format!("{seconds}s"),
        (0, _) if nanoseconds % 1_000_000 == 0 => format!("{}ms", nanoseconds / 1_000_000),
        _ => {
            let fraction = format!("{nanoseconds:09}");
            format!("{seconds}.{}s", fraction.trim_end_matches('0'))
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_as_people_write_them() {
        for text in ["0s", "3s", "1.5s", "250ms", "90s", "2m", "8h", "0.0005s", "61.25s"] {
            assert_eq!(duration_text(parse_duration(text).expect(text)), text);
        }
        assert_eq!(parse_duration("60s").map(duration_text).as_deref(), Some("1m"));
        for text in ["", "3", "s", "3 weeks", "-3s", "1e3s", "nans", "1e", "99999999999999999999s"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_time_reads_back_as_itself(seconds in 0u64..2_500_000, nanoseconds in 0u32..1_000_000_000) {
            for time in [
                Duration::new(seconds, nanoseconds),
                Duration::from_millis(seconds),
                Duration::from_secs(seconds),
            ] {
                prop_assert_eq!(parse_duration(&duration_text(time)), Some(time));
            }
        }
    }
}
