//! A small and fast MQTT 3.1.1 client for `bench` and `demo`: QoS 1, many publishes in flight, subscriptions, and a reconnect
//! that sends again what was not acknowledged. Not a client for others: it knows nothing of publishing at QoS 0 and 2, wills or MQTT 5.
//!
//! [`Session`] decides and owns all buffers; [`Connection`] moves bytes between it and a stream.

mod packet;
mod session;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use millpond_core::time::Span;
use millpond_env::{Env, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use packet::Malformed;
pub use session::Session;

/// How long connecting and logging in may take.
const CONNECT_TIMEOUT: Span = Span::from_secs(10);
/// Bytes asked of the stream at a time.
const READ_BYTES: usize = 64 << 10;

/// Whom to connect to, as whom.
#[derive(Clone, Debug)]
pub struct Options {
    pub host: String,
    pub port: u16,
    pub client_id: String,
    /// User and password; a token is a password (its user may be anything).
    pub login: Option<(String, String)>,
    /// Most QoS 1 publishes without an acknowledgement, from 1 to 65535.
    pub in_flight: u16,
}

/// Why a connection ended or never was.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    #[error("{host}:{port}: {source}")]
    Unreachable { host: String, port: u16, source: io::Error },
    #[error("{host}:{port} did not answer within {CONNECT_TIMEOUT}")]
    TimedOut { host: String, port: u16 },
    #[error("the server refused the login: {0}")]
    Refused(&'static str),
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("the server sent {0}")]
    Malformed(#[from] Malformed),
}

/// A session on a stream.
#[derive(Debug)]
pub struct Connection {
    options: Options,
    stream: Box<dyn Stream>,
    session: Session,
    /// Read from the stream, on its way into the session.
    incoming: Vec<u8>,
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Nothing was published.
    pub async fn open(env: &Env, options: Options) -> Result<Connection, MqttError> {
        let mut session = Session::new(options.in_flight);
        let stream = connect(env, &options, &mut session).await?;
        Ok(Connection { options, stream, session, incoming: vec![0; READ_BYTES] })
    }

    /// Connects again after an error. What was not acknowledged is sent again, in its order; subscriptions are renewed.
    ///
    /// # Errors
    /// The session keeps everything; try again later.
    pub async fn reopen(&mut self, env: &Env) -> Result<(), MqttError> {
        self.session.disconnected();
        self.stream = connect(env, &self.options, &mut self.session).await?;
        Ok(())
    }

    /// The next [`reopen`](Self::reopen) goes to another server, with the same session.
    pub fn turn_to(&mut self, host: &str, port: u16) {
        (self.options.host, self.options.port) = (host.to_owned(), port);
    }

    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Writes what the session wants to send and reads what the server sent, until something moved. Loses nothing when dropped half-way.
    ///
    /// # Errors
    /// The stream is of no use any more: [`reopen`](Self::reopen).
    pub async fn pump(&mut self) -> Result<(), MqttError> {
        poll_fn(|cx| self.poll_pump(cx)).await
    }

    /// Writes everything the session wants to send, and the closing packet. Acknowledgements are not waited for.
    pub async fn close(mut self) -> Result<(), MqttError> {
        self.session.disconnect();
        while !self.session.outgoing().is_empty() {
            self.pump().await?;
        }
        Ok(())
    }

    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), MqttError>> {
        let mut moved = false;
        while !self.session.outgoing().is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, self.session.outgoing()) {
                Poll::Ready(written) => self.session.sent(written?),
                Poll::Pending => break,
            }
            moved = true;
        }
        let mut room = ReadBuf::new(&mut self.incoming);
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut room) {
            read?;
            if room.filled().is_empty() {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
            self.session.received(room.filled())?;
            moved = true;
        }
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

async fn connect(env: &Env, options: &Options, session: &mut Session) -> Result<Box<dyn Stream>, MqttError> {
    let (host, port) = (options.host.clone(), options.port);
    let login = async {
        let mut stream = env
            .net
            .connect(&options.host, options.port)
            .await
            .map_err(|source| MqttError::Unreachable { host: host.clone(), port, source })?;
        session.connect(&options.client_id, options.login.as_ref());
        let mut incoming = [0; 512];
        while !session.is_open() {
            poll_fn(|cx| exchange(&mut stream, session, &mut incoming, cx)).await?;
        }
        Ok(stream)
    };
    env.timeout(CONNECT_TIMEOUT, login).await.unwrap_or(Err(MqttError::TimedOut { host: host.clone(), port }))
}

/// One step of the login: all that is to be written, then some of what is to be read.
fn exchange(
    stream: &mut Box<dyn Stream>,
    session: &mut Session,
    incoming: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<Result<(), MqttError>> {
    while !session.outgoing().is_empty() {
        match Pin::new(&mut *stream).poll_write(cx, session.outgoing()) {
            Poll::Ready(written) => session.sent(written?),
            Poll::Pending => return Poll::Pending,
        }
    }
    let mut room = ReadBuf::new(incoming);
    match Pin::new(stream).poll_read(cx, &mut room) {
        Poll::Ready(read) => {
            read?;
            if room.filled().is_empty() {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
            session.received(room.filled())?;
            match session.refusal() {
                Some(reason) => Poll::Ready(Err(MqttError::Refused(reason))),
                None => Poll::Ready(Ok(())),
            }
        }
        Poll::Pending => Poll::Pending,
    }
}
