//! What an order brought.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What an order brought: in words, and for programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// In words.
    pub text: String,
    /// For programs: an object.
    pub json: Value,
    /// Whether it was done.
    pub good: bool,
    /// Whether the answer comes later.
    pub wait: bool,
}

impl Answer {
    /// It was done.
    pub fn done(text: &str, json: Value) -> Self {
        Self { text: text.to_owned(), json, good: true, wait: false }
    }

    /// It was not done, for this reason.
    pub fn failed(reason: &str) -> Self {
        let json = json!({ "error": reason });
        Self { text: reason.to_owned(), json, good: false, wait: false }
    }

    /// The answer comes later.
    pub(super) fn wait() -> Self {
        Self { text: String::new(), json: json!({}), good: true, wait: true }
    }
}
