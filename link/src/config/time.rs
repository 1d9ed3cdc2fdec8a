//! Times with their unit, such as "10s".

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use std::time::Duration;

/// Units and their milliseconds, the largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A time in the largest unit that makes it a whole number.
pub fn text(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, factor): &&(&str, u64)| millis >= *factor && millis.is_multiple_of(*factor);
    let (unit, factor) = UNITS.iter().find(fits).copied().unwrap_or(("ms", 1));
    format!("{}{unit}", millis / factor)
}

/// Reads a time; `None` if the text is none.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let seconds = number.trim().parse::<f64>().ok()? * *factor as f64 / 1000.0;
    Duration::try_from_secs_f64(seconds).ok()
}

pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*time))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| {
        let shown = crate::text::plain(&text, 40);
        D::Error::custom(format!("\"{shown}\" is no time with its unit, like \"10s\" or \"5m\""))
    })
}
