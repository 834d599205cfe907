//! Marks on what goes out to clients and is to come back from the same ones: that this installation has made it, and for
//! whom. Keyed with what the [`crate::Keyring`] holds, which every node has, so that each can check the marks of all
//! others and nothing has to be remembered. Used by the data plane for the ids of what providers keep.

use std::sync::Arc;

use ring::hmac;

/// Bytes of a mark: a guess is right once in 2^96, and each takes a request.
pub const MARK_LEN: usize = 12;

/// Tells what a key is for: nothing that was derived from it for something else is of use here.
const PURPOSE: &[u8] = b"nemo-router ids v1";

/// Makes marks and checks them. Clones share the keys.
#[derive(Clone)]
pub struct Marker {
    /// In the order of the keyring: the first one is current.
    keys: Arc<[hmac::Key]>,
}

impl std::fmt::Debug for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Marker({} keys)", self.keys.len())
    }
}

impl Marker {
    pub(crate) fn new(keys: impl Iterator<Item = hmac::Key>) -> Self {
        Self { keys: keys.collect() }
    }

    /// The mark of these parts under the key with this index; all zero when there is no such key, which no check accepts.
    pub fn mark(&self, key: usize, parts: &[&[u8]]) -> [u8; MARK_LEN] {
        let mut mark = [0; MARK_LEN];
        if let Some(key) = self.keys.get(key) {
            mark.copy_from_slice(&sign(key, parts).as_ref()[..MARK_LEN]);
        }
        mark
    }

    /// Index of the key under which this is the mark of these parts; `None`: it is no mark of theirs.
    pub fn check(&self, parts: &[&[u8]], mark: [u8; MARK_LEN]) -> Option<usize> {
        self.keys.iter().position(|key| {
            let expected = sign(key, parts);
            // In constant time: how much of a guess is right must not show.
            let differs = expected.as_ref().iter().zip(mark).fold(0, |all, (a, b)| all | (a ^ b));
            std::hint::black_box(differs) == 0
        })
    }
}

/// Derives the key for marks from one of the keyring.
pub(crate) fn key(secret: &[u8]) -> hmac::Key {
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), PURPOSE);
    hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
}

/// Each part with its length, so that none can lend the next one its end.
fn sign(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use crate::Keyring;

    fn keyring(keys: &[u8]) -> Keyring {
        let text: Vec<_> = keys.iter().map(|key| format!("{key:02x}").repeat(32)).collect();
        Keyring::parse(&text.join(" ")).unwrap()
    }

    #[test]
    fn a_mark_is_of_its_parts_and_nothing_else() {
        let marker = keyring(&[1]).marker();
        let mark = marker.mark(0, &[b"org", b"id"]);
        assert_eq!(marker.check(&[b"org", b"id"], mark), Some(0));
        for other in [&[&b"org"[..], b"ie"][..], &[b"orgi", b"d"], &[b"orgid"], &[b"org", b"id", b""]] {
            assert_eq!(marker.check(other, mark), None);
        }
        for at in 0..mark.len() {
            let mut forged = mark;
            forged[at] ^= 1;
            assert_eq!(marker.check(&[b"org", b"id"], forged), None);
        }
    }

    /// Nodes of a fleet may have rotated their keys already, or not yet.
    #[test]
    fn any_key_of_the_ring_checks_what_it_has_marked() {
        let (old, both, new) = (keyring(&[1]).marker(), keyring(&[2, 1]).marker(), keyring(&[2]).marker());
        let mark = old.mark(0, &[b"x"]);
        assert_eq!(both.check(&[b"x"], mark), Some(1));
        assert_eq!(both.mark(1, &[b"x"]), mark, "the same id again, whichever key is current");
        assert_eq!(new.check(&[b"x"], mark), None);
        assert_eq!(both.check(&[b"x"], both.mark(7, &[b"x"])), None);
        assert_eq!(format!("{both:?}"), "Marker(2 keys)");
    }
}
