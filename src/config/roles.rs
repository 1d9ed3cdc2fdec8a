//! `[roles]`: who may do what over the control socket.

use super::fault::Fault;
use serde::{Deserialize, Serialize};

/// Most entries of one list, so that looking a user up stays cheap.
const MOST_ENTRIES: usize = 64;
/// Longest name of a user or group, bytes. Linux allows 32; directories of users more.
const LONGEST_NAME: usize = 64;
/// The entry for everybody who may connect to the socket.
pub const EVERYBODY: &str = "*";

/// `[roles]`: users and groups per role. Root and the service's own user are always
/// administrators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [roles]")]
pub struct RolesConfig {
    /// May query the status.
    pub read: Vec<String>,
    /// May open the door and change its mode, and query the status.
    pub order: Vec<String>,
    /// May do all that `read` and `order` may, reload the configuration, and begin a local
    /// reset.
    pub administrator: Vec<String>,
}

impl Default for RolesConfig {
    fn default() -> Self {
        let (order, administrator) = (Vec::new(), Vec::new());
        Self { read: vec![EVERYBODY.to_owned()], order, administrator }
    }
}

impl RolesConfig {
    /// The lists with their keys.
    pub fn lists(&self) -> [(&'static str, &[String]); 3] {
        [
            ("roles.read", &self.read),
            ("roles.order", &self.order),
            ("roles.administrator", &self.administrator),
        ]
    }
}

impl super::Config {
    /// Checks the form of the entries of this table.
    pub(super) fn check_roles(&self) -> Result<(), Fault> {
        for (key, list) in self.roles.lists() {
            if list.len() > MOST_ENTRIES {
                let fault = format!(
                    "has {} entries: expected at most {MOST_ENTRIES}; name a group instead",
                    list.len()
                );
                return Err(Fault::of(key, &fault));
            }
            if let Some(wrong) = list.iter().find(|entry| !is_entry(entry)) {
                let shown: String = wrong.chars().take(LONGEST_NAME).collect();
                return Err(Fault::of(
                    key,
                    &format!(
                        "has {shown:?}: expected the name or number of a user, a group as \
                         \"@staff\", or \"*\" for everybody who may connect"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Advice about roles that are wider or narrower than the door needs.
    pub(super) fn advise_roles(&self, advice: &mut Vec<Fault>) {
        let wide = [
            ("roles.order", &self.roles.order, "open the door and end lockdown"),
            ("roles.administrator", &self.roles.administrator, "give every order"),
        ];
        for (key, list, may) in wide {
            if list.iter().any(|entry| entry == EVERYBODY) {
                advice.push(Fault::of(
                    key,
                    &format!(
                        "has \"*\": every user in the socket's group may {may}; name users, or \
                         groups as \"@staff\""
                    ),
                ));
            }
        }
    }
}

/// Whether an entry has the form of a user, a group or everybody.
fn is_entry(entry: &str) -> bool {
    if entry == EVERYBODY {
        return true;
    }
    let name = entry.strip_prefix('@').unwrap_or(entry);
    let allowed = |c: char| c.is_alphanumeric() || "_.-$+@\\".contains(c);
    let first = name.chars().next();
    name.len() <= LONGEST_NAME
        && first.is_some_and(|c| c.is_alphanumeric() || c == '_')
        && name.chars().all(allowed)
        && (!name.bytes().all(|byte| byte.is_ascii_digit()) || name.parse::<u32>().is_ok())
}

/// Whether a text has the form of one user.
pub(super) fn is_user(text: &str) -> bool {
    is_entry(text) && text != EVERYBODY && !text.starts_with('@')
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("facelatch.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn users_groups_numbers_and_everybody_are_entries() {
        let text = "[roles]\nread = [\"*\"]\norder = [\"ada\", \"@staff\", \"1001\", \"@27\"]\n\
                    administrator = [\"_svc\", \"web-1.x\"]";
        let config = parse(text).expect(text);
        assert_eq!(config.roles.order.len(), 4);
        for entry in ["", "@", "@*", "ada lovelace", "a:b", "a\\nb", "-x", "4294967296", "%staff"] {
            let text = format!("[roles]\norder = [\"{entry}\"]");
            let message = parse(&text).expect_err(&text);
            assert!(message.contains("roles.order has"), "{message}");
        }
        let many = format!("[roles]\nread = [{}]", "\"a\",".repeat(65));
        assert!(parse(&many).expect_err("too many").contains("at most 64"));
    }

    #[test]
    fn wide_roles_get_advice() {
        for (text, expected) in [
            ("[roles]\norder = [\"*\"]", "end lockdown"),
            ("[roles]\nadministrator = [\"ada\", \"*\"]", "every order"),
        ] {
            let advice = parse(text).expect(text).advice();
            assert!(
                matches!(&advice[..], [one] if one.to_string().contains(expected)),
                "{text}: {advice:?}"
            );
        }
    }
}
