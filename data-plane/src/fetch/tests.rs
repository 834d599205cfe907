use std::time::Duration;

use super::*;
use crate::upstream::UpstreamClient;

fn fetcher(allowed: &[&str]) -> Fetcher {
    let allowed = allowed.iter().map(|network| network.parse().unwrap()).collect();
    Fetcher::new(UpstreamClient::new(None).unwrap().tls_http1(), allowed, 256 << 20)
}

fn link(url: &str) -> Link {
    Link { url: url.into(), path: "messages[0].content[0].image_url".to_owned(), document: false }
}

fn due() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// SSRF: whatever way a private address is written or found, nothing is sent there.
#[tokio::test]
async fn nothing_private_is_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let fetcher = fetcher(&[]);
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0.0.0.0",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "[fe80::1]",
        "[fd00::1]",
    ] {
        let url = format!("https://{host}:{port}/x.png");
        let error = fetcher.all(&[link(&url)], due()).await.unwrap_err();
        // Some spellings are no name either.
        assert!(matches!(error.why, Why::Private | Why::Malformed), "{url}: {error:?}");
        assert_eq!(error.path, "messages[0].content[0].image_url");
    }
    let came = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(came.is_err(), "somebody has connected");
}

#[test]
fn only_what_the_operator_has_allowed_is_not_public_and_called_all_the_same() {
    let may = |allowed: &[&str], address: &str| fetcher(allowed).may(address.parse().unwrap());
    assert!(may(&[], "1.1.1.1") && may(&[], "2606:4700::1111"));
    assert!(!may(&[], "10.1.2.3"));
    assert!(may(&["10.1.0.0/16"], "10.1.2.3") && may(&["10.1.0.0/16"], "::ffff:10.1.2.3"));
    assert!(!may(&["10.1.0.0/16"], "10.2.2.3") && !may(&["10.1.0.0/16"], "127.0.0.1"));
}

#[tokio::test]
async fn a_request_has_so_many_files_and_no_more() {
    let mut links: Vec<Link> = (0..17).map(|at| link(&format!("https://127.0.0.1/{at}"))).collect();
    links[16].path = "the seventeenth".to_owned();
    let error = fetcher(&[]).all(&links, due()).await.unwrap_err();
    assert_eq!(error, NotFetched { path: "the seventeenth".to_owned(), why: Why::TooMany });
    assert!(fetcher(&[]).all(&[], due()).await.unwrap().files.0.is_empty());
}

#[test]
fn files_have_room_together() {
    let room = Room::default();
    assert_eq!(room.take(MAX_ALL - 1), Ok(()));
    assert_eq!(room.take(1), Ok(()));
    assert_eq!(room.take(1), Err(Why::AllTooLarge));
}

/// Nothing is waited for longer than the request may take.
#[tokio::test]
async fn what_does_not_come_in_time_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/x.png", listener.local_addr().unwrap().port());
    let due = Instant::now() + Duration::from_millis(100);
    let error = fetcher(&["127.0.0.1/32"]).all(&[link(&url)], due).await.unwrap_err();
    assert_eq!(error.why, Why::Late);
    drop(listener);
}

/// The node's bound is one of all requests together: who finds no room waits as long as the request may take.
#[tokio::test]
async fn who_finds_no_room_on_the_node_is_refused_and_asks_nobody() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/x.png", listener.local_addr().unwrap().port());
    let allowed = Box::new(["127.0.0.1/32".parse().unwrap()]);
    let fetcher = Fetcher::new(UpstreamClient::new(None).unwrap().tls_http1(), allowed, 1);
    let (links, slow) = ([link(&url)], Instant::now() + Duration::from_secs(3600));
    let second = async {
        let _connected = listener.accept().await.unwrap();
        let due = Instant::now() + Duration::from_millis(50);
        let error = fetcher.all(&links, due).await.unwrap_err();
        assert_eq!((error.why, &*error.path), (Why::Full, "messages[0].content[0].image_url"));
    };
    tokio::select! {
        first = fetcher.all(&links, slow) => panic!("{first:?}"),
        () = second => {}
    }
    assert!(fetcher.space.reserve(1, due()).await.is_ok(), "what is over has given its room back");
}
