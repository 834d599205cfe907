//! Connections to one upstream, the last used first. For one thread.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const MAX_IDLE: usize = 256;

pub(super) struct Pool {
    upstream: SocketAddr,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
    /// The drivers of all connections, bounded by the requests in flight and [`MAX_IDLE`].
    drivers: RefCell<JoinSet<()>>,
}

impl Pool {
    pub(super) fn new(upstream: SocketAddr) -> Self {
        Self { upstream, idle: RefCell::default(), drivers: RefCell::default() }
    }

    pub(super) async fn send(
        self: &Rc<Self>,
        request: Request<Incoming>,
    ) -> anyhow::Result<Response<Pooled>> {
        let mut sender = self.connection().await?;
        let response = sender.send_request(request).await?;
        let home = Some((self.clone(), sender));
        Ok(response.map(|body| Pooled { body, home }))
    }

    async fn connection(&self) -> anyhow::Result<SendRequest<Incoming>> {
        while let Some(mut sender) = self.take() {
            if sender.is_ready() || sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = TcpStream::connect(self.upstream).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut drivers = self.drivers.borrow_mut();
        while drivers.try_join_next().is_some() {}
        drivers.spawn_local(async move {
            let _closed = connection.await;
        });
        Ok(sender)
    }

    fn take(&self) -> Option<SendRequest<Incoming>> {
        self.idle.borrow_mut().pop()
    }

    fn give_back(&self, sender: SendRequest<Incoming>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

/// A response body that brings its connection home when it has been read.
pub(super) struct Pooled {
    body: Incoming,
    home: Option<(Rc<Pool>, SendRequest<Incoming>)>,
}

impl Pooled {
    fn finish(&mut self) {
        if let Some((pool, sender)) = self.home.take() {
            pool.give_back(sender);
        }
    }
}

impl Body for Pooled {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            // An unread or broken connection is not reused: it closes with its sender.
            Some(Err(_)) => self.home = None,
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            Some(Ok(_)) | None => self.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
