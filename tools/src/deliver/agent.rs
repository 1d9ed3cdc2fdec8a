//! A client of ssh-agent: lists keys and asks for signatures
//! (draft-ietf-sshm-ssh-agent, sections 3.5 and 3.6).

use super::sign::Reader;
use anyhow::{Context, Result, bail, ensure};
use facelatch::crypto::{PublicKey, Signature};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Message numbers.
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Largest answer, bytes, as in OpenSSH.
const LARGEST: u32 = 256 << 10;

/// A connection to an agent.
pub struct Agent(UnixStream);

/// An ed25519 key of an agent.
pub struct Held {
    /// The public half.
    pub key: PublicKey,
    /// Its comment.
    pub comment: String,
}

impl Agent {
    /// Connects to the agent that `SSH_AUTH_SOCK` names.
    ///
    /// # Errors
    /// If there is none.
    pub fn of_environment() -> Result<Self> {
        let socket = std::env::var_os("SSH_AUTH_SOCK").context(
            "no ssh-agent (SSH_AUTH_SOCK is not set); start one, or sign with --key FILE",
        )?;
        Self::at(Path::new(&socket))
    }

    /// Connects to the agent at this socket.
    ///
    /// # Errors
    /// If nothing answers there.
    pub fn at(socket: &Path) -> Result<Self> {
        UnixStream::connect(socket)
            .map(Self)
            .with_context(|| format!("{}: no ssh-agent answers", socket.display()))
    }

    /// The ed25519 keys that it holds.
    ///
    /// # Errors
    /// If it does not answer as an agent.
    pub fn keys(&mut self) -> Result<Vec<Held>> {
        let answer = self.ask(REQUEST_IDENTITIES, &[], IDENTITIES_ANSWER)?;
        let mut reader = Reader(&answer);
        let mut keys = Vec::new();
        for _ in 0..reader.number()? {
            let (blob, comment) = (reader.string()?, reader.string()?);
            // Keys of other kinds cannot sign a set.
            if let Some(key) = public(blob) {
                keys.push(Held { key, comment: String::from_utf8_lossy(comment).into_owned() });
            }
        }
        Ok(keys)
    }

    /// The key with this fingerprint, comment, public key or `.pub` file; without a name the
    /// only key.
    ///
    /// # Errors
    /// If there is no such key, or more than one.
    pub fn find(&mut self, name: Option<&str>) -> Result<PublicKey> {
        let wanted = name.and_then(|name| {
            let text = facelatch::files::read_text(Path::new(name), 16 << 10).ok();
            text.as_deref().unwrap_or(name).trim().parse::<PublicKey>().ok()
        });
        let is_wanted = |held: &Held| match (name, wanted) {
            (None, _) => true,
            (_, Some(key)) => held.key == key,
            (Some(name), None) => held.comment == name || held.key.fingerprint() == name,
        };
        let keys = self.keys()?;
        let found: Vec<&Held> = keys.iter().filter(|held| is_wanted(held)).collect();
        match &found[..] {
            [one] => Ok(one.key),
            [] if keys.is_empty() => bail!("ssh-agent holds no ed25519 key; add one with ssh-add"),
            _ => {
                let held =
                    keys.iter().map(|held| format!("{} {}", held.key.fingerprint(), held.comment));
                bail!(
                    "{} of the keys in ssh-agent fit; name one by fingerprint, comment or .pub file: {}",
                    found.len(),
                    held.collect::<Vec<_>>().join(", ")
                )
            }
        }
    }

    /// Has the agent sign `data` with a key.
    ///
    /// # Errors
    /// If it refuses or answers something else.
    pub fn sign(&mut self, key: &PublicKey, data: &[u8]) -> Result<Signature> {
        let mut request = string(&key.ssh_blob());
        request.extend(string(data));
        // No flags.
        request.extend([0; 4]);
        let answer = self.ask(SIGN_REQUEST, &request, SIGN_RESPONSE)?;
        let mut reader = Reader(Reader(&answer).string()?);
        ensure!(reader.string()? == b"ssh-ed25519", "ssh-agent signed with another kind of key");
        reader.string()?.try_into().ok().context("ssh-agent's signature has another length than 64")
    }

