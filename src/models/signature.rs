//! Signatures of model sets. `manifest.sig` beside the manifest holds one over the bytes of
//! the manifest, which through its digests, and through the digests in the self-test, covers
//! every file of the set.

use crate::crypto::{KeyTextError, PublicKey, Signature, SignatureError, Signer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;

/// File name of the signature in a model folder.
pub const SIGNATURE: &str = "manifest.sig";

/// Largest signature file, bytes.
pub const MAX_SIGNATURE: u64 = 4096;

/// Purpose of the signature, as [`Signer::sign`] takes it.
pub const PURPOSE: &str = "model set";

/// First line of the file.
const HEADER: &str =
    "# Signature of manifest.toml, which names every file of the set with its digest.\n";

/// A time as the manifest has it, such as "2026-11-30T18:00:00Z", from Unix seconds. `None` if
/// it is beyond the calendar.
pub fn time_text(unix: i64) -> Option<String> {
    jiff::Timestamp::from_second(unix).ok().map(|time| time.to_string())
}

/// The content of `manifest.sig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSignature {
    key: PublicKey,
    signature: Signature,
}

/// The file as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    purpose: String,
    key: String,
    signature: String,
}

impl SetSignature {
    /// Signs a manifest.
    pub fn sign(signer: &Signer, manifest: &[u8]) -> Self {
        Self { key: signer.public(), signature: signer.sign(PURPOSE, manifest) }
    }

    /// A signature over [`Self::to_sign`] that was made elsewhere, such as by an agent.
    ///
    /// # Errors
    /// If it does not fit the manifest and the key.
    pub fn made(
        key: PublicKey,
        signature: Signature,
        manifest: &[u8],
    ) -> Result<Self, SignatureError> {
        let made = Self { key, signature };
        made.verify(manifest)?;
        Ok(made)
    }

    /// The bytes that the signature of a manifest is made over.
    pub fn to_sign(manifest: &[u8]) -> Vec<u8> {
        PublicKey::to_sign(PURPOSE, manifest)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A message with what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() as u64 > MAX_SIGNATURE {
            return Err(format!("larger than {MAX_SIGNATURE} bytes"));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let Text { purpose, key, signature } =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if purpose != PURPOSE {
            return Err(format!("purpose = {purpose:?}, expected {PURPOSE:?}"));
        }
        let key = key.parse().map_err(|error| format!("key: {error}"))?;
        let signature = STANDARD.decode(&signature).ok().and_then(|bytes| bytes.try_into().ok());
        let signature = signature.ok_or("signature: expected 64 bytes in base64")?;
        Ok(Self { key, signature })
    }

    /// The key that signed.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Verifies the signature of a manifest.
    ///
    /// # Errors
    /// If the signature was made by another key, or over another manifest.
    pub fn verify(&self, manifest: &[u8]) -> Result<(), SignatureError> {
        self.key.verify(PURPOSE, manifest, &self.signature)
    }
}

/// The content of the file.
impl fmt::Display for SetSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = STANDARD.encode(self.signature);
        let key = self.key;
        write!(f, "{HEADER}purpose = \"{PURPOSE}\"\nkey = \"{key}\"\nsignature = \"{signature}\"\n")
    }
}

/// `models.trusted_keys`: the keys whose sets a door installs, with their comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedKeys(Vec<(PublicKey, String)>);

/// Longest comment of a key that is shown, characters.
const LONGEST_COMMENT: usize = 64;

impl TrustedKeys {
    /// Reads lines of OpenSSH `.pub` files.
    ///
    /// # Errors
    /// The number of the first line that is wrong, from 0, and why.
    pub fn parse(lines: &[String]) -> Result<Self, (usize, String)> {
        let mut keys: Vec<(PublicKey, String)> = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let key: PublicKey =
                line.parse().map_err(|error: KeyTextError| (at, error.to_string()))?;
            if keys.iter().any(|(other, _)| *other == key) {
                return Err((at, "is there twice; remove one".to_owned()));
            }
            let comment = line.split_ascii_whitespace().skip(2).collect::<Vec<_>>().join(" ");
            let plain = comment.chars().filter(|c| !c.is_control()).take(LONGEST_COMMENT);
            keys.push((key, plain.collect()));
        }
        Ok(Self(keys))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The comment of a key; `None` if the key is not trusted.
    pub fn comment(&self, key: &PublicKey) -> Option<&str> {
        self.0.iter().find(|(trusted, _)| trusted == key).map(|(_, comment)| comment.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use proptest::prelude::*;

    fn signer(key: u8) -> Signer {
        Signer::new(&Secret::new([key; 32]))
    }

    #[test]
    fn a_signature_comes_back_from_its_text_and_fits_one_manifest() {
        let signed = SetSignature::sign(&signer(1), b"version = 1");
        let read = SetSignature::parse(signed.to_string().as_bytes()).expect("a signature");
        assert_eq!(read, signed);
        assert_eq!(*read.key(), signer(1).public());
        assert!(read.verify(b"version = 1").is_ok());
        assert!(read.verify(b"version = 2").is_err());
        let SetSignature { signature, .. } = signed;
        assert!(SetSignature::made(signer(2).public(), signature, b"version = 1").is_err());
        assert!(SetSignature::made(signer(1).public(), signature, b"version = 1").is_ok());
    }

    #[test]
    fn faults_of_the_file_are_named() {
        let text = SetSignature::sign(&signer(1), b"x").to_string();
        let fault = |text: &str| SetSignature::parse(text.as_bytes()).expect_err("a fault");
        assert!(fault(&text.replace("model set", "audit head")).contains("purpose"));
        assert!(fault(&text.replace("ssh-ed25519", "ssh-rsa")).contains("key: "));
        assert!(fault(&format!("{text}more = 1\n")).contains("more"));
        assert!(fault(&"#".repeat(5000)).contains("larger than"));
        assert!(fault(&text[..text.len() - 20]).contains("signature"));
    }

    #[test]
    fn trusted_keys_have_their_comments_and_are_there_once() {
        let line = format!("{} office  upstairs", signer(1).public());
        let keys = TrustedKeys::parse(std::slice::from_ref(&line)).expect("a key");
        assert_eq!(keys.comment(&signer(1).public()), Some("office upstairs"));
        assert_eq!(keys.comment(&signer(2).public()), None);
        let (at, fault) = TrustedKeys::parse(&[line.clone(), line]).expect_err("twice");
        assert!(at == 1 && fault.contains("twice"), "{at} {fault}");
        let (at, _) = TrustedKeys::parse(&["ssh-rsa AAAA".to_owned()]).expect_err("no key");
        assert_eq!(at, 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_signature_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = SetSignature::parse(&bytes);
        }
    }
}
