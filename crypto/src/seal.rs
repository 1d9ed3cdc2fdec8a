//! Sealing: encryption that also detects every change (XChaCha20-Poly1305, RFC 8439 with
//! the nonces of draft-irtf-cfrg-xchacha-03).

use super::{EntropyError, Secret};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a nonce. They are random: of 2^96 sealed contents two would share one.
const NONCE: usize = 24;

/// Content cannot be opened.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("it was changed, belongs to another place, or was sealed with another key")]
pub struct SealError;

/// Seals with one key.
#[derive(Clone)]
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    id: u32,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({:08x})", self.id)
    }
}

impl Sealer {
    /// Bytes that sealed content is longer than the content.
    pub const OVERHEAD: usize = NONCE + 16;

    /// A sealer with this key.
    pub fn new(key: &Secret) -> Self {
        let cipher = XChaCha20Poly1305::new(key.derive("facelatch seal").bytes().into());
        let id = key.derive("facelatch seal id");
        let [a, b, c, d, ..] = *id.bytes();
        Self { cipher, id: u32::from_le_bytes([a, b, c, d]) }
    }

    /// Number that names the key without telling anything about it. Two keys share one by
    /// chance in one of 2^32 pairs.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Seals content. It opens only with the same key and the same `place`, which is not
    /// part of the result: name in it everything that the content belongs to.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn seal(&self, place: &[u8], content: &[u8]) -> Result<Vec<u8>, EntropyError> {
        let random = Secret::random()?;
        let nonce: [u8; NONCE] = std::array::from_fn(|at| random.bytes()[at]);
        let payload = Payload { msg: content, aad: place };
        let mut sealed = nonce.to_vec();
        // Fails only for contents of 256 GiB and more.
        sealed.extend(self.cipher.encrypt(XNonce::from_slice(&nonce), payload).unwrap_or_default());
        Ok(sealed)
    }

    /// Opens sealed content.
    ///
    /// # Errors
    /// If it was changed, or sealed for another place or with another key.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, content) = sealed.split_first_chunk::<NONCE>().ok_or(SealError)?;
        let payload = Payload { msg: content, aad: place };
        self.cipher
            .decrypt(XNonce::from_slice(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| SealError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealer(key: u8) -> Sealer {
        Sealer::new(&Secret::new([key; 32]))
    }

    proptest! {
        #[test]
        fn content_opens_in_its_place_only(
            content in prop::collection::vec(any::<u8>(), 0..200),
            place in ".{0,20}",
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let sealed = sealer(1).seal(place.as_bytes(), &content).expect("sealed");
            prop_assert_eq!(sealed.len(), content.len() + Sealer::OVERHEAD);
            let open = |key, place: &str, sealed: &[u8]| sealer(key).open(place.as_bytes(), sealed);
            prop_assert_eq!(&*open(1, &place, &sealed).expect("opened"), &content);
            prop_assert_eq!(open(2, &place, &sealed), Err(SealError));
            prop_assert_eq!(open(1, &format!("{place}x"), &sealed), Err(SealError));
            let mut changed = sealed.clone();
            changed[at.index(sealed.len())] ^= 1 << bit;
            prop_assert_eq!(open(1, &place, &changed), Err(SealError));
            let cut = at.index(sealed.len());
            prop_assert_eq!(open(1, &place, &sealed[..cut]), Err(SealError));
        }
    }

    #[test]
    fn the_same_content_never_looks_the_same() {
        let seal = || sealer(1).seal(b"", b"Ada").expect("sealed");
        assert_ne!(seal(), seal());
        assert_ne!(sealer(1).id(), sealer(2).id());
    }
}
