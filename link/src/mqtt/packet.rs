//! Packets of MQTT 5, built and read.

use super::{LARGEST_PACKET, Message, Publish, Qos, Settings, Subscription};
use mqtt_protocol_core::mqtt::packet::{
    MaximumPacketSize, MessageExpiryInterval, Property, Qos as Level, ReceiveMaximum,
    RetainHandling, SessionExpiryInterval, SubEntry, SubOpts, WillDelayInterval, v5_0,
};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use std::time::Instant;

/// Messages with QoS 1 that a broker may send before we acknowledge one.
pub(super) const RECEIVE_MAXIMUM: u16 = 32;

pub(super) fn connect(settings: &Settings) -> Result<v5_0::Connect, MqttError> {
    let delay_s = settings.will.as_ref().map_or(0, |will| will.delay_s);
    let keep_alive = u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX).max(1);
    let mut connect = v5_0::Connect::builder()
        .client_id(&settings.client_id)?
        // The session outlives the connection by the delay of the will, or the will would be
        // published at once. Only the broker remembers it; we subscribe again.
        .clean_start(delay_s == 0)
        .keep_alive(keep_alive)
        .props(vec![
            Property::SessionExpiryInterval(SessionExpiryInterval::new(delay_s)?),
            Property::ReceiveMaximum(ReceiveMaximum::new(RECEIVE_MAXIMUM)?),
            Property::MaximumPacketSize(MaximumPacketSize::new(LARGEST_PACKET)?),
        ]);
    if let Some(will) = &settings.will {
        connect = connect
            .will_message(&will.topic, will.payload.clone(), Level::AtLeastOnce, true)?
            .will_props(vec![Property::WillDelayInterval(WillDelayInterval::new(delay_s)?)]);
    }
    if let Some(username) = &settings.username {
        connect = connect.user_name(username)?;
    }
    if let Some(password) = &settings.password {
        // MQTT 5 allows a password without a name; this crate does not.
        if settings.username.is_none() {
            connect = connect.user_name("")?;
        }
        connect = connect.password(password.as_bytes().to_vec())?;
    }
    connect.build()
}

/// `id` is needed for QoS 1.
pub(super) fn publish(message: &Publish, id: Option<u16>) -> Result<v5_0::Publish, MqttError> {
    let mut packet = v5_0::Publish::builder()
        .topic_name(&message.topic)?
        .qos(level(message.qos))
        .retain(message.retain)
        .payload(message.payload.clone());
    if let Some(id) = id {
        packet = packet.packet_id(id);
    }
    if let Some(expires_s) = message.expires_s {
        let expires = MessageExpiryInterval::new(expires_s)?;
        packet = packet.props(vec![Property::MessageExpiryInterval(expires)]);
    }
    packet.build()
}

pub(super) fn subscribe(
    subscriptions: &[Subscription],
    id: u16,
) -> Result<v5_0::Subscribe, MqttError> {
    let entry = |subscription: &Subscription| {
        let retained = if subscription.retained {
            RetainHandling::SendRetained
        } else {
            RetainHandling::DoNotSendRetained
        };
        let options = SubOpts::new().set_qos(level(subscription.qos)).set_rh(retained);
        SubEntry::new(&subscription.filter, options)
    };
    let entries: Result<Vec<_>, _> = subscriptions.iter().map(entry).collect();
    v5_0::Subscribe::builder().packet_id(id).entries(entries?).build()
}

pub(super) fn unsubscribe(filters: &[String], id: u16) -> Result<v5_0::Unsubscribe, MqttError> {
    v5_0::Unsubscribe::builder().packet_id(id).entries(filters)?.build()
}

pub(super) fn message(packet: &v5_0::Publish, since: Instant) -> Message {
    let expires_s = packet.props().iter().find_map(|property| match property {
        Property::MessageExpiryInterval(interval) => Some(interval.val()),
        _ => None,
    });
    Message {
        topic: packet.topic_name().to_owned(),
        payload: packet.payload().as_slice().to_vec(),
        retained: packet.retain(),
        expires_s,
        since,
    }
}

/// A fault of a broker that cannot retain or acknowledge; `None` if it can.
pub(super) fn unable(properties: &[Property]) -> Option<&'static str> {
    properties.iter().find_map(|property| match property {
        Property::MaximumQos(level) if level.val() == 0 => {
            Some("the broker does not support QoS 1; use one that does")
        }
        Property::RetainAvailable(available) if available.val() == 0 => {
            Some("the broker retains no messages; use one that does")
        }
        _ => None,
    })
}

fn level(qos: Qos) -> Level {
    match qos {
        Qos::AtMostOnce => Level::AtMostOnce,
        Qos::AtLeastOnce => Level::AtLeastOnce,
    }
}
