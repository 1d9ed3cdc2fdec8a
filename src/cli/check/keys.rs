//! Checks of the keys that seal the gallery.

use super::super::key::protects;
use super::Findings;
use anyhow::Result;
use facelatch::storage::gallery::{Register, unsealed_path};
use facelatch::storage::keys::{
    Binding, DoorKeys, KeyError, KeyPlace, binding, credstore, remarks,
};
use std::io::Write;
use std::path::Path;

/// Reports where the door's key is, what that protects against, and who may read it.
pub(super) fn keys(gallery: &Path, findings: &mut Findings<impl Write>) -> Result<()> {
    let Some(register) = Register::of_user() else {
        return findings.wrong("key", KeyError::NoPlace);
    };
    let place = KeyPlace::of(&register);
    for remark in remarks(&place) {
        findings.wrong("key", remark)?;
    }
    let kept = unsealed_path(gallery);
    if kept.exists() {
        let kept = kept.display();
        findings.odd(
            "key",
            &format!("{kept}: people and faces in clear; the next start of the service removes it"),
        )?;
    }
    let keys = match DoorKeys::open(gallery, &place) {
        Ok(keys) => keys,
        // The gallery says what is wrong with it.
        Err(KeyError::None { .. }) => return Ok(()),
        Err(error) => return findings.wrong("key", error),
    };
    let text = format!("{}: {}", keys.source(), protects(keys.source()));
    let weak = keys.source().is_file() || binding(&credstore()) == Binding::Host;
    if weak { findings.odd("key", &text) } else { findings.good("key", &text) }
}