    fn ask(&mut self, number: u8, content: &[u8], expected: u8) -> Result<Vec<u8>> {
        let mut request = vec![number];
        request.extend(content);
        self.0.write_all(&string(&request)).context("cannot write to ssh-agent")?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length).context("ssh-agent ended the connection")?;
        let length = u32::from_be_bytes(length);
        ensure!((1..=LARGEST).contains(&length), "ssh-agent sent {length} bytes; is it an agent?");
        let mut answer = vec![0; length as usize];
        self.0.read_exact(&mut answer).context("ssh-agent ended the connection")?;
        ensure!(
            answer.remove(0) == expected,
            "ssh-agent refused; is the key locked, or was the question not confirmed?"
        );
        Ok(answer)
    }
}

/// The ed25519 key in OpenSSH's encoding.
fn public(blob: &[u8]) -> Option<PublicKey> {
    let key = PublicKey::from_bytes(blob.last_chunk()?)?;
    (key.ssh_blob() == blob).then_some(key)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    // The set's manifest and a key are far shorter than four gigabytes.
    let mut string = (bytes.len() as u32).to_be_bytes().to_vec();
    string.extend(bytes);
    string
}

#[cfg(test)]
mod tests {
    use super::*;
    use facelatch::crypto::{Secret, Signer};
    use std::os::unix::net::UnixListener;

    fn signer(number: u8) -> Signer {
        Signer::new(&Secret::new([number; 32]))
    }

    /// An agent with two keys, which answers some questions, and then with nonsense.
    fn agent(questions: usize) -> (tempfile::TempDir, Agent) {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent");
        let listener = UnixListener::bind(&socket).expect("a socket");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            for question in 0.. {
                let mut length = [0; 4];
                if stream.read_exact(&mut length).is_err() {
                    return;
                }
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).expect("a request");
                let mut answer = match request[0] {
                    _ if question >= questions => vec![5],
                    REQUEST_IDENTITIES => {
                        let mut answer = vec![IDENTITIES_ANSWER, 0, 0, 0, 3];
                        for (blob, comment) in [
                            (signer(1).public().ssh_blob(), "office"),
                            (b"\0\0\0\x07ssh-rsa".to_vec(), "old"),
                            (signer(2).public().ssh_blob(), "home"),
                        ] {
                            answer.extend(string(&blob));
                            answer.extend(string(comment.as_bytes()));
                        }
                        answer
                    }
                    _ => {
                        let mut reader = Reader(&request[1..]);
                        let (blob, data) =
                            (reader.string().expect("a key"), reader.string().expect("data"));
                        assert_eq!(blob, signer(2).public().ssh_blob());
                        // Only signatures for sets are asked for here.
                        let signature = signer(2).sign("model set", b"a manifest");
                        assert_eq!(data, PublicKey::to_sign("model set", b"a manifest"));
                        let mut inner = string(b"ssh-ed25519");
                        inner.extend(string(&signature));
                        let mut answer = vec![SIGN_RESPONSE];
                        answer.extend(string(&inner));
                        answer
                    }
                };
                answer = string(&answer);
                stream.write_all(&answer).expect("answered");
            }
        });
        let agent = Agent::at(&socket).expect("an agent");
        (folder, agent)
    }

    #[test]
    fn an_agent_signs_with_the_key_that_was_named() {
        let (_folder, mut agent) = agent(10);
        let error = agent.find(None).expect_err("two keys").to_string();
        assert!(error.contains("2 of the keys") && error.contains("office"), "{error}");
        let key = agent.find(Some("home")).expect("a key");
        assert_eq!(key, signer(2).public());
        assert_eq!(agent.find(Some(&key.fingerprint())).expect("a key"), key);
        assert_eq!(agent.find(Some(&key.to_string())).expect("a key"), key);
        assert!(agent.find(Some("cellar")).is_err());
        let signature = agent.sign(&key, &PublicKey::to_sign("model set", b"a manifest"));
        assert!(key.verify("model set", b"a manifest", &signature.expect("signed")).is_ok());
    }

    #[test]
    fn an_agent_that_refuses_is_named() {
        let (_folder, mut agent) = agent(0);
        assert!(agent.keys().is_err_and(|error| error.to_string().contains("refused")));
        assert!(Agent::at(Path::new("/nonexistent/agent")).is_err());
    }
}
