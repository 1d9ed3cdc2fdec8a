//! Scenes as text, and the events that they expect.

use facelatch::access::event::Event;
use std::fmt::{self, Write};
use std::time::Duration;

/// A timed line of a scene, with its number in the file and its time in milliseconds.
pub struct Line {
    pub number: usize,
    pub at: u64,
    pub words: String,
}

pub struct Scene {
    pub name: String,
    pub config: String,
    pub people: Vec<String>,
    pub lines: Vec<Line>,
    pub never: Vec<String>,
}

pub fn scenes(text: &str) -> Result<Vec<Scene>, String> {
    let mut scenes: Vec<Scene> = vec![];
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix("# ") {
            let name = name.trim().to_owned();
            let (config, people, lines, never) = (String::new(), vec![], vec![], vec![]);
            scenes.push(Scene { name, config, people, lines, never });
            continue;
        }
        let fault = |fault: &str| format!("line {number}: {fault}: {line}");
        let scene = scenes.last_mut().ok_or_else(|| fault("no scene yet"))?;
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim();
        match first {
            "set" => writeln!(scene.config, "{rest}").map_err(|e| e.to_string())?,
            "people" => scene.people.extend(rest.split_whitespace().map(str::to_owned)),
            "never" => scene.never.push(rest.to_owned()),
            time => {
                let seconds: f64 = time.parse().map_err(|_| fault("no time"))?;
                let at = (seconds * 1000.0).round() as u64;
                if scene.lines.last().is_some_and(|last| last.at > at) {
                    return Err(fault("time runs backwards"));
                }
                scene.lines.push(Line { number, at, words: rest.to_owned() });
            }
        }
    }
    Ok(scenes)
}

/// A kind of event, and values that some fields of its JSON must have.
pub struct Expected {
    kind: String,
    fields: Vec<(String, String)>,
}

impl Expected {
    /// Reads `KIND [FIELD=VALUE]...`; a kind may have several words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut expected = Self { kind: String::new(), fields: vec![] };
        let mut rest = text.trim();
        while !rest.is_empty() {
            let word = rest.split(' ').next().unwrap_or(rest);
            let Some((field, value)) = word.split_once('=') else {
                if !expected.fields.is_empty() {
                    return Err(format!("{word:?}: expected FIELD=VALUE"));
                }
                if !expected.kind.is_empty() {
                    expected.kind.push(' ');
                }
                expected.kind.push_str(word);
                rest = rest[word.len()..].trim_start();
                continue;
            };
            let after = &rest[field.len() + 1..];
            let (value, left) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').ok_or("a quote is not closed")?,
                None => (value, &after[value.len()..]),
            };
            expected.fields.push((field.to_owned(), value.to_owned()));
            rest = left.trim_start();
        }
        Ok(expected)
    }

    pub fn fits(&self, event: &Event) -> bool {
        let json = event.to_json(Duration::ZERO);
        let is = |(field, value): &(String, String)| {
            let field = &json[field.as_str()];
            let number = field.to_string();
            field.as_str().unwrap_or(&number) == value
        };
        event.kind() == self.kind && self.fields.iter().all(is)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        self.fields.iter().try_for_each(|(field, value)| write!(f, " {field}={value:?}"))
    }
}
