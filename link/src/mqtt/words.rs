//! What a broker answers, in words, with the cure.

use mqtt_protocol_core::mqtt::packet::Property;
use mqtt_protocol_core::mqtt::result_code::{
    ConnectReasonCode, DisconnectReasonCode, MqttError, PubackReasonCode,
};

/// Longest text of a broker that is shown, characters.
const MOST: usize = 120;

/// Why a broker refused the connection.
pub(super) fn refused(code: ConnectReasonCode, properties: &[Property]) -> String {
    use ConnectReasonCode as Code;
    let why = match code {
        Code::BadUserNameOrPassword => {
            "the broker knows no such user and password; check mqtt.username and \
             mqtt.password_file"
        }
        Code::NotAuthorized => {
            "the broker does not let this user in; check mqtt.username, mqtt.password_file and \
             mqtt.certificate"
        }
        Code::ClientIdentifierNotValid => "the broker refuses the client identifier",
        Code::UnsupportedProtocolVersion => {
            "the broker does not speak MQTT 5; Mosquitto does since version 1.6"
        }
        Code::ServerUnavailable | Code::ServerBusy => "the broker has no time now",
        Code::Banned => "the broker has banned this client",
        Code::QuotaExceeded | Code::ConnectionRateExceeded => "the broker has too many connections",
        Code::UseAnotherServer | Code::ServerMoved => "the broker has moved; change mqtt.url",
        Code::TopicNameInvalid => "the broker refuses the topic of the will; change mqtt.prefix",
        Code::RetainNotSupported => "the broker retains no messages; use one that does",
        Code::QosNotSupported => "the broker does not support QoS 1; use one that does",
        _ => return with_reason(&format!("the broker refuses the connection: {code}"), properties),
    };
    with_reason(why, properties)
}

/// Why a broker ended the connection.
pub(super) fn disconnected(code: Option<DisconnectReasonCode>, properties: &[Property]) -> String {
    use DisconnectReasonCode as Code;
    let why = match code {
        None | Some(Code::NormalDisconnection) => "the broker has ended the connection",
        Some(Code::ServerShuttingDown) => "the broker ends",
        Some(Code::SessionTakenOver) => {
            "the broker has another connection with this client identifier; does a copy of this \
             installation run somewhere?"
        }
        Some(Code::KeepAliveTimeout) => "the broker has not heard from us in time",
        Some(Code::NotAuthorized) => "the broker no longer lets this user in",
        Some(Code::PacketTooLarge) => "a message was larger than the broker accepts",
        Some(code) => {
            let why = format!("the broker has ended the connection: {code}");
            return with_reason(&why, properties);
        }
    };
    with_reason(why, properties)
}

/// Why a broker refused a message.
pub(super) fn not_taken(code: PubackReasonCode, properties: &[Property]) -> String {
    use PubackReasonCode as Code;
    let why = match code {
        Code::NotAuthorized => "the broker does not allow this user this topic; check its ACL",
        Code::QuotaExceeded => "the broker has no room for it",
        _ => return with_reason(&format!("the broker refuses it: {code}"), properties),
    };
    with_reason(why, properties)
}

/// An error of the protocol.
pub(super) fn protocol(error: MqttError) -> String {
    match error {
        MqttError::PacketTooLarge => "a packet is too large".to_owned(),
        error => format!("the broker breaks the protocol: {error}"),
    }
}

/// Adds the broker's own text.
fn with_reason(why: &str, properties: &[Property]) -> String {
    let text = properties.iter().find_map(|property| match property {
        Property::ReasonString(text) => Some(crate::text::plain(text.val(), MOST)),
        _ => None,
    });
    match text {
        Some(text) if !text.is_empty() => format!("{why} (it says: {text})"),
        _ => why.to_owned(),
    }
}
