//! `[link]`: the socket for the program that links this door to others, and what it may hear
//! and order.

use super::fault::Fault;
use super::roles::is_user;
use facelatch_messages::LinkOrder;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// User of the packaged program.
pub const LINK_USER: &str = "facelatch-link";

/// How people are named to the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkNames {
    /// Not at all: events say that somebody came, and not who.
    #[default]
    None,
    /// By a short text that is always the same for a person, and says nothing about them.
    Pseudonym,
    /// By name, and by their number in the gallery.
    Name,
}

/// `[link]`: the socket for the program that links this door to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table like [link]")]
pub struct LinkConfig {
    /// The socket; `None` if there is no link.
    pub socket: Option<PathBuf>,
    /// User who is served there, besides root and the service's own user: a name or a number.
    pub user: String,
    /// Orders that the link may pass on.
    pub orders: Vec<LinkOrder>,
    /// How people are named to the link.
    pub names: LinkNames,
    /// Whether the link hears of duress.
    pub duress: bool,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            socket: None,
            user: LINK_USER.to_owned(),
            orders: Vec::new(),
            names: LinkNames::None,
            duress: false,
        }
    }
}

impl super::Config {
    /// Checks this table.
    pub(super) fn check_link(&self) -> Result<(), Fault> {
        let LinkConfig { socket, user, orders, .. } = &self.link;
        if !is_user(user) {
            let shown: String = user.chars().take(64).collect();
            let fault = format!("= {shown:?}: expected the name or number of one user");
            return Err(Fault::of("link.user", &fault));
        }
        if let Some(twice) = (1..orders.len()).find(|at| orders[..*at].contains(&orders[*at])) {
            let fault = format!("has \"{}\" twice", orders[twice]);
            return Err(Fault::of("link.orders", &fault));
        }
        if let Some(socket) = socket
            && Some(socket) == self.service.status_socket.as_ref()
        {
            let fault =
                "is the path of service.status_socket as well; give the link one of its own";
            return Err(Fault::of("link.socket", fault).or_at("service.status_socket"));
        }
        Ok(())
    }

    /// Advice about a link that may do more or hears more than most doors need.
    pub(super) fn advise_link(&self, advice: &mut Vec<Fault>) {
        let LinkConfig { socket, user, orders, duress, .. } = &self.link;
        if socket.is_none() {
            if self.link != LinkConfig::default() {
                let text = "is not set, so the other settings of [link] have no effect";
                let set = if orders.is_empty() { "link.names" } else { "link.orders" };
                advice.push(Fault::of("link.socket", text).or_at(set));
            }
            return;
        }
        if ["root", "0"].contains(&user.as_str()) {
            let text = "is root: a program that speaks to a network should not be; make a user \
                        for it";
            advice.push(Fault::of("link.user", text));
        }
        if orders.contains(&LinkOrder::AlwaysOpen) {
            let text = "has \"always-open\": whoever takes over the broker or the link can leave \
                        the door open until somebody notices; \"open\" opens it once";
            advice.push(Fault::of("link.orders", text));
        }
        if orders.contains(&LinkOrder::Lockdown) && !orders.contains(&LinkOrder::Normal) {
            let text = "has \"lockdown\" without \"normal\": somebody has to end a lockdown at the \
                        board, with facelatch door normal";
            advice.push(Fault::of("link.orders", text));
        }
        if *duress && self.door.duress == crate::access::gesture::DuressGesture::Off {
            let text = "is true, but door.duress is \"off\", so no duress is ever reported";
            advice.push(Fault::of("link.duress", text).or_at("door.duress"));
        }
        if *duress && self.door.duress != crate::access::gesture::DuressGesture::Off {
            let text = "is true: what shows in a place that the attacker sees endangers the \
                        victim; make sure that nothing near the door reacts to it";
            advice.push(Fault::of("link.duress", text));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, LinkNames};
    use facelatch_messages::LinkOrder;
    use std::path::Path;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("facelatch.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn without_settings_there_is_no_link_and_it_may_nothing() {
        let link = Config::default().link;
        assert_eq!((link.socket, link.orders.len(), link.duress), (None, 0, false));
        assert_eq!(link.names, LinkNames::None);
        assert!(Config::default().advice().is_empty());
    }

    #[test]
    fn orders_are_those_of_the_door_and_named_once() {
        let config = parse("[link]\norders = [\"open\", \"always-open\"]").expect("orders");
        assert_eq!(config.link.orders, [LinkOrder::Open, LinkOrder::AlwaysOpen]);
        for (text, expected) in [
            ("orders = [\"opne\"]", "did you mean \"open\""),
            ("orders = [\"reload\"]", "expected \"open\""),
            ("orders = [\"open\", \"open\"]", "link.orders has \"open\" twice"),
            ("user = \"\"", "link.user = \"\""),
            ("user = \"@staff\"", "one user"),
            ("user = \"*\"", "one user"),
            ("names = \"all\"", "pseudonym"),
        ] {
            let message = parse(&format!("[link]\n{text}")).expect_err(text);
            assert!(message.contains(expected), "{message}");
        }
        let same = "[service]\nstatus_socket = \"/s\"\n[link]\nsocket = \"/s\"";
        assert!(parse(same).expect_err("one path").contains("one of its own"));
    }

    #[test]
    fn wide_links_get_advice() {
        for (text, expected) in [
            ("orders = [\"open\"]", "is not set"),
            ("socket = \"/s\"\nuser = \"root\"", "make a user"),
            ("socket = \"/s\"\norders = [\"always-open\"]", "until somebody notices"),
            ("socket = \"/s\"\norders = [\"lockdown\"]", "without \"normal\""),
            ("socket = \"/s\"\nduress = true", "door.duress is \"off\""),
            ("socket = \"s\"", "relative path"),
        ] {
            let advice = parse(&format!("[link]\n{text}")).expect(text).advice();
            assert!(
                matches!(&advice[..], [one] if one.to_string().contains(expected)),
                "{text}: {advice:?}"
            );
        }
        let text = "[link]\nsocket = \"/s\"\norders = [\"open\", \"lockdown\", \"normal\"]";
        assert!(parse(text).expect(text).advice().is_empty());
    }
}
