//! Which camera is trusted: the first one that was opened, until another is accepted.

use crate::hardware::camera::Identity;

/// Another camera answers than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The camera that was there at first, or that was accepted last.
    pub before: Identity,
    /// The camera that is there now.
    pub now: Identity,
}

/// The camera whose frames are trusted, and the one that is open.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    accepted: Option<Identity>,
    open: Option<Identity>,
}

impl Trust {
    /// Takes the identity of a camera that was opened. The first one is trusted.
    pub fn opened(&mut self, identity: Option<Identity>) {
        if let Some(identity) = identity {
            self.accepted.get_or_insert_with(|| identity.clone());
            self.open = Some(identity);
        }
    }

    /// The two cameras, while the one that is open is not trusted.
    pub fn changed(&self) -> Option<Changed> {
        let (before, now) = (self.accepted.as_ref()?, self.open.as_ref()?);
        (before != now).then(|| Changed { before: before.clone(), now: now.clone() })
    }

    /// Trusts the camera that is open.
    pub fn accept(&mut self) {
        self.accepted.clone_from(&self.open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(model: &str, serial: Option<&str>, socket: &str) -> Identity {
        let serial = serial.map(str::to_owned);
        Identity { model: model.to_owned(), serial, socket: socket.to_owned() }
    }

    #[test]
    fn the_first_camera_is_trusted_until_another_is_accepted() {
        let first = camera("Webcam", Some("1"), "1-1");
        for other in [
            camera("Other", Some("1"), "1-1"),
            camera("Webcam", Some("2"), "1-1"),
            camera("Webcam", None, "1-1"),
            camera("Webcam", Some("1"), "1-2"),
        ] {
            let mut trust = Trust::default();
            trust.opened(None);
            assert_eq!(trust.changed(), None, "programs and files have no identity");
            trust.opened(Some(first.clone()));
            trust.opened(Some(first.clone()));
            assert_eq!(trust.changed(), None);
            trust.opened(Some(other.clone()));
            let changed = Changed { before: first.clone(), now: other.clone() };
            assert_eq!(trust.changed(), Some(changed.clone()));
            // Reopened as often as it likes.
            trust.opened(Some(other.clone()));
            assert_eq!(trust.changed(), Some(changed));
            trust.opened(Some(first.clone()));
            assert_eq!(trust.changed(), None, "the first one is back");
            trust.opened(Some(other.clone()));
            trust.accept();
            assert_eq!(trust.changed(), None);
            trust.opened(Some(first.clone()));
            assert!(trust.changed().is_some(), "the first one is the stranger now");
        }
    }
}
