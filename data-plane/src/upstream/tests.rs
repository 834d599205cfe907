//! The pool against a scripted upstream over real sockets.

use http_body_util::BodyExt as _;
use nemo_tests::{
    script::{Ending, Script},
    upstream::Upstream,
};

use super::*;

struct World {
    upstream: Upstream,
    client: UpstreamClient,
    route: Route,
}

impl World {
    async fn new() -> Self {
        let upstream = Upstream::start().await.unwrap();
        let client = UpstreamClient::new(Duration::from_secs(5)).unwrap();
        let route = client.route(&upstream.base_url().parse().unwrap());
        Self { upstream, client, route }
    }

    async fn send(&self) -> Result<Response<UpstreamBody>, CallError> {
        let body = br#"{"model":"gpt-4o","messages":[]}"#.as_slice();
        let mut request =
            Request::new(SegmentBody::new(nemo_llm::Segments::from_iter([Bytes::from_static(body)])));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = "/v1/chat/completions".parse().unwrap();
        let host = self.upstream.addr().to_string().parse().unwrap();
        request.headers_mut().insert(http::header::HOST, host);
        self.client.send(&self.route, request, Duration::from_secs(5)).await
    }

    fn idle(&self) -> usize {
        let Route::Http1(origin) = &self.route else { panic!("{:?}", self.route) };
        origin.idle_len()
    }
}

#[tokio::test]
async fn a_connection_is_reused_after_a_whole_answer() {
    let world = World::new().await;
    for _ in 0..3 {
        let response = world.send().await.unwrap();
        assert_eq!(world.idle(), 0, "in use until the body's end");
        response.into_body().collect().await.unwrap();
        assert_eq!(world.idle(), 1);
    }
    world.client.close().await;
}

#[tokio::test]
async fn a_half_read_answer_closes_its_connection() {
    let world = World::new().await;
    world.upstream.push(Script::ok().ending(Ending::Hang(10)));
    let mut body = world.send().await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(world.idle(), 0);
    nemo_tests::eventually("the upstream sees it", async || {
        let request = world.upstream.last_request().unwrap();
        nemo_tests::eventually::yes(request.client_gone_at().is_some())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let world = World::new().await;
    world.upstream.push(Script::ok().header("connection", "close").unwrap());
    world.send().await.unwrap().into_body().collect().await.unwrap();
    let response = world.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    assert_eq!(world.upstream.served(), 2, "and no request is sent twice");
}

#[tokio::test]
async fn without_a_listener_the_error_says_connect() {
    let mut world = World::new().await;
    world.upstream = Upstream::start().await.unwrap();
    assert_eq!(world.send().await.unwrap_err(), CallError::Connect);
}

#[tokio::test]
async fn what_is_no_http_is_a_protocol_error_and_silence_a_broken_one() {
    let world = World::new().await;
    world.upstream.push(Script::wire("this is not http\r\n\r\n"));
    assert_eq!(world.send().await.unwrap_err(), CallError::Protocol);
    world.upstream.push(Script::wire(""));
    assert_eq!(world.send().await.unwrap_err(), CallError::Broken);
}

#[test]
fn addresses_of_one_origin_share_a_pool_as_long_as_somebody_uses_it() {
    let client = UpstreamClient::new(Duration::from_secs(1)).unwrap();
    let route = |text: &str| match client.route(&text.parse().unwrap()) {
        Route::Http1(origin) => Some(origin),
        Route::Https => None,
    };
    let (first, second) = (route("http://h:1/v1").unwrap(), route("http://h:1/other").unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!Arc::ptr_eq(&first, &route("http://h:2/v1").unwrap()));
    assert!(route("https://h:1/v1").is_none());
    assert_eq!(client.origins.lock().unwrap().len(), 2);
    drop((first, second));
    let _other = route("http://elsewhere");
    assert_eq!(client.origins.lock().unwrap().len(), 1, "unused pools are forgotten");
}
