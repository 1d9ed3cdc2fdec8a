//! One connection, from its beginning to its end.

use super::client::{Command, Queue};
use super::packet::{self, RECEIVE_MAXIMUM};
use super::stream::{Peer, Stream};
use super::{LARGEST_PACKET, Publish, Qos, Report, Settings, Subscription, words};
use crate::reports::Reports;
use crate::wake::{Woken, wait};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{ConnectionOptions, Event, TimerKind};
use mqtt_protocol_core::mqtt::packet::{Packet, v5_0};
use mqtt_protocol_core::mqtt::prelude::*;
use mqtt_protocol_core::mqtt::result_code::{ConnectReasonCode, PubackReasonCode};
use mqtt_protocol_core::mqtt::{Connection, Version, role};
use rustix::event::{PollFd, PollFlags};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Longest time for each step until the broker accepts the connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time for what waits and the goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Publishes with QoS 1 that wait for their acknowledgement.
const MOST_IN_FLIGHT: usize = 64;
/// Bytes for the socket from which on no command is taken.
const MOST_WAITING: usize = 256 << 10;
const BUFFER: usize = 16 << 10;
const BROKER: Peer = Peer { name: "the broker", table: "mqtt", open: "mqtt://" };

/// How a connection ended.
pub(super) enum End {
    /// The owner wanted it.
    Stopped,
    /// For this reason.
    Lost(String),
}

pub(super) struct Session<'a, T> {
    number: u64,
    mqtt: Connection<role::Client>,
    stream: Stream,
    reports: &'a mut Reports<T>,
    shared: &'a Woken<Queue>,
    connected: bool,
    /// Tickets of publishes by their packet identifiers.
    publishes: HashMap<u16, u64>,
    subscriptions: HashMap<u16, u64>,
    /// When the broker must hear from us.
    ping_due: Option<Instant>,
    /// When we last heard from the broker, and when we asked whether it is there since then.
    heard: Instant,
    asked: Option<Instant>,
    /// When the socket last had nothing to read: what is read came after that.
    empty_at: Instant,
}

impl<'a, T: From<Report>> Session<'a, T> {
    /// Connects, and carries messages until the connection ends.
    pub fn run(
        number: u64,
        settings: &Settings,
        shared: &'a Woken<Queue>,
        reports: &'a mut Reports<T>,
    ) -> End {
        let tls = settings.tls.as_ref().map(|tls| tls.client_config()).transpose();
        let tls = match tls {
            Ok(tls) => tls,
            Err(error) => return End::Lost(error.to_string()),
        };
        let stream = match Stream::connect(&settings.host, settings.port, tls, PATIENCE, BROKER) {
            Ok(stream) => stream,
            Err(reason) => return End::Lost(reason),
        };
        // A connection's state is never used again: the crate counts what a resumed session
        // sends again wrongly, and then sends nothing.
        let options = ConnectionOptions::new()
            .maximum_packet_size_recv(LARGEST_PACKET)
            .receive_maximum(RECEIVE_MAXIMUM);
        let mut mqtt = Connection::with_options(Version::V5_0, options);
        mqtt.set_auto_pub_response(true);
        let (publishes, subscriptions) = (HashMap::new(), HashMap::new());
        let mut session = Session {
            number,
            mqtt,
            stream,
            reports,
            shared,
            connected: false,
            publishes,
            subscriptions,
            ping_due: None,
            heard: Instant::now(),
            asked: None,
            empty_at: Instant::now(),
        };
        match session.carry(settings) {
            Ok(()) => End::Stopped,
            Err(reason) => {
                // Perhaps with the reason for the broker.
                let _ = session.stream.flush();
                End::Lost(reason)
            }
        }
    }

