//! Whether an order that came by the broker is passed on to the door.

use crate::mqtt::Message;
use facelatch_messages::LinkOrder;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// Longest order, bytes.
const LONGEST: usize = 400;

/// What an order is measured by.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Orders that the door's configuration allows.
    pub allowed: Vec<LinkOrder>,
    /// Greatest age.
    pub age: Duration,
}

#[derive(Deserialize)]
struct Timed {
    order: String,
    /// Seconds since 1970.
    time: Option<f64>,
}

/// The order of a message that is to be passed on. `wall_s` is the time of now, seconds
/// since 1970.
///
/// An order is a word, or JSON like `{"order":"open","time":1764500000.5}`. Only one with a
/// time is known to be new, however long it was on its way to the broker. Any is refused if
/// it was retained, or may have waited here.
///
/// # Errors
/// Why it is not passed on, and the cure.
pub fn judge(
    message: &Message,
    limits: &Limits,
    now: Instant,
    wall_s: f64,
) -> Result<LinkOrder, String> {
    if message.retained {
        return Err("it was retained at the broker; publish orders without retain".to_owned());
    }
    if message.payload.len() > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    let most = limits.age.as_secs_f64();
    let waited = now.saturating_duration_since(message.since);
    if waited > limits.age || message.expires_s == Some(0) {
        let waited = waited.as_secs_f64();
        return Err(format!("it may have waited for {waited:.0} s, and {most} s are allowed"));
    }
    let text = std::str::from_utf8(&message.payload).map_err(|_| "it is no text".to_owned())?;
    let text = text.trim();
    let (word, time) = if text.starts_with('{') {
        let timed: Timed = serde_json::from_str(text).map_err(|_| {
            "it is no JSON like {\"order\":\"open\",\"time\":1764500000}".to_owned()
        })?;
        (timed.order, timed.time)
    } else {
        (text.to_owned(), None)
    };
    if let Some(time) = time {
        let age = wall_s - time;
        if age.is_nan() || age.abs() > most {
            let what = if age < 0.0 { "from the future" } else { "old" };
            return Err(format!(
                "by its time it is {:.0} s {what}, and {most} s are allowed; compare the clocks \
                 of both computers",
                age.abs()
            ));
        }
    }
    let order = LinkOrder::ALL.into_iter().find(|order| order.name() == word).ok_or_else(|| {
        let word = crate::text::plain(&word, 40);
        format!("{word:?} is no order; there are open, lockdown, normal and always-open")
    })?;
    if !limits.allowed.contains(&order) {
        return Err(format!(
            "the door's configuration does not allow it: link.orders lacks \"{order}\""
        ));
    }
    Ok(order)
}
