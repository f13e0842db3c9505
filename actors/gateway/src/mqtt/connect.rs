//! From an accepted socket to a session: CONNECT, login, CONNACK.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use millpond_core::{limits, time::Span};
use millpond_env::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    codec::{
        ConnAck, Connect, DecodeError, Packet, Properties, Property, Reason, Split, Text, Value, Version, decode,
        encode, id, split,
    },
    connection::Connection,
    door::Door,
    ingest::{Route, route},
};
use crate::{
    auth::Login,
    broker::{Attach, Attached, Message, Will, topic},
};

/// Time for a client to send its CONNECT.
const CONNECT_WAIT: Span = Span::from_secs(10);
/// Time to write a refusal.
const REFUSAL_WAIT: Span = Span::from_secs(1);

/// A client that may come in.
pub(super) struct Admitted {
    pub version: Version,
    pub client_id: Arc<str>,
    pub login: Login,
    pub keep_alive: u16,
    /// Largest packet that the client takes.
    pub packet_bytes_max: usize,
    pub expiry_s: u32,
}

/// A client that may not, and how it is told.
struct Refused {
    version: Version,
    reason: Reason,
}

/// Serves one connection from its first byte to its last.
pub(super) async fn serve(door: &Arc<Door>, mut stream: Box<dyn Stream>, peer: SocketAddr) {
    let mut buffer = BytesMut::with_capacity(1024);
    let first = door.env.timeout(CONNECT_WAIT, read_connect(door, &mut stream, &mut buffer));
    let connect = match door.unless_stopped(first).await {
        None => return,
        Some(Ok(Ok(Ok(connect)))) => connect,
        Some(Ok(Ok(Err(error)))) => {
            tracing::info!(%peer, %error, "not an MQTT client");
            if let DecodeError::UnsupportedVersion(level) = error {
                let version = if level > 5 { Version::V5 } else { Version::V311 };
                refuse(door, &mut stream, &Refused { version, reason: Reason::UnsupportedVersion }).await;
            }
            return door.metrics.refused.with_label_values(&["protocol"]).inc();
        }
        Some(Ok(Err(_)) | Err(_)) => return door.metrics.refused.with_label_values(&["protocol"]).inc(),
    };
    let client = connect.client_id.to_string();
    match admit(door, *connect).await {
        Ok((admitted, attach, answer)) => {
            let version = admitted.version;
            let Some(attached) = door.broker.attach(attach) else {
                return refuse(door, &mut stream, &Refused { version, reason: Reason::QuotaExceeded }).await;
            };
            tracing::debug!(%peer, client = %admitted.client_id, login = %admitted.login.name, ?version, "connected");
            enter(door, stream, buffer, admitted, attached, answer).await;
        }
        Err(refused) => {
            let reason = if is_about_login(refused.reason) { "login" } else { "protocol" };
            door.metrics.refused.with_label_values(&[reason]).inc();
            tracing::info!(%peer, client, reason = refused.reason.text(), "connection refused");
            refuse(door, &mut stream, &refused).await;
        }
    }
}

/// Says CONNACK, tells whom it concerns, and serves the session.
async fn enter(
    door: &Arc<Door>,
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    admitted: Admitted,
    attached: Attached,
    answer: Properties,
) {
    let Attached { session, epoch, present, wills } = attached;
    wills.into_iter().for_each(|will| door.publish_will(will));
    door.metrics.connects.inc();
    door.node.presence(&admitted.client_id, true);
    let login = admitted.login.clone();
    // What it subscribed to earlier.
    door.listens(&login, &admitted.client_id, &door.broker.filters(&session), true);
    let mut out = BytesMut::new();
    let connack = ConnAck { session_present: present && admitted.version != Version::V31, code: 0, properties: answer };
    encode(admitted.version, &Packet::ConnAck(connack), &mut out);
    let client_id = admitted.client_id.clone();
    let connection = Connection::new(door.clone(), stream, buffer, out, admitted, session.clone(), epoch);
    let ended = connection.run().await;
    door.metrics.disconnects.with_label_values(&[ended.why]).inc();
    tracing::debug!(client = %client_id, why = ended.why, "disconnected");
    let filters = door.broker.filters(&session);
    let (had_session, will) = door.broker.detach(&session, epoch, ended.good_bye, ended.expiry_s, door.env.now());
    if had_session {
        door.node.presence(&client_id, false);
        door.listens(&login, &client_id, &filters, false);
    }
    if let Some(will) = will {
        door.publish_will(will);
    }
}

