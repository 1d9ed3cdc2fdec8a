//! A door of some lines: its log, its socket, and what the program says to it.

use facelatch_messages::{
    DoorEvent, DoorHello, FromDoor, FromLink, Lines, LinkOrder, MOST_UNTAKEN, PROTOCOL, write_line,
};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Default)]
struct State {
    hello: DoorHello,
    log: Vec<DoorEvent>,
    /// Number of the last event that was sent over the connection of now, and taken.
    sent: u64,
    taken: u64,
    socket: Option<UnixStream>,
    orders: Option<Sender<LinkOrder>>,
    heard: Option<Sender<FromLink>>,
    /// What the door says over each new connection.
    says: Vec<FromDoor>,
}

impl State {
    fn write(&mut self, message: &FromDoor) {
        if let Some(socket) = &mut self.socket
            && socket.write_all(&write_line(message)).is_err()
        {
            self.socket = None;
        }
    }

    /// Sends events while few are untaken.
    fn pump(&mut self) {
        while self.socket.is_some() {
            let untaken = self
                .log
                .iter()
                .filter(|event| event.number > self.taken && event.number <= self.sent)
                .count();
            let next = self.log.iter().find(|event| event.number > self.sent).cloned();
            match next {
                Some(event) if untaken < MOST_UNTAKEN => {
                    self.sent = event.number;
                    self.write(&FromDoor::Event(event));
                }
                _ => return,
            }
        }
    }

    fn hear(&mut self, message: FromLink) {
        match &message {
            FromLink::Hello(hello) => {
                let newest = self.log.last().map_or(0, |event| event.number);
                let answer = DoorHello {
                    protocol: PROTOCOL,
                    version: "test".to_owned(),
                    oldest: self.log.first().map_or(0, |event| event.number),
                    newest,
                    ..self.hello.clone()
                };
                (self.sent, self.taken) =
                    (hello.after.unwrap_or(newest), hello.after.unwrap_or(newest));
                self.write(&FromDoor::Hello(answer));
                for message in self.says.clone() {
                    self.write(&message);
                }
            }
            FromLink::Taken { number } => self.taken = *number,
            FromLink::Order { id, order, .. } => {
                if let Some(orders) = &self.orders {
                    let _ = orders.send(*order);
                }
                self.write(&FromDoor::Done { id: *id, did: "opened by command".to_owned() });
            }
            _ => {}
        }
        if let Some(heard) = &self.heard {
            let _ = heard.send(message);
        }
        self.pump();
    }
}

pub struct FakeDoor {
    state: Arc<Mutex<State>>,
}

impl FakeDoor {
    pub fn new(path: &Path, hello: DoorHello) -> Self {
        let listener = UnixListener::bind(path).expect("a socket");
        let state = Arc::new(Mutex::new(State { hello, ..State::default() }));
        let its = Arc::clone(&state);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let socket = socket.expect("a connection");
                its.lock().expect("a door").socket = Some(socket.try_clone().expect("cloned"));
                serve(socket, &its);
            }
        });
        Self { state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a door")
    }

    /// Waits for the program.
    pub fn wait_connected(&self) {
        super::until("the program connects to the door", || {
            self.lock().sent > 0 || self.said_hello()
        });
    }

    fn said_hello(&self) -> bool {
        self.lock().socket.is_some()
    }

    /// Something happens. Numbers have gaps.
    pub fn happen(&self, event: DoorEvent) {
        let mut state = self.lock();
        let last = state.log.last().map_or(100, |event| event.number);
        let number = last + 1 + last % 3;
        state.log.push(DoorEvent { number, ..event });
        state.pump();
    }

    /// Numbers of all events.
    pub fn numbers(&self) -> Vec<u64> {
        self.lock().log.iter().map(|event| event.number).collect()
    }

    /// Says something, now and over each new connection.
    pub fn say(&mut self, message: &FromDoor) {
        let mut state = self.lock();
        state.write(message);
        let replaced = matches!(message, FromDoor::State(_));
        state.says.retain(|said| !(replaced && matches!(said, FromDoor::State(_))));
        if replaced || matches!(message, FromDoor::Subscribe { .. }) {
            state.says.push(message.clone());
        }
    }

    /// Ends the connection.
    pub fn hang_up(&self) {
        if let Some(socket) = self.lock().socket.take() {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Orders from now on.
    pub fn orders(&self) -> Receiver<LinkOrder> {
        let (sender, orders) = channel();
        self.lock().orders = Some(sender);
        orders
    }

    /// All messages from now on.
    pub fn heard(&self) -> Receiver<FromLink> {
        let (sender, heard) = channel();
        self.lock().heard = Some(sender);
        heard
    }
}

fn serve(mut socket: UnixStream, state: &Mutex<State>) {
    let (mut lines, mut buffer) = (Lines::default(), vec![0; 64 << 10]);
    while let Ok(read) = socket.read(&mut buffer) {
        if read == 0 {
            return;
        }
        lines.add(&buffer[..read]).expect("short lines");
        while let Some(message) = lines.next_message::<FromLink>() {
            if let Some(message) = message.expect("a message") {
                state.lock().expect("a door").hear(message);
            }
        }
    }
}
