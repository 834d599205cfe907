//! One GET over a connection of its own: the host's addresses are looked up, those that may not be called are left out,
//! and one of the others is connected to, so that no second lookup can give another. Called by [`super`].

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use nemo_llm::Link;
use nemo_runtime::public_address::is_public;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Fetcher, MAX_FILE, MAX_REDIRECTS, Room, Why, kind, target};

/// Of the addresses that a name has.
const MAX_ADDRESSES: usize = 3;

/// What came.
pub struct Got {
    pub media_type: &'static str,
    pub body: Bytes,
}

/// What a single request brought.
enum Step {
    Got(Got),
    Redirect(Uri),
}

/// Gets the file, over some redirects at most.
pub async fn get(fetcher: &Fetcher, link: &Link, room: &Room) -> Result<Got, Why> {
    let mut uri = target::parse(&link.url)?;
    for _ in 0..=MAX_REDIRECTS {
        let (stream, public) = connect(fetcher, &uri).await?;
        match exchange(stream, &uri, (link.document, public), room).await? {
            Step::Got(got) => return Ok(got),
            Step::Redirect(next) => uri = next,
        }
    }
    Err(Why::Redirects)
}

/// A connection to an address that may be called, and whether that is a public one.
async fn connect(fetcher: &Fetcher, uri: &Uri) -> Result<(TlsStream<TcpStream>, bool), Why> {
    let host = uri.host().ok_or(Why::Malformed)?.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Why::Malformed)?;
    let addresses = addresses(fetcher, host, uri.port_u16().unwrap_or(443)).await?;
    for address in addresses {
        let Ok(stream) = TcpStream::connect(address).await else { continue };
        let connector = TlsConnector::from(fetcher.tls.clone());
        if let Ok(stream) = connector.connect(name.clone(), stream).await {
            return Ok((stream, is_public(address.ip())));
        }
    }
    Err(Why::Unreachable)
}

/// Of a name: those that may be called. Whether there were others is not told.
async fn addresses(fetcher: &Fetcher, host: &str, port: u16) -> Result<Vec<SocketAddr>, Why> {
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => tokio::net::lookup_host((host, port)).await.map_err(|_| Why::Private)?.collect(),
    };
    let allowed = found.into_iter().filter(|address| fetcher.may(address.ip()));
    let allowed: Vec<_> = allowed.take(MAX_ADDRESSES).collect();
    if allowed.is_empty() { Err(Why::Private) } else { Ok(allowed) }
}

async fn exchange(
    stream: TlsStream<TcpStream>,
    uri: &Uri,
    (document, public): (bool, bool),
    room: &Room,
) -> Result<Step, Why> {
    let handshake = http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| Why::Broken)?;
    let request = request(uri, document)?;
    let mut work = std::pin::pin!(async move {
        let answer = sender.send_request(request).await.map_err(|_| Why::Broken)?;
        take(answer, uri, (document, public), room).await
    });
    tokio::select! {
        done = &mut work => return done,
        _ended = connection => {}
    }
    // Its last bytes may be there still.
    work.await
}

/// Nothing but the URL, and who asks.
fn request(uri: &Uri, document: bool) -> Result<Request<Empty<Bytes>>, Why> {
    let authority = uri.authority().ok_or(Why::Malformed)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::USER_AGENT, concat!("nemo-router/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, HeaderValue::from_static(kind::accept(document)))
        .header(header::CONNECTION, HeaderValue::from_static("close"));
    request.body(Empty::new()).map_err(|_| Why::Malformed)
}

async fn take(
    answer: Response<Incoming>,
    uri: &Uri,
    (document, public): (bool, bool),
    room: &Room,
) -> Result<Step, Why> {
    let headers = answer.headers();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_redirection() && headers.contains_key(header::LOCATION) => {
            let location = text(header::LOCATION).ok_or(Why::Malformed)?;
            return target::redirect(uri, location).map(Step::Redirect);
        }
        // What one's own servers answer is nobody's business.
        _ if !public => return Err(Why::Unreachable),
        status => return Err(Why::Status(status.as_u16())),
    }
    if text(header::CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Why::Encoded);
    }
    let media_type = kind::named(text(header::CONTENT_TYPE), document)?;
    let declared = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if declared.is_some_and(|length| length > MAX_FILE) {
        return Err(Why::TooLarge);
    }
    let body = read(answer.into_body(), room).await?;
    kind::check(media_type, &body)?;
    Ok(Step::Got(Got { media_type, body }))
}

async fn read(mut body: Incoming, room: &Room) -> Result<Bytes, Why> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Why::Broken)?.into_data() else { continue };
        if all.len().saturating_add(data.len()) > MAX_FILE {
            return Err(Why::TooLarge);
        }
        room.take(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}
