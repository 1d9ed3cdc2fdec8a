//! Secret keys of 32 bytes.

use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The system gives no random numbers.
#[derive(Debug, Error)]
#[error("the system gives no random numbers: {0}; try again")]
pub struct EntropyError(getrandom::Error);

/// A secret key of 32 bytes. Its memory is overwritten when it is dropped, and it is never
/// printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Secret {
    /// A key of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key from the system's random numbers.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn random() -> Result<Self, EntropyError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(EntropyError)?;
        Ok(Self(bytes))
    }

    /// The bytes of the key, for those who store it.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose (HKDF-SHA-256, RFC 5869). Keys of different purposes tell
    /// nothing about each other or about this one.
    pub fn derive(&self, purpose: &str) -> Self {
        let mut bytes = [0; 32];
        // Fails only for more than 255 blocks; this is one.
        let done = Hkdf::<Sha256>::new(None, &self.0).expand(purpose.as_bytes(), &mut bytes);
        debug_assert!(done.is_ok());
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_have_different_keys() {
        let key = Secret::new([7; 32]);
        assert_eq!(key.derive("gallery"), key.derive("gallery"));
        assert_ne!(key.derive("gallery"), key.derive("audit"));
        assert_ne!(key.derive("gallery"), key);
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new([0xab; 32])), "Secret(hidden)");
    }

    #[test]
    fn random_secrets_differ() {
        let random = || Secret::random().expect("random numbers");
        assert_ne!(random(), random());
    }
}
