//! What was measured.

use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

/// What was measured, in its order.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<(String, String)>,
    json: Map<String, Value>,
    faults: Vec<String>,
    as_json: bool,
}

impl Report {
    pub fn new(as_json: bool) -> Self {
        Self { as_json, ..Self::default() }
    }

    /// Adds a figure: in words, and under a key.
    pub fn add(&mut self, what: &str, figure: &str, key: &str, value: Value) {
        if !self.as_json {
            log::info!("{what}: {figure}");
        }
        self.rows.push((what.to_owned(), figure.to_owned()));
        self.json.insert(key.to_owned(), value);
    }

    pub fn seconds(&mut self, what: &str, key: &str, time: Duration) {
        let figure = if time < Duration::from_secs(1) {
            format!("{} ms", time.as_millis())
        } else {
            format!("{:.1} s", time.as_secs_f64())
        };
        self.add(what, &figure, key, json!(time.as_secs_f64()));
    }

    pub fn bytes(&mut self, what: &str, key: &str, bytes: u64) {
        let figure = match bytes {
            0..10_000 => format!("{bytes} bytes"),
            10_000..10_000_000 => format!("{} kB", bytes / 1_000),
            _ => format!("{:.1} MB", bytes as f64 / 1e6),
        };
        self.add(what, &figure, key, json!(bytes));
    }

    /// Something did not go as it should.
    pub fn fault(&mut self, text: String) {
        log::error!("{text}");
        self.faults.push(text);
    }

    pub fn good(&self) -> bool {
        self.faults.is_empty()
    }

    /// All of it.
    pub fn text(mut self) -> String {
        if self.as_json {
            self.json.insert("faults".to_owned(), json!(self.faults));
            return Value::Object(self.json).to_string();
        }
        let width = self.rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (what, figure) in &self.rows {
            let _ = writeln!(text, "{what:width$}  {figure}");
        }
        for fault in &self.faults {
            let _ = writeln!(text, "FAULT: {fault}");
        }
        text.truncate(text.trim_end().len());
        text
    }
}
