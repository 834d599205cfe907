//! An endpoint for webhooks: keeps what comes and answers what it is told to. Used by tests of events.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

/// A webhook as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What it was answered with.
    pub answered: u16,
}

impl Received {
    /// Empty when there is no such header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

#[derive(Default)]
struct Inbox {
    received: Vec<Received>,
    /// For events of a type: the next statuses.
    answers: VecDeque<(String, u16)>,
}

/// Listens on loopback until it is dropped.
pub struct Receiver {
    addr: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (addr, inbox) = (listener.local_addr()?, Arc::new(Mutex::new(Inbox::default())));
        let serving = serve(listener, inbox.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the receiver")]
        let serving = tokio::spawn(serving);
        Ok(Self { addr, inbox, serving })
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.addr)
    }

    /// The next event of this type is answered so; everything else with 204.
    pub fn answer(&self, event_type: &str, status: u16) {
        self.lock().answers.push_back((event_type.to_owned(), status));
    }

    /// What came, of one type.
    pub fn received(&self, event_type: &str) -> Vec<Received> {
        let inbox = self.lock();
        inbox.received.iter().filter(|it| it.json()["type"] == event_type).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, inbox: Arc<Mutex<Inbox>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let inbox = inbox.clone();
        let take = service_fn(move |request| take(inbox.clone(), request));
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), take);
        #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
        let _connection = tokio::spawn(connection);
    }
}

async fn take(
    inbox: Arc<Mutex<Inbox>>,
    request: http::Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut received = Received { headers: head.headers, body, answered: 204 };
    let event_type = received.json()["type"].as_str().unwrap_or_default().to_owned();
    let mut inbox = inbox.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(at) = inbox.answers.iter().position(|(of, _)| *of == event_type) {
        received.answered = inbox.answers.remove(at).map_or(204, |(_, status)| status);
    }
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::from_u16(received.answered).unwrap_or(StatusCode::NO_CONTENT);
    inbox.received.push(received);
    Ok(response)
}
