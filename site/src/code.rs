//! The code with which a door joins a site: 100 random bits in groups of letters and digits,
//! typed once, good for minutes. It proves to the office that the request comes from who was
//! given the code; the site's key in the door's configuration proves the office to the door.

use facelatch_crypto::{EntropyError, Sealer, Secret};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Crockford's base 32: without letters that look like digits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Digits of a code.
const LENGTH: usize = 20;
/// Digits of a group.
const GROUP: usize = 5;
/// How long a code is good, milliseconds.
pub const CODE_MS: u64 = 10 * 60 * 1_000;

/// A code.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Code([u8; LENGTH]);

/// A text is no code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no code: it has four groups of five letters and digits, as the office shows it")]
pub struct CodeError;

impl Code {
    /// A new code.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn random() -> Result<Self, EntropyError> {
        let random = Secret::random()?;
        Ok(Self(std::array::from_fn(|at| random.bytes()[at] % 32)))
    }

    /// What seals a request to join.
    pub(crate) fn sealer(&self) -> Sealer {
        let digest: [u8; 32] = Sha256::digest(self.0).into();
        Sealer::new(&Secret::new(digest).derive("facelatch site join"))
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(hidden)")
    }
}

/// Four groups of five, with hyphens.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, digit) in self.0.iter().enumerate() {
            let hyphen = if at > 0 && at % GROUP == 0 { "-" } else { "" };
            write!(f, "{hyphen}{}", char::from(DIGITS[usize::from(*digit)]))?;
        }
        Ok(())
    }
}

/// Takes capitals, other separators and letters that look like digits.
impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let mut digits = [0; LENGTH];
        let mut count = 0;
        for letter in text.bytes().filter(|letter| !matches!(letter, b'-' | b' ')) {
            let letter = match letter.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                letter => letter,
            };
            let digit = DIGITS.iter().position(|digit| *digit == letter).ok_or(CodeError)?;
            *digits.get_mut(count).ok_or(CodeError)? = digit as u8;
            count += 1;
        }
        if count == LENGTH { Ok(Self(digits)) } else { Err(CodeError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_code_is_read_as_it_is_shown() {
        let code = Code::random().expect("random numbers");
        let text = code.to_string();
        assert_eq!(text.len(), 23);
        assert_eq!(text.parse(), Ok(code.clone()));
        assert_eq!(text.to_uppercase().replace('-', " ").parse(), Ok(code.clone()));
        assert_eq!(text.replace('0', "O").replace('1', "l").parse(), Ok(code));
        assert_ne!(Code::random().expect("random numbers").to_string(), text);
        assert_eq!(text[1..].parse::<Code>(), Err(CodeError));
        assert_eq!(format!("{text}0").parse::<Code>(), Err(CodeError));
    }

    proptest! {
        #[test]
        fn any_text_is_a_code_or_an_error(text in ".{0,40}") {
            let _ = text.parse::<Code>();
        }
    }
}
