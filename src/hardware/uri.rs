//! Options of device URIs, `scheme:body?key=value&key=value`, and times with their unit.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// One option of a URI: `key=value`, or only `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opt<'u> {
    text: &'u str,
    /// The part before the `=`.
    pub key: &'u str,
    /// The part after the first `=`; empty without one.
    pub value: &'u str,
}

impl Opt<'_> {
    /// The fault of a value that is not what was expected.
    pub fn expected(&self, what: &str) -> String {
        format!("{}: expected {what}", self.text)
    }

    /// The value as a number in a range; `expected` describes the range.
    pub fn number<T: FromStr + PartialOrd>(
        &self,
        range: RangeInclusive<T>,
        expected: &str,
    ) -> Result<T, String> {
        let number = self.value.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| self.expected(expected))
    }

    /// The value as a time in a range; `expected` describes the range.
    pub fn time(
        &self,
        range: RangeInclusive<Duration>,
        expected: &str,
    ) -> Result<Duration, String> {
        let time = parse_duration(self.value).filter(|time| range.contains(time));
        time.ok_or_else(|| self.expected(expected))
    }
}

/// Splits the part after the scheme into its body and the options after the first `?`.
pub(crate) fn split(rest: &str) -> (&str, &str) {
    rest.split_once('?').unwrap_or((rest, ""))
}

/// Reads options that are joined by `&`. An error for an option that is not in `known`,
/// and for one that is given twice.
pub(crate) fn options<'u>(text: &'u str, known: &[&str]) -> Result<Vec<Opt<'u>>, String> {
    let mut found: Vec<Opt<'_>> = Vec::new();
    for text in text.split('&').filter(|option| !option.is_empty()) {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if !known.contains(&key) {
            return Err(format!("{text}: unknown; the options are {}", in_words(known)));
        }
        if found.iter().any(|other| other.key == key) {
            return Err(format!("{text}: {key} is given twice; remove one"));
        }
        found.push(Opt { text, key, value });
    }
    Ok(found)
}

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
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    let seconds = number.trim().parse::<f64>().ok()? * factor;
    Duration::try_from_secs_f64(seconds).ok()
}

/// From here on whole days are written as days, seconds.
const DAYS_FROM: u64 = 30 * 86_400;

/// A time as [`parse_duration`] reads it, in the largest unit that makes it a whole number.
/// Up to a month it reads back to the nanosecond; beyond that f64 has too few digits.
pub fn duration_text(time: Duration) -> String {
    let (seconds, nanoseconds) = (time.as_secs(), time.subsec_nanos());
    match (seconds, nanoseconds) {
        (DAYS_FROM.., 0) if seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
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

    #[test]
    fn options_are_known_and_given_once() {
        let read = |text| options(text, &["fps", "loop"]);
        assert_eq!(read(""), Ok(vec![]));
        let found = read("fps=5&loop&").expect("options");
        assert_eq!(
            found.iter().map(|o| (o.key, o.value)).collect::<Vec<_>>(),
            [("fps", "5"), ("loop", "")]
        );
        assert_eq!(found[0].number(1..=9, "1 to 9"), Ok(5));
        assert_eq!(found[0].number(6..=9, "6 to 9"), Err("fps=5: expected 6 to 9".to_owned()));
        for (text, part) in [("speed=1", "the options are fps and loop"), ("fps=1&fps=2", "twice")]
        {
            assert!(read(text).expect_err(text).contains(part), "{text}");
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
