//! Reason codes of MQTT 5.0 that this server says.

/// A reason code; the number is what stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    Success = 0x00,
    NoSubscriptionExisted = 0x11,
    Unspecified = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    UnsupportedVersion = 0x84,
    BadClientId = 0x85,
    BadUserOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerShuttingDown = 0x8b,
    BadAuthenticationMethod = 0x8c,
    KeepAliveTimeout = 0x8d,
    SessionTakenOver = 0x8e,
    TopicFilterInvalid = 0x8f,
    TopicNameInvalid = 0x90,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    QuotaExceeded = 0x97,
    QosNotSupported = 0x9b,
    SharedSubscriptionsNotSupported = 0x9e,
}

impl Reason {
    /// The return code of a CONNACK before 5.0 that comes closest.
    pub fn connect_code_311(self) -> u8 {
        match self {
            Reason::Success => 0,
            Reason::UnsupportedVersion => 1,
            Reason::BadClientId => 2,
            Reason::BadUserOrPassword => 4,
            Reason::NotAuthorized | Reason::BadAuthenticationMethod => 5,
            _ => 3,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Reason::Success => "success",
            Reason::NoSubscriptionExisted => "no subscription existed",
            Reason::Unspecified => "unspecified error",
            Reason::MalformedPacket => "malformed packet",
            Reason::ProtocolError => "protocol error",
            Reason::UnsupportedVersion => "unsupported version of the protocol",
            Reason::BadClientId => "client identifier not valid",
            Reason::BadUserOrPassword => "bad user name or password",
            Reason::NotAuthorized => "not authorized",
            Reason::ServerUnavailable => "server unavailable",
            Reason::ServerShuttingDown => "server shutting down",
            Reason::BadAuthenticationMethod => "bad authentication method",
            Reason::KeepAliveTimeout => "keep-alive timeout",
            Reason::SessionTakenOver => "session taken over",
            Reason::TopicFilterInvalid => "topic filter not valid",
            Reason::TopicNameInvalid => "topic name not valid",
            Reason::ReceiveMaximumExceeded => "receive maximum exceeded",
            Reason::TopicAliasInvalid => "topic alias not valid",
            Reason::PacketTooLarge => "packet too large",
            Reason::QuotaExceeded => "quota exceeded",
            Reason::QosNotSupported => "QoS not supported",
            Reason::SharedSubscriptionsNotSupported => "shared subscriptions not supported",
        }
    }
}
