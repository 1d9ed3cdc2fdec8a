//! A network between program and broker that can fail.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Fault {
    stall: AtomicBool,
    refuse: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

pub struct Proxy {
    pub port: u16,
    fault: Arc<Fault>,
}

impl Proxy {
    /// Passes everything on to this port.
    pub fn new(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let fault = Arc::new(Fault::default());
        let its = Arc::clone(&fault);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if its.refuse.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(other) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let mut open = its.open.lock().expect("sockets");
                for (from, to) in [(&socket, &other), (&other, &socket)] {
                    let (from, to) = (from.try_clone().expect("one"), to.try_clone().expect("one"));
                    open.push(from.try_clone().expect("one"));
                    let fault = Arc::clone(&its);
                    std::thread::spawn(move || pass_on(from, to, &fault));
                }
            }
        });
        Self { port, fault }
    }

    /// Nothing passes, and nobody hears of it.
    pub fn stall(&self, stall: bool) {
        self.fault.stall.store(stall, Ordering::SeqCst);
    }

    /// All connections end, and new ones end at once.
    pub fn refuse(&self, refuse: bool) {
        self.fault.refuse.store(refuse, Ordering::SeqCst);
        if refuse {
            for socket in self.fault.open.lock().expect("sockets").drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, fault: &Fault) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        while fault.stall.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
