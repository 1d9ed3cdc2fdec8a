//! EDGE: a TCP connection with or without TLS that never blocks: bytes to be sent wait in
//! memory until the socket takes them.

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 4;

/// Whom a connection is to, in messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Such as "the broker".
    pub name: &'static str,
    /// Table of the configuration, such as "mqtt".
    pub table: &'static str,
    /// Scheme of a URL without TLS.
    pub open: &'static str,
}

/// A connection.
pub(crate) struct Stream {
    peer: Peer,
    pub socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Bytes that wait, and how many of them were taken.
    waiting: Vec<u8>,
    taken: usize,
    /// When the socket last took a byte, or nothing waited.
    moved: Instant,
}

impl Stream {
    /// Connects to a host. The name is resolved by the system, in its own time; after that
    /// each address has `patience`.
    pub fn connect(
        host: &str,
        port: u16,
        tls: Option<Arc<rustls::ClientConfig>>,
        patience: Duration,
        peer: Peer,
    ) -> Result<Self, String> {
        let addresses: Vec<SocketAddr> = (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("the name {host} cannot be resolved: {error}"))?
            .take(MOST_ADDRESSES)
            .collect();
        let mut fault = format!("the name {host} has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(socket) => return Self::new(socket, host, tls, peer),
                Err(error) => fault = format!("{address}: {error}"),
            }
        }
        Err(fault)
    }

    fn new(
        socket: TcpStream,
        host: &str,
        tls: Option<Arc<rustls::ClientConfig>>,
        peer: Peer,
    ) -> Result<Self, String> {
        let set = socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(true));
        set.map_err(|error| error.to_string())?;
        let tls = match tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| format!("{host:?} is no name of a host"))?;
                let tls = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
                Some(Box::new(tls))
            }
        };
        Ok(Self { peer, socket, tls, waiting: vec![], taken: 0, moved: Instant::now() })
    }

    /// Adds bytes to those that wait.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.wants_write() {
            self.moved = Instant::now();
        }
        self.waiting.extend_from_slice(bytes);
    }

    /// Bytes that wait, without those that TLS already has.
    pub fn waiting(&self) -> usize {
        self.waiting.len() - self.taken
    }

    /// Whether the socket has to take bytes.
    pub fn wants_write(&self) -> bool {
        self.waiting() > 0 || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Time for which the socket has taken none of the bytes that wait.
    pub fn stuck_for(&self) -> Duration {
        if self.wants_write() { self.moved.elapsed() } else { Duration::ZERO }
    }

    /// Gives the socket what it takes now.
    pub fn flush(&mut self) -> Result<(), String> {
        loop {
            let written = match &mut self.tls {
                None if self.taken == self.waiting.len() => return Ok(()),
                None => self.socket.write(&self.waiting[self.taken..]).inspect(|taken| {
                    self.taken += taken;
                }),
                Some(tls) => {
                    if self.taken < self.waiting.len() && !tls.is_handshaking() {
                        let rest = &self.waiting[self.taken..];
                        self.taken += tls.writer().write(rest).map_err(|e| e.to_string())?;
                    }
                    if !tls.wants_write() {
                        return Ok(());
                    }
                    tls.write_tls(&mut self.socket)
                }
            };
            if self.taken == self.waiting.len() {
                self.waiting.clear();
                // A burst does not keep its memory.
                self.waiting.shrink_to(64 << 10);
                self.taken = 0;
            } else if self.taken > 64 << 10 {
                self.waiting.drain(..self.taken);
                self.taken = 0;
            }
            match written {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(_) => self.moved = Instant::now(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Reads what is there; `None` if nothing is there yet.
    ///
    /// # Errors
    /// If the connection was closed, or TLS finds something wrong.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, String> {
        loop {
            let read = match &mut self.tls {
                None => self.socket.read(buffer),
                Some(tls) => match tls.reader().read(buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        match tls.read_tls(&mut self.socket) {
                            Ok(0) => Ok(0),
                            Ok(_) => {
                                if let Err(error) = tls.process_new_packets() {
                                    // The other side learns why.
                                    let _ = tls.write_tls(&mut self.socket);
                                    return Err(tls_fault(&error, self.peer));
                                }
                                continue;
                            }
                            Err(error) => Err(error),
                        }
                    }
                    // Many that end do not say goodbye.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                    read => read,
                },
            };
            let fault = match read {
                Ok(0) => format!("{} has closed the connection", self.peer.name),
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => error.to_string(),
            };
            let open = self.peer.open;
            return Err(match &self.tls {
                Some(tls) if tls.is_handshaking() => format!(
                    "{fault} before TLS was agreed on; is this a port without TLS? Then the URL \
                     begins with {open}"
                ),
                _ => fault,
            });
        }
    }
}

/// What TLS found, with a cure where there is one.
fn tls_fault(error: &rustls::Error, peer: Peer) -> String {
    use rustls::{AlertDescription, CertificateError, Error};
    let Peer { name, table, open } = peer;
    let cure = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("; name the authority that signed the certificate of {name} with {table}.ca")
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("; use a name in {table}.url that the certificate of {name} has"),
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "; is the clock of this computer right?".to_owned(),
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => format!("; renew the certificate of {name}, or set the clock of this computer"),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            format!("; {name} asks for {table}.certificate and {table}.key")
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown,
        ) => format!("; {name} does not trust {table}.certificate"),
        Error::InvalidMessage(_) => {
            format!("; is this a port without TLS? Then the URL begins with {open}")
        }
        _ => String::new(),
    };
    format!("TLS: {}{cure}", crate::text::plain(&error.to_string(), 200))
}
