//! `[site]`: the site whose people, groups and rules this door shares.

use super::fault::Fault;
use crate::access::SitePeople;
use crate::crypto::PublicKey;
use serde::{Deserialize, Serialize};

/// Keys that a site may set.
const RULES: [&str; 2] = ["groups", "schedule.holidays"];
/// Longest name of a door, characters.
const LONGEST_NAME: usize = 100;

/// What holds for people of the site when the door has not heard from it for longer than the
/// site allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseEnd {
    /// They come in as before.
    Keep,
    /// Only administrators come in.
    #[default]
    AdministratorsOnly,
    /// None of them comes in.
    RefuseSitePeople,
}

impl LeaseEnd {
    /// Whom the door lets in then.
    pub fn people(self) -> SitePeople {
        match self {
            Self::Keep => SitePeople::All,
            Self::AdministratorsOnly => SitePeople::Administrators,
            Self::RefuseSitePeople => SitePeople::Nobody,
        }
    }
}

/// `[site]`: the site that the door belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [site]")]
pub struct SiteConfig {
    /// Public key of the site, as in OpenSSH's `.pub` files; `None` if the door is in none.
    pub key: Option<String>,
    /// Name of the door at the site; the name of the board without this.
    pub door: Option<String>,
    /// What holds when the site was not heard for too long.
    pub on_lease_end: LeaseEnd,
}

impl super::Config {
    /// Checks this table.
    pub(super) fn check_site(&self) -> Result<(), Fault> {
        let SiteConfig { key, door, .. } = &self.site;
        if let Some(key) = key {
            key.parse::<PublicKey>().map_err(|fault| {
                let shown: String = key.chars().take(64).collect();
                Fault::of("site.key", &format!("= {shown:?}: {fault}"))
            })?;
        }
        if let Some(door) = door
            && (door.trim().is_empty()
                || door.chars().count() > LONGEST_NAME
                || door.chars().any(char::is_control))
        {
            let shown: String = door.chars().take(LONGEST_NAME).collect();
            let fault = format!("= {shown:?}: expected a name of 1 to {LONGEST_NAME} characters");
            return Err(Fault::of("site.door", &fault));
        }
        Ok(())
    }

    /// The key of the site; `None` if the door is in none.
    pub fn site_key(&self) -> Option<PublicKey> {
        // Checked when the configuration was read.
        self.site.key.as_ref().and_then(|key| key.parse().ok())
    }

    /// This configuration with the rules of the site laid over it: its groups in place of
    /// those of the file, its holidays beside them. An empty text changes nothing.
    ///
    /// # Errors
    /// If the text is no configuration, or has keys other than groups and holidays.
    pub fn with_site_rules(&self, text: &str) -> Result<Self, super::ConfigError> {
        let path = std::path::Path::new("rules of the site");
        let rules = Self::parse(path, text)?;
        let default = Self::default();
        let other = default.changed(&rules).find(|key| !RULES.contains(&key.name));
        if let Some(key) = other {
            return Err(super::ConfigError::Invalid {
                path: path.to_owned(),
                at: None,
                reason: format!(
                    "{} cannot be set for a site; it sets groups and holidays",
                    key.name
                ),
            });
        }
        let mut config = self.clone();
        if !rules.groups.is_empty() {
            config.groups = rules.groups;
        }
        for holiday in rules.schedule.holidays {
            if !config.schedule.holidays.contains(&holiday) {
                config.schedule.holidays.push(holiday);
            }
        }
        Ok(config)
    }

    /// Advice about a site that cannot be heard.
    pub(super) fn advise_site(&self, advice: &mut Vec<Fault>) {
        if self.site.key.is_some() && self.link.socket.is_none() {
            let text = "is set, but link.socket is not: nothing of the site reaches this door";
            advice.push(Fault::of("site.key", text));
        }
        if self.site.key.is_some() && self.site.on_lease_end == LeaseEnd::Keep {
            let text = "is \"keep\": whoever cuts the door from its network keeps out the news \
                        that somebody was removed";
            advice.push(Fault::of("site.on_lease_end", text));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    const KEY: &str = "ssh-ed25519 \
        AAAAC3NzaC1lZDI1NTE5AAAAIKNEqwoZai8T7U0ScclarbmIAHRSQu6c8RJOwbacrQc7 office";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("facelatch.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_ways_before_sites_are_refused_with_the_new_one() {
        for text in ["[door]\nneighbours = [\"/run/a.sock\"]", "[roles]\nneighbour = [\"ada\"]"] {
            let message = parse(text).expect_err(text);
            assert!(message.contains("no longer a key") && message.contains("[site]"), "{message}");
        }
    }

    #[test]
    fn a_site_sets_groups_and_holidays_and_nothing_else() {
        let own = parse("[groups.cleaners]\n[schedule]\nholidays = [\"12-25\"]").expect("one");
        assert_eq!(own.with_site_rules("").expect("no rules"), own);
        let text = "[groups.staff]\nhours = [\"07:00-19:00\"]\nclock_unsure = \"admit\"\n\
                    [schedule]\nholidays = [\"12-25\", \"01-01\"]";
        let with = own.with_site_rules(text).expect("rules");
        assert_eq!(with.groups.keys().collect::<Vec<_>>(), ["staff"]);
        assert_eq!(with.schedule.holidays.len(), 2);
        assert_eq!(with.door, own.door);
        for text in ["[door]\nopen_for = \"50s\"", "[roles]\norder = [\"*\"]", "x = 1", "["] {
            assert!(own.with_site_rules(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_site_is_a_key_that_can_be_heard() {
        assert!(Config::default().site_key().is_none());
        let text = format!("[site]\nkey = {KEY:?}\n[link]\nsocket = \"/l\"");
        let config = parse(&text).expect("a site");
        assert!(config.site_key().is_some() && config.advice().is_empty());
        let advice = parse(&format!("[site]\nkey = {KEY:?}")).expect("a site").advice();
        assert!(matches!(&advice[..], [one] if one.to_string().contains("nothing of the site")));
        let keep = text.replace("[link]", "on_lease_end = \"keep\"\n[link]");
        let advice = parse(&keep).expect("a site").advice();
        assert!(matches!(&advice[..], [one] if one.to_string().contains("was removed")), "{keep}");
        for (text, expected) in [
            ("key = \"ssh-rsa AAAA\"", "ssh-keygen -t ed25519"),
            ("key = \"\"", "no public key"),
            ("door = \"\"", "1 to 100"),
            ("on_lease_end = \"open\"", "administrators-only"),
        ] {
            let message = parse(&format!("[site]\n{text}")).expect_err(text);
            assert!(message.contains(expected), "{message}");
        }
    }
}
