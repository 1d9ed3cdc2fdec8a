//! A configuration with the origin of each setting.

use super::fault::Places;
use super::{Config, ConfigError, Fault, KEYS, Position, read, text_of};
use crate::hardware::camera::redacted;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// A configuration with the origin of each setting.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The settings, defaults included.
    pub config: Config,
    /// The file; `None` for defaults only.
    pub path: Option<PathBuf>,
    /// Settings in the file, by name, with their position.
    pub set: BTreeMap<String, Position>,
    /// Advice on settings that are probably a mistake, with the position in the file.
    pub advice: Vec<(Fault, Option<Position>)>,
}

impl Effective {
    /// Reads and checks the file; without one every setting has its default.
    ///
    /// # Errors
    /// As for [`Config::read`].
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Self::parse(path, &text_of(path)?),
            None => Ok(Self {
                config: Config::default(),
                path: None,
                set: BTreeMap::new(),
                advice: Vec::new(),
            }),
        }
    }

    /// Reads and checks a text; `path` appears in error messages.
    ///
    /// # Errors
    /// As for [`Config::parse`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let read = read(path, text)?;
        let settings = read.places.settings();
        let set = settings
            .iter()
            .map(|place| (place.key.clone(), Position::of(text, place.name.start)))
            .collect();
        let advice = read.config.advice();
        let advice = advice.into_iter().map(|fault| {
            let at = read.position(text, &fault);
            (fault, at)
        });
        let advice = advice.collect();
        Ok(Self { path: Some(path.to_owned()), set, advice, config: read.config })
    }

    /// Advice as lines: path, line, column, text.
    pub fn advised(&self) -> impl Iterator<Item = String> {
        let path = self.path.as_deref().unwrap_or(Path::new("defaults")).display();
        self.advice.iter().map(move |(fault, at)| match at {
            Some(at) => format!("{path}:{at}: {fault}"),
            None => format!("{path}: {fault}"),
        })
    }

    /// As TOML that reads back as the same configuration, except that secrets in the camera's
    /// URI are replaced by `***`. Comments name the origin of each setting and list the
    /// settings that are not set.
    ///
    /// # Errors
    /// If a setting cannot be written as TOML, such as a path that is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        let Config {
            camera,
            relay,
            gpio,
            lights,
            door,
            recognition,
            liveness,
            enroll,
            lockout,
            schedule,
            groups,
            gallery,
            audit,
            models,
            service,
            roles,
            link,
            site,
        } = &shown(&self.config);
        let mut tables = vec![
            self.table("camera", camera)?,
            self.table("relay", relay)?,
            self.table("gpio", gpio)?,
            self.table("lights", lights)?,
            self.table("door", door)?,
            self.table("recognition", recognition)?,
            self.table("liveness", liveness)?,
            self.table("enroll", enroll)?,
            self.table("lockout", lockout)?,
            self.table("schedule", schedule)?,
        ];
        for group in groups {
            tables.push(self.table("groups", BTreeMap::from([group]))?);
        }
        tables.push(self.table("gallery", gallery)?);
        tables.push(self.table("audit", audit)?);
        tables.push(self.table("models", models)?);
        tables.push(self.table("service", service)?);
        tables.push(self.table("roles", roles)?);
        tables.push(self.table("link", link)?);
        tables.push(self.table("site", site)?);
        Ok(tables.join("\n"))
    }

    fn table(&self, name: &str, content: impl Serialize) -> Result<String, ConfigError> {
        let wrong = |reason: String| ConfigError::Write { reason };
        let mut text = toml::to_string(&BTreeMap::from([(name, content)]))
            .map_err(|error| wrong(error.to_string()))?;
        let parsed = DeTable::parse(&text).map_err(|error| wrong(error.to_string()))?;
        let places = Places::of(parsed.get_ref());
        drop(parsed);
        // Backwards, so that insertions do not move the places still to come.
        for place in places.settings().iter().rev() {
            text.insert_str(place.value.end, &format!("  # {}", self.origin(&place.key)));
        }
        let unset = KEYS.iter().map(|key| key.name).filter(|key| {
            key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
                && places.named(key).is_none()
        });
        for key in unset {
            let last = key.rsplit('.').next().unwrap_or(key);
            match self.instead(key) {
                Some(path) => text += &format!("# {last} = {path:?}  # default here\n"),
                None => text += &format!("# {last} is not set\n"),
            }
        }
        Ok(text)
    }

    /// File and line of a setting, or "default".
    fn origin(&self, key: &str) -> String {
        match (&self.path, self.set.get(key)) {
            (Some(path), Some(at)) => {
                // Control characters in a file name would end the comment.
                let path = path.display().to_string().replace(char::is_control, "?");
                format!("{path}:{}", at.line)
            }
            _ => "default".to_owned(),
        }
    }

    /// The path used when this key is not set; `None` if nothing replaces it.
    fn instead(&self, key: &str) -> Option<PathBuf> {
        match key {
            "gallery.file" => Some(self.config.gallery_file()),
            "models.folder" => Some(self.config.model_store()),
            "service.status_socket" => Some(self.config.status_socket()),
            _ => None,
        }
    }

    /// As JSON: `file`; `config` with all settings, without secrets in the camera's URI; `set` with line and column of the
    /// settings in the file; `instead` with the paths used for settings that are not set.
    ///
    /// # Errors
    /// If a setting cannot be written as JSON, such as a path that is not UTF-8.
    pub fn to_json(&self) -> Result<Value, ConfigError> {
        let settings = serde_json::to_value(shown(&self.config))
            .map_err(|error| ConfigError::Write { reason: error.to_string() })?;
        let set: BTreeMap<_, _> =
            self.set.iter().map(|(key, at)| (key, [at.line, at.column])).collect();
        let instead: BTreeMap<_, _> = KEYS
            .iter()
            .filter(|key| !self.set.contains_key(key.name))
            .filter_map(|key| Some((key.name, self.instead(key.name)?)))
            .collect();
        Ok(json!({ "file": self.path, "config": settings, "set": set, "instead": instead }))
    }
}

/// The configuration as more people may see it than may know the camera's password.
pub(super) fn shown(config: &Config) -> Config {
    let mut shown = config.clone();
    shown.camera.uri = shown.camera.uri.as_deref().map(redacted);
    shown
}