    fn carry(&mut self, settings: &Settings) -> Result<(), String> {
        let connect = packet::connect(settings)
            .map_err(|error| format!("mqtt.username, the password or the topics: {error}"))?;
        let events = self.mqtt.checked_send(connect);
        self.handle(events)?;
        let began = Instant::now();
        // Half of it passes before we ask, half until the answer.
        let half = settings.keep_alive / 2;
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.connected {
                self.take_commands()?;
            }
            self.stream.flush()?;
            self.reports.pass_on();
            let (stop, hold) = {
                let queue = self.shared.lock();
                (queue.stop, queue.hold)
            };
            if self.reports.gone || stop {
                return self.goodbye();
            }
            if !self.connected && began.elapsed() > PATIENCE {
                return Err("the broker does not answer".to_owned());
            }
            self.keep_alive(half)?;
            let stalled = hold || self.reports.stalled();
            let mut pause = Duration::from_secs(1).min(half / 4);
            if stalled {
                // Nobody says when the owner takes reports again.
                pause = pause.min(Duration::from_millis(20));
            }
            if let Some(due) = self.ping_due {
                pause = pause.min(due.saturating_duration_since(Instant::now()));
            }
            let mut wanted = if stalled { PollFlags::empty() } else { PollFlags::IN };
            if self.stream.wants_write() {
                wanted |= PollFlags::OUT;
            }
            // A closed socket that nobody reads would wake us at once, and again.
            let socket = (!wanted.is_empty()).then_some((&self.stream.socket as &dyn AsFd, wanted));
            self.shared.wait(socket, pause);
            let looked = Instant::now();
            while !hold && !self.reports.stalled() {
                let Some(read) = self.stream.read(&mut buffer)? else {
                    self.empty_at = looked;
                    break;
                };
                self.heard = Instant::now();
                self.asked = None;
                self.receive(&buffer[..read])?;
            }
            if stalled || self.reports.stalled() {
                // Its answers wait to be read.
                self.heard = Instant::now();
                self.asked = None;
            }
        }
    }

    /// Asks whether the broker is there, and gives up one that is not.
    fn keep_alive(&mut self, half: Duration) -> Result<(), String> {
        let now = Instant::now();
        let silent = now.saturating_duration_since(self.heard);
        if self.asked.is_some_and(|asked| now.saturating_duration_since(asked) >= half) {
            return Err(format!("the broker has been silent for {} s", silent.as_secs()));
        }
        if self.stream.stuck_for() >= half.max(Duration::from_secs(2)) {
            return Err("the broker takes nothing more".to_owned());
        }
        let due = self.ping_due.is_some_and(|due| due <= now);
        if self.connected && (due || (self.asked.is_none() && silent >= half)) {
            self.ping_due = None;
            self.asked.get_or_insert(now);
            let ping = v5_0::Pingreq::builder().build().map_err(words::protocol)?;
            let events = self.mqtt.checked_send(ping);
            self.handle(events)?;
            self.stream.flush()?;
        }
        Ok(())
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut cursor = Cursor::new(bytes);
        while (cursor.position() as usize) < bytes.len() {
            let events = self.mqtt.recv(&mut cursor);
            self.handle(events)?;
        }
        Ok(())
    }

    fn handle(&mut self, events: Vec<Event>) -> Result<(), String> {
        let mut fault = None;
        for event in events {
            match event {
                Event::RequestSendPacket { packet, .. } => {
                    self.stream.push(&packet.to_continuous_buffer());
                }
                Event::NotifyPacketReceived(packet) => self.received(packet)?,
                Event::RequestTimerReset { kind: TimerKind::PingreqSend, duration_ms } => {
                    self.ping_due = Some(Instant::now() + Duration::from_millis(duration_ms));
                }
                Event::RequestTimerCancel(TimerKind::PingreqSend) => self.ping_due = None,
                Event::NotifyError(_) if !self.connected => {
                    fault = Some("the answer is not MQTT 5; is the port right?".to_owned());
                }
                Event::NotifyError(error) => fault = Some(words::protocol(error)),
                Event::RequestClose => {
                    fault.get_or_insert_with(|| "the connection has to be closed".to_owned());
                }
                Event::NotifyPacketIdReleased(_)
                | Event::RequestTimerReset { .. }
                | Event::RequestTimerCancel(_) => {}
            }
        }
        fault.map_or(Ok(()), Err)
    }

    fn received(&mut self, packet: Packet) -> Result<(), String> {
        match packet {
            Packet::V5_0Connack(answer) => {
                if answer.reason_code() != ConnectReasonCode::Success {
                    return Err(words::refused(answer.reason_code(), answer.props()));
                }
                if let Some(fault) = packet::unable(answer.props()) {
                    return Err(fault.to_owned());
                }
                self.connected = true;
                self.shared.lock().begin(self.number);
                self.reports.add(Report::Connected { session: self.number });
            }
            Packet::V5_0Publish(message) => {
                self.reports.add(Report::Message(packet::message(&message, self.empty_at)));
            }
            Packet::V5_0Puback(answer) => {
                let Some(ticket) = self.publishes.remove(&answer.packet_id()) else {
                    return Ok(());
                };
                let code = answer.reason_code().unwrap_or(PubackReasonCode::Success);
                self.reports.add(if code.is_success() {
                    Report::Published { ticket }
                } else {
                    let properties = answer.props().as_deref().unwrap_or_default();
                    Report::Refused { ticket, reason: words::not_taken(code, properties) }
                });
            }
            Packet::V5_0Suback(answer) => {
                if let Some(ticket) = self.subscriptions.remove(&answer.packet_id()) {
                    let codes = answer.reason_codes();
                    let codes = codes.iter().enumerate();
                    let refused =
                        codes.filter(|(_, c)| !c.is_success()).map(|(at, _)| at).collect();
                    self.reports.add(Report::Subscribed { ticket, refused });
                }
            }
            Packet::V5_0Disconnect(packet) => {
                let properties = packet.props().as_deref().unwrap_or_default();
                return Err(words::disconnected(packet.reason_code(), properties));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_commands(&mut self) -> Result<(), String> {
        while self.stream.waiting() < MOST_WAITING {
            let mut queue = self.shared.lock();
            let room = self.publishes.len() < MOST_IN_FLIGHT
                && self.mqtt.get_receive_maximum_vacancy_for_send().is_none_or(|free| free > 0);
            match queue.commands.front() {
                Some(Command::Publish { publish, .. })
                    if publish.qos == Qos::AtLeastOnce && !room =>
                {
                    return Ok(());
                }
                _ => {}
            }
            let command = queue.pop();
            drop(queue);
            match command {
                None => return Ok(()),
                Some(Command::Publish { ticket, publish }) => self.publish(ticket, &publish)?,
                Some(Command::Subscribe { ticket, subscriptions }) => {
                    self.subscribe(ticket, &subscriptions)?;
                }
                Some(Command::Unsubscribe { filters }) => {
                    let id = self.mqtt.acquire_packet_id().map_err(words::protocol)?;
                    let packet = packet::unsubscribe(&filters, id).map_err(words::protocol)?;
                    let events = self.mqtt.checked_send(packet);
                    self.handle(events)?;
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, ticket: u64, publish: &Publish) -> Result<(), String> {
        let id = match publish.qos {
            Qos::AtMostOnce => None,
            Qos::AtLeastOnce => Some(self.mqtt.acquire_packet_id().map_err(words::protocol)?),
        };
        let refused = match packet::publish(publish, id) {
            Ok(packet) => {
                let events = self.mqtt.checked_send(packet);
                let error = events.iter().find_map(|event| match event {
                    Event::NotifyError(error) => Some(*error),
                    _ => None,
                });
                if error.is_none() {
                    match id {
                        Some(id) => drop(self.publishes.insert(id, ticket)),
                        None => self.reports.add(Report::Published { ticket }),
                    }
                    return self.handle(events);
                }
                error
            }
            Err(error) => Some(error),
        };
        // It was not sent.
        if let Some(id) = id {
            let _ = self.mqtt.release_packet_id(id);
        }
        let reason = refused.map_or_else(String::new, |error| {
            format!(
                "a message for {} cannot be sent: {error}",
                crate::text::plain(&publish.topic, 80)
            )
        });
        self.reports.add(Report::Refused { ticket, reason });
        Ok(())
    }

    fn subscribe(&mut self, ticket: u64, subscriptions: &[Subscription]) -> Result<(), String> {
        let id = self.mqtt.acquire_packet_id().map_err(words::protocol)?;
        match packet::subscribe(subscriptions, id) {
            Ok(packet) => {
                self.subscriptions.insert(id, ticket);
                let events = self.mqtt.checked_send(packet);
                self.handle(events)
            }
            Err(error) => {
                let _ = self.mqtt.release_packet_id(id);
                let reason = format!("a filter cannot be subscribed to: {error}");
                self.reports.add(Report::Refused { ticket, reason });
                Ok(())
            }
        }
    }

    /// Sends what waits, and the goodbye that keeps the will unpublished.
    fn goodbye(&mut self) -> Result<(), String> {
        if !self.connected {
            return Ok(());
        }
        self.take_commands()?;
        let packet = v5_0::Disconnect::builder().build().map_err(words::protocol)?;
        let events = self.mqtt.checked_send(packet);
        // It also asks to close the connection.
        let _ = self.handle(events);
        let until = Instant::now() + GOODBYE;
        let mut buffer = vec![0; BUFFER];
        while Instant::now() < until {
            self.stream.flush()?;
            // A socket that is closed with something unread may take back what it has sent,
            // so the broker closes it.
            loop {
                match self.stream.read(&mut buffer) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            let mut wanted = PollFlags::IN;
            if self.stream.wants_write() {
                wanted |= PollFlags::OUT;
            }
            wait(&mut [PollFd::new(&self.stream.socket, wanted)], Duration::from_millis(100));
        }
        Ok(())
    }
}
