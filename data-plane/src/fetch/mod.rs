//! Fetches the images and documents that a request names by URL, where its organization allows that and the candidate
//! wants the bytes. The client chooses the URLs and this node sends, so that: only https; only addresses of the public
//! internet, checked for the very address that is connected to, each time, redirects included; nothing but the URL is
//! sent; what comes must be what it says it is, in a bounded size and time.
//!
//! Called by `pipeline::crossing::fetch`, for one candidate at a time, never ahead of what could refuse the request (I1).

mod client;
mod kind;
mod space;
mod target;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::future::try_join_all;
use ipnet::IpNet;
use nemo_llm::{File, Files, Link};
use nemo_runtime::public_address::is_public;
use rustls::ClientConfig;
use tokio::time::Instant;

use self::space::{Reserved, Space};

/// Files of one request.
const MAX_FILES: usize = 16;
const MAX_FILE: usize = 10 << 20;
/// All files of one request together.
const MAX_ALL: usize = 20 << 20;
const MAX_REDIRECTS: usize = 3;
/// For all files of a request.
const PATIENCE: Duration = Duration::from_secs(10);
const AT_ONCE: usize = 4;

/// Fetches for this node.
#[derive(Clone, Debug)]
pub struct Fetcher {
    tls: std::sync::Arc<ClientConfig>,
    allowed: Box<[IpNet]>,
    space: Space,
}

/// What was fetched for a request. It counts for the node as long as this is kept.
#[derive(Debug)]
pub struct Held {
    pub files: Files,
    _space: Reserved,
}

/// Why a file is not there. It says nothing of what a server has answered but its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("its URL can't be read")]
    Malformed,
    #[error("it is not behind https")]
    NotHttps,
    #[error("its URL holds a user or a password")]
    Credentials,
    #[error("its host has no public address")]
    Private,
    #[error("its host can't be reached by https")]
    Unreachable,
    #[error("its host broke off the answer")]
    Broken,
    #[error("its host answered with status {0}")]
    Status(u16),
    #[error("it was redirected more than {MAX_REDIRECTS} times")]
    Redirects,
    #[error("it did not come within {} seconds", PATIENCE.as_secs())]
    Late,
    #[error("it is larger than {} MiB", MAX_FILE >> 20)]
    TooLarge,
    #[error("the files of this request are larger than {} MiB together", MAX_ALL >> 20)]
    AllTooLarge,
    #[error("it came compressed, which was not asked for")]
    Encoded,
    #[error("it is no PNG, JPEG, GIF or WebP")]
    NoImage,
    #[error("it is no PDF")]
    NoDocument,
    #[error("at most {MAX_FILES} files are fetched for a request")]
    TooMany,
    #[error("this node holds as many fetched files as it may (max_fetch_bytes), try again later")]
    Full,
}

/// A file that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFetched {
    /// Of the link.
    pub path: String,
    pub why: Why,
}

impl Fetcher {
    /// `allowed`: networks of one's own that may be fetched from as well. `most`: bytes of files, as base64, for all
    /// requests together.
    pub fn new(tls: ClientConfig, allowed: Box<[IpNet]>, most: u64) -> Self {
        Self { tls: std::sync::Arc::new(tls), allowed, space: Space::new(most) }
    }

    /// Fetches all of these, until `due` at the latest.
    ///
    /// # Errors
    /// The first that can't be had.
    pub async fn all(&self, links: &[Link], due: Instant) -> Result<Held, NotFetched> {
        if let Some(link) = links.get(MAX_FILES) {
            return Err(NotFetched { path: link.path.clone(), why: Why::TooMany });
        }
        let (due, room) = (due.min(Instant::now() + PATIENCE), Room::default());
        let first = || links.first().map_or_else(String::new, |link| link.path.clone());
        let reserved = self.space.reserve(links.len(), due).await;
        let mut reserved = reserved.map_err(|why| NotFetched { path: first(), why })?;
        let mut files = Vec::with_capacity(links.len());
        for batch in links.chunks(AT_ONCE) {
            let fetched = batch.iter().map(|link| self.timely(link, &room, due));
            files.append(&mut try_join_all(fetched).await?);
        }
        reserved.shrink(files.iter().map(|file| file.data.len()).sum());
        Ok(Held { files: Files(files), _space: reserved })
    }

    async fn timely(&self, link: &Link, room: &Room, due: Instant) -> Result<File, NotFetched> {
        let file = tokio::time::timeout_at(due, self.one(link, room)).await;
        file.unwrap_or(Err(Why::Late)).map_err(|why| NotFetched { path: link.path.clone(), why })
    }

    async fn one(&self, link: &Link, room: &Room) -> Result<File, Why> {
        let got = client::get(self, link, room).await?;
        let data = BASE64_STANDARD.encode(&got.body);
        Ok(File { url: link.url.clone(), media_type: got.media_type, data })
    }

    /// Whether this node may connect there.
    fn may(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// What the files of one request may still take.
#[derive(Debug, Default)]
struct Room {
    taken: AtomicUsize,
}

impl Room {
    fn take(&self, bytes: usize) -> Result<(), Why> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_ALL { Err(Why::AllTooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
