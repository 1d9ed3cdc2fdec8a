//! Keys and what is done with them: sealing, signing, deriving. Pure; nothing here reads a
//! file. The algorithms come from well-known crates, and this crate fixes how they are used.

mod letter;
mod seal;
mod secret;
mod sign;

pub use letter::{LetterError, Mailbox, MailboxAddress};
pub use seal::{SealError, Sealer};
pub use secret::{EntropyError, Secret};
pub use sign::{KeyTextError, PublicKey, SIGNATURE, Signature, SignatureError, Signer};
