//! tonic without a network: both planes in one process talk over memory, through the same services.
//!
//! `nemo standalone` gives the [`Connector`] to the data plane
//! (`Endpoint::connect_with_connector_lazy`) and the [`Incoming`] to the control plane
//! (`Server::serve_with_incoming`). Every connect opens a new pipe, so reconnects work as over TCP.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, future::BoxFuture};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::mpsc};

/// Bytes in flight per direction. About one HTTP/2 frame of the default size, with room for its header and more.
const PIPE_BYTES: usize = 64 * 1024;
/// Connects that may wait to be accepted.
const BACKLOG: usize = 16;

/// A connected pair.
pub fn channel() -> (Connector, Incoming) {
    let (connects, accepts) = mpsc::channel(BACKLOG);
    (Connector { connects }, Incoming { accepts })
}

/// The client's end. Clones connect to the same server.
#[derive(Clone, Debug)]
pub struct Connector {
    connects: mpsc::Sender<DuplexStream>,
}

/// The server's end: a stream of accepted connections.
#[derive(Debug)]
pub struct Incoming {
    accepts: mpsc::Receiver<DuplexStream>,
}

impl Connector {
    /// Opens a new connection.
    ///
    /// # Errors
    /// `ConnectionRefused` when the server's end is gone.
    pub async fn connect(&self) -> io::Result<DuplexStream> {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        match self.connects.send(server).await {
            Ok(()) => Ok(client),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "the control plane in this process has stopped",
            )),
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<DuplexStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}

impl Stream for Incoming {
    type Item = io::Result<DuplexStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepts.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn every_connect_is_a_connection_of_its_own() {
        let (connector, mut incoming) = channel();
        let mut first = connector.connect().await.unwrap();
        let mut second = connector.clone().connect().await.unwrap();
        let (mut one, mut two) =
            (incoming.next().await.unwrap().unwrap(), incoming.next().await.unwrap().unwrap());
        first.write_all(b"1").await.unwrap();
        second.write_all(b"2").await.unwrap();
        assert_eq!((one.read_u8().await.unwrap(), two.read_u8().await.unwrap()), (b'1', b'2'));
        drop(one);
        assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_stopped_server_refuses_and_lost_clients_end_the_stream() {
        let (connector, incoming) = channel();
        drop(incoming);
        assert_eq!(connector.connect().await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let (connector, mut incoming) = channel();
        drop(connector);
        assert!(incoming.next().await.is_none());
    }
}
