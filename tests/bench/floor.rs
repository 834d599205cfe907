//! The floor: the least that an HTTP proxy written with hyper costs. The gateway is measured against it.
//!
//! One thread; requests and responses are streamed both ways, hop-by-hop headers dropped, connections to the upstream
//! kept. `--client legacy` (the default) uses hyper-util's pooled client, what one would write first; `--client raw` a
//! pool of its own over `hyper::client::conn`, the least that hyper can do.

mod pool;

use std::convert::Infallible;
use std::future::Future;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::{JoinSet, LocalSet};

use pool::{Pool, Pooled};

const MAX_CONNECTIONS: usize = 4096;
const HOP_BY_HOP: [HeaderName; 5] =
    [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive")];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port on 127.0.0.1; 0 takes a free one and prints it.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Address of the upstream.
    #[arg(long)]
    upstream: SocketAddr,
    #[arg(long, value_enum, default_value_t = ClientKind::Legacy)]
    client: ClientKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ClientKind {
    /// `hyper_util::client::legacy::Client`
    Legacy,
    /// `hyper::client::conn::http1` with a LIFO pool
    Raw,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
            .await
            .with_context(|| format!("listen on 127.0.0.1:{}", args.port))?;
        writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        match args.client {
            ClientKind::Legacy => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                let client =
                    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(256).build(connector);
                let authority = Authority::try_from(args.upstream.to_string())?;
                serve(listener, move |request| legacy(request, client.clone(), authority.clone())).await
            }
            ClientKind::Raw => {
                let host = HeaderValue::try_from(args.upstream.to_string())?;
                let pool = Rc::new(Pool::new(args.upstream));
                serve(listener, move |request| raw(request, pool.clone(), host.clone())).await
            }
        }
    })
}

type Answer<B> = Result<Response<Either<B, Full<Bytes>>>, Infallible>;

/// Accepts for ever. At most [`MAX_CONNECTIONS`]; more wait in the backlog.
async fn serve<H, F, B>(listener: TcpListener, handle: H) -> anyhow::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Answer<B>> + 'static,
    B: http_body::Body<Data = Bytes> + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service_fn(handle.clone());
        connections.spawn_local(async move {
            let _client_gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn path(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

async fn legacy(
    mut request: Request<Incoming>,
    client: Client<HttpConnector, Incoming>,
    authority: Authority,
) -> Answer<Incoming> {
    strip(request.headers_mut());
    request.headers_mut().remove(HOST);
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path(request.uri()));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    match client.request(request).await {
        Ok(response) => Ok(pass(response)),
        Err(error) => Ok(bad_gateway(&error.to_string())),
    }
}

async fn raw(mut request: Request<Incoming>, pool: Rc<Pool>, host: HeaderValue) -> Answer<Pooled> {
    strip(request.headers_mut());
    request.headers_mut().insert(HOST, host);
    *request.uri_mut() = path(request.uri()).into();
    match pool.send(request).await {
        Ok(response) => Ok(pass(response)),
        Err(error) => Ok(bad_gateway(&format!("{error:#}"))),
    }
}

fn pass<B>(mut response: Response<B>) -> Response<Either<B, Full<Bytes>>> {
    strip(response.headers_mut());
    response.map(Either::Left)
}

fn bad_gateway<B>(message: &str) -> Response<Either<B, Full<Bytes>>> {
    let mut response = Response::new(Either::Right(Full::from(message.to_owned())));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
