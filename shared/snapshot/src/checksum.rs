//! An order-independent checksum of a resource set that is updated in constant time per change.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

/// Sum of the 128-bit hashes of all resources, modulo 2^128. Guards against bugs and lost messages, not against
/// forgery.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum(u128);

impl Checksum {
    /// Hash of one encoded resource.
    pub(crate) fn of(encoded: &[u8]) -> Self {
        Self(xxh3_128(encoded))
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }

    pub(crate) fn remove(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// `None` unless there are 16 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
