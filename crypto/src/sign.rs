//! Signatures (ed25519, RFC 8032). Public keys are written as OpenSSH writes them, so that
//! keys made by `ssh-keygen -t ed25519` and held by its agent serve as well.

use super::Secret;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::Signer as _;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Bytes of a signature.
pub const SIGNATURE: usize = 64;

/// A signature.
pub type Signature = [u8; SIGNATURE];

/// Name of the algorithm in OpenSSH's texts.
const ALGORITHM: &str = "ssh-ed25519";

/// Longest text of a public key, bytes.
const LONGEST_TEXT: usize = 1000;

/// A signature does not belong to the message and the key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the signature does not fit: the content was changed, or another key signed it")]
pub struct SignatureError;

/// A text is no public key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no public key; write it as in the .pub file of ssh-keygen -t ed25519: ssh-ed25519 AAAA…")]
pub struct KeyTextError;

/// What a signature covers. The purpose keeps a signature for one thing from being shown as
/// one for another.
fn message(purpose: &str, content: &[u8]) -> Vec<u8> {
    let mut message = format!("facelatch {purpose}\0").into_bytes();
    message.extend(Sha256::digest(content));
    message
}

/// The secret half of a key pair.
#[derive(Clone)]
pub struct Signer(ed25519_dalek::SigningKey);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public().fingerprint())
    }
}

impl Signer {
    /// The pair that follows from a secret.
    pub fn new(secret: &Secret) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(secret.bytes()))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs content for a purpose, such as "audit head".
    pub fn sign(&self, purpose: &str, content: &[u8]) -> Signature {
        self.0.sign(&message(purpose, content)).to_bytes()
    }
}

/// The public half of a key pair.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// The key of these 32 bytes. `None` if they are no key, or one for which everybody can
    /// make signatures.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// The 32 bytes of the key.
    pub fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Verifies a signature.
    ///
    /// # Errors
    /// If the signature was made by another key, or for another content or purpose.
    pub fn verify(
        &self,
        purpose: &str,
        content: &[u8],
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(&message(purpose, content), &signature).map_err(|_| SignatureError)
    }

    /// The bytes that a signature for this content and purpose is made over, for keys that
    /// an agent holds.
    pub fn to_sign(purpose: &str, content: &[u8]) -> Vec<u8> {
        message(purpose, content)
    }

    /// The key as OpenSSH encodes it: name and key, each after its length (RFC 4253, 6.6;
    /// RFC 8709).
    pub fn ssh_blob(&self) -> Vec<u8> {
        let mut blob = (ALGORITHM.len() as u32).to_be_bytes().to_vec();
        blob.extend(ALGORITHM.as_bytes());
        blob.extend(32u32.to_be_bytes());
        blob.extend(self.bytes());
        blob
    }

    /// Short name of the key, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(self.ssh_blob())))
    }
}

/// As in OpenSSH's `.pub` files, without a comment.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM} {}", STANDARD.encode(self.ssh_blob()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// Takes one line of an OpenSSH `.pub` file; a comment after the key is allowed.
impl FromStr for PublicKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let mut words = text.split_ascii_whitespace();
        let (Some(ALGORITHM), Some(blob), true) =
            (words.next(), words.next(), text.len() <= LONGEST_TEXT)
        else {
            return Err(KeyTextError);
        };
        let blob = STANDARD.decode(blob).map_err(|_| KeyTextError)?;
        let bytes = blob.last_chunk::<32>().ok_or(KeyTextError)?;
        let key = Self::from_bytes(bytes).ok_or(KeyTextError)?;
        if key.ssh_blob() == blob { Ok(key) } else { Err(KeyTextError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer(key: u8) -> Signer {
        Signer::new(&Secret::new([key; 32]))
    }

    proptest! {
        #[test]
        fn a_signature_holds_for_its_content_purpose_and_key_only(
            content in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let signature = signer(1).sign("head", &content);
            let verify = |key, purpose, content: &[u8], signature: &Signature| {
                signer(key).public().verify(purpose, content, signature)
            };
            prop_assert_eq!(verify(1, "head", &content, &signature), Ok(()));
            prop_assert_eq!(verify(2, "head", &content, &signature), Err(SignatureError));
            prop_assert_eq!(verify(1, "tail", &content, &signature), Err(SignatureError));
            let longer = [&content[..], &[0]].concat();
            prop_assert_eq!(verify(1, "head", &longer, &signature), Err(SignatureError));
            let mut changed = signature;
            changed[at.index(SIGNATURE)] ^= 1 << bit;
            prop_assert_eq!(verify(1, "head", &content, &changed), Err(SignatureError));
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text in "(ssh-ed25519 )?[A-Za-z0-9+/=]{0,100}( .*)?") {
            let _ = text.parse::<PublicKey>();
        }
    }

    #[test]
    fn keys_are_written_as_openssh_writes_them() {
        // From `ssh-keygen -t ed25519`, and `ssh-keygen -l` of it.
        let text =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKNEqwoZai8T7U0ScclarbmIAHRSQu6c8RJOwbacrQc7";
        let key: PublicKey = format!("{text} office@example").parse().expect("a key");
        assert_eq!(key.to_string(), text);
        assert_eq!(key.fingerprint(), "SHA256:Cu/bylvuSxXG+pYQ6Sh/g0lAyPC3alsX2EP5hbOsB0w");
        assert!("ssh-rsa AAAA".parse::<PublicKey>().is_err());
    }

    #[test]
    fn a_key_for_which_everybody_can_sign_is_none() {
        assert!(PublicKey::from_bytes(&[0; 32]).is_none());
        let mut one = [0; 32];
        one[0] = 1;
        assert!(PublicKey::from_bytes(&one).is_none());
    }
}
