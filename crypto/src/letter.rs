//! Content sealed for the holder of one key: only they can open it, and it says nothing
//! about who sealed it. X25519 (RFC 7748) of a new key with the holder's one gives the key
//! of a [`Sealer`] by HKDF-SHA-256, as in RFC 9180's base mode. Signing is left to the
//! caller.

use super::{EntropyError, SealError, Sealer, Secret};
use std::fmt;
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Bytes of a public key.
const KEY: usize = 32;

/// Content cannot be sealed for somebody.
#[derive(Debug, Error)]
pub enum LetterError {
    /// The address is one for which everybody knows the key.
    #[error("the receiver's key is not usable; have a new one made")]
    Weak,
    /// There are no random numbers.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// The public half of a [`Mailbox`]: for whom content is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MailboxAddress([u8; KEY]);

/// The secret half: opens what was sealed for its address.
#[derive(Clone)]
pub struct Mailbox {
    secret: StaticSecret,
    address: MailboxAddress,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mailbox(hidden)")
    }
}

impl MailboxAddress {
    /// Bytes that sealed content is longer than the content.
    pub const OVERHEAD: usize = KEY + Sealer::OVERHEAD;

    /// The address of these 32 bytes.
    pub fn from_bytes(bytes: [u8; KEY]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the address.
    pub fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    /// Seals content for the holder of this address. It opens only with the same `place`,
    /// which is not part of the result.
    ///
    /// # Errors
    /// If the system gives no random numbers, or the address is no usable key.
    pub fn seal(&self, place: &[u8], content: &[u8]) -> Result<Vec<u8>, LetterError> {
        let once = StaticSecret::from(*Secret::random()?.bytes());
        let public = PublicKey::from(&once).to_bytes();
        let shared = once.diffie_hellman(&PublicKey::from(self.0));
        if !shared.was_contributory() {
            return Err(LetterError::Weak);
        }
        let sealer = sealer(shared.as_bytes(), &public, &self.0);
        Ok([&public[..], &sealer.seal(place, content)?].concat())
    }
}

impl Mailbox {
    /// The mailbox that follows from a secret.
    pub fn new(secret: &Secret) -> Self {
        let secret = StaticSecret::from(*secret.bytes());
        let address = MailboxAddress(PublicKey::from(&secret).to_bytes());
        Self { secret, address }
    }

    /// Its address, for those who seal.
    pub fn address(&self) -> MailboxAddress {
        self.address
    }

    /// Opens content that was sealed for this mailbox.
    ///
    /// # Errors
    /// If it was changed, or sealed for another mailbox or place.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (public, content) = sealed.split_first_chunk::<KEY>().ok_or(SealError)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(*public));
        if !shared.was_contributory() {
            return Err(SealError);
        }
        sealer(shared.as_bytes(), public, &self.address.0).open(place, content)
    }
}

/// The sealer of one letter: its key depends on both public keys.
fn sealer(shared: &[u8; KEY], once: &[u8; KEY], address: &[u8; KEY]) -> Sealer {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let purpose = format!("facelatch letter {} {}", hex(once), hex(address));
    Sealer::new(&Secret::new(*shared).derive(&purpose))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mailbox(key: u8) -> Mailbox {
        Mailbox::new(&Secret::new([key; 32]))
    }

    proptest! {
        #[test]
        fn only_its_receiver_opens_a_letter_and_only_as_it_was(
            content in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let sealed = mailbox(1).address().seal(b"place", &content).expect("sealed");
            prop_assert_eq!(sealed.len(), content.len() + MailboxAddress::OVERHEAD);
            prop_assert_eq!(&*mailbox(1).open(b"place", &sealed).expect("opened"), &content);
            prop_assert_eq!(mailbox(2).open(b"place", &sealed), Err(SealError));
            prop_assert_eq!(mailbox(1).open(b"other", &sealed), Err(SealError));
            let mut changed = sealed.clone();
            // X25519 ignores the highest bit of the key, but the sealer's key depends on it.
            changed[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(mailbox(1).open(b"place", &changed), Err(SealError));
            let cut = at.index(sealed.len());
            prop_assert_eq!(mailbox(1).open(b"place", &sealed[..cut]), Err(SealError));
        }
    }

    #[test]
    fn an_address_that_everybody_can_open_is_refused() {
        let weak = MailboxAddress::from_bytes([0; 32]);
        assert!(matches!(weak.seal(b"", b"x"), Err(LetterError::Weak)));
    }
}