async fn read_connect(
    door: &Door,
    stream: &mut Box<dyn Stream>,
    buffer: &mut BytesMut,
) -> io::Result<Result<Box<Connect>, DecodeError>> {
    loop {
        match split(buffer, door.settings.packet_bytes_max) {
            // Before anything else arrives it is known whether this is MQTT.
            _ if buffer.first().is_some_and(|first| *first != 0x10) => {
                return Ok(Err(DecodeError::BadType(buffer[0] >> 4)));
            }
            Err(error) => return Ok(Err(error)),
            Ok(Split::Packet { first, body, len }) => {
                let packet = buffer.split_to(len).freeze();
                return Ok(match decode(Version::V311, first, packet.slice(body..)) {
                    Ok(Packet::Connect(connect)) => Ok(connect),
                    Ok(_) => Err(DecodeError::BadType(first >> 4)),
                    Err(error) => Err(error),
                });
            }
            Ok(Split::Need(bytes)) => {
                buffer.reserve(bytes.saturating_sub(buffer.len()).min(64 << 10));
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

async fn admit(door: &Door, connect: Connect) -> Result<(Admitted, Attach, Properties), Refused> {
    let version = connect.version;
    let refused = |reason| Refused { version, reason };
    if connect.properties.has(id::AUTH_METHOD) {
        return Err(refused(Reason::BadAuthenticationMethod));
    }
    let named = !connect.client_id.is_empty();
    if !named && version != Version::V5 && !connect.clean_start {
        return Err(refused(Reason::BadClientId));
    }
    let client_id: Arc<str> = if named { (&*connect.client_id).into() } else { door.name().into() };
    if client_id.len() > limits::DEVICE_NAME_BYTES_MAX || client_id.chars().any(char::is_control) {
        return Err(refused(Reason::BadClientId));
    }
    let login = login(door, &connect).await.map_err(refused)?;
    let will = will(door, &connect, &client_id, &login).map_err(refused)?;
    let expiry_s_max = door.settings.session_expiry_s_max();
    let asked_s = match version {
        Version::V5 => connect.properties.number(id::SESSION_EXPIRY).unwrap_or(0),
        _ if connect.clean_start => 0,
        _ => u32::MAX,
    };
    let expiry_s = asked_s.min(expiry_s_max);
    let answer = answer(door, version, (!named).then_some(&*client_id), (asked_s > expiry_s).then_some(expiry_s));
    let number = |id, default: u32| connect.properties.number(id).unwrap_or(default);
    let attach = Attach {
        client_id: client_id.clone(),
        clean: connect.clean_start,
        expiry_s,
        receive_max: number(id::RECEIVE_MAX, u16::MAX.into()) as u16,
        will,
    };
    let packet_bytes_max = number(id::MAX_PACKET_BYTES, u32::MAX) as usize;
    let keep_alive = connect.keep_alive;
    Ok((Admitted { version, client_id, login, keep_alive, packet_bytes_max, expiry_s }, attach, answer))
}

async fn login(door: &Door, connect: &Connect) -> Result<Login, Reason> {
    let password = connect.password.as_deref().unwrap_or_default();
    let given = match &connect.username {
        Some(user) if !user.is_empty() => door.auth.password(user, password).await,
        _ if !password.is_empty() => std::str::from_utf8(password).ok().and_then(|token| door.auth.token(token)),
        _ if door.settings.anonymous => return Ok(Login::anonymous()),
        _ => return Err(Reason::NotAuthorized),
    };
    given.ok_or(Reason::BadUserOrPassword)
}

fn will(door: &Door, connect: &Connect, client_id: &str, login: &Login) -> Result<Option<Will>, Reason> {
    let Some(will) = &connect.will else { return Ok(None) };
    if !topic::is_topic(&will.topic) {
        return Err(Reason::TopicNameInvalid);
    }
    if !login.may_publish(client_id, &will.topic) {
        return Err(Reason::NotAuthorized);
    }
    // Before 5.0 a client cannot be told that QoS 2 is not there; its will is given at QoS 1, which subscribers get at most anyway.
    if will.qos == 2 && connect.version.is_5() {
        return Err(Reason::QosNotSupported);
    }
    let expires_s = will.properties.number(id::MESSAGE_EXPIRY);
    let delay_s = will.properties.number(id::WILL_DELAY).unwrap_or(0);
    // The expiry counts from when the will is published.
    let lives = expires_s.map(|seconds| Span::from_secs(i64::from(seconds) + i64::from(delay_s)));
    let message = Message {
        topic: (&*will.topic).into(),
        payload: Bytes::copy_from_slice(&will.payload),
        qos: will.qos.min(1),
        retain: will.retain && route(&will.topic) == Route::Other,
        properties: will.properties.of_message(),
        expires: lives.map(|span| door.env.now().after(span)),
    };
    Ok(Some(Will { message, delay_s, login: login.name.clone() }))
}

/// The properties of a CONNACK that lets the client in: what it cannot take for granted.
fn answer(door: &Door, version: Version, assigned: Option<&str>, expiry_s: Option<u32>) -> Properties {
    if version != Version::V5 {
        return Properties::default();
    }
    let packet_bytes_max = door.settings.packet_bytes_max as u32;
    let mut properties = vec![
        Property { id: id::RECEIVE_MAX, value: Value::U16(RECEIVE_MAX) },
        Property { id: id::MAX_QOS, value: Value::Byte(1) },
        Property { id: id::MAX_PACKET_BYTES, value: Value::U32(packet_bytes_max) },
        Property { id: id::TOPIC_ALIAS_MAX, value: Value::U16(limits::MQTT_ALIASES_MAX as u16) },
        Property { id: id::SHARED_AVAILABLE, value: Value::Byte(0) },
    ];
    properties
        .extend(assigned.map(|name| Property { id: id::ASSIGNED_CLIENT_ID, value: Value::Text(Text::from(name)) }));
    properties.extend(expiry_s.map(|seconds| Property { id: id::SESSION_EXPIRY, value: Value::U32(seconds) }));
    properties.into_iter().collect()
}

/// Unacknowledged publishes that a client of 5.0 may have.
pub(super) const RECEIVE_MAX: u16 = limits::MQTT_PENDING_MAX as u16;
const _: () = assert!(limits::MQTT_PENDING_MAX <= u16::MAX as usize);

fn is_about_login(reason: Reason) -> bool {
    matches!(reason, Reason::BadUserOrPassword | Reason::NotAuthorized | Reason::BadAuthenticationMethod)
}

async fn refuse(door: &Door, stream: &mut Box<dyn Stream>, refused: &Refused) {
    let code = if refused.version.is_5() { refused.reason as u8 } else { refused.reason.connect_code_311() };
    let mut out = BytesMut::new();
    let connack = ConnAck { session_present: false, code, properties: Properties::default() };
    encode(refused.version, &Packet::ConnAck(connack), &mut out);
    let _ = door
        .env
        .timeout(REFUSAL_WAIT, async {
            stream.write_all(&out).await?;
            stream.shutdown().await
        })
        .await;
}
