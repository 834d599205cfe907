//! The short way through a `usage` object: counts, words and objects of counts, written as every provider writes them,
//! with no escape, no fraction and no list. Whatever is not so plain is left to the JSON walker. Called by [`super`] for every
//! answer, which is why it is here.

use super::counts::{Counts, Details};
use crate::json::scan;

/// The members that follow an opening brace.
pub(super) struct Plain<'a> {
    document: &'a [u8],
    at: usize,
}

/// What a member's value is.
enum Item<'a> {
    Count(u64),
    Null,
    /// A string without escapes.
    Word(&'a [u8]),
    /// An object; the reading stands behind its brace.
    Object,
}

impl<'a> Plain<'a> {
    /// `at` is where the value of `usage` begins, white space allowed before it.
    pub(super) fn open(document: &'a [u8], at: usize) -> Option<Self> {
        let mut plain = Self { document, at };
        (plain.token()? == b'{').then_some(plain)
    }

    /// Where the reading stands.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    /// Reads to the closing brace; `None` for what is not plain.
    pub(super) fn counts(&mut self) -> Option<Counts> {
        let mut counts = Counts::default();
        self.members(|plain, name, item| match item {
            Item::Count(count) => counts.count(name, Some(count)).then_some(()),
            Item::Null => counts.count(name, None).then_some(()),
            Item::Word(text) => counts.word(name, text).then_some(()),
            Item::Object => {
                let details = Details::of(name)?;
                plain.members(|_, name, item| match item {
                    Item::Count(count) => {
                        counts.detail(details, name, count);
                        Some(())
                    }
                    Item::Null | Item::Word(_) => Some(()),
                    Item::Object => None,
                })
            }
        })?;
        Some(counts)
    }

    fn members(&mut self, mut take: impl FnMut(&mut Self, &'a [u8], Item<'a>) -> Option<()>) -> Option<()> {
        let mut byte = self.token()?;
        if byte == b'}' {
            return Some(());
        }
        loop {
            if byte != b'"' {
                return None;
            }
            let name = self.name()?;
            if self.token()? != b':' {
                return None;
            }
            let item = self.item()?;
            take(self, name, item)?;
            match self.token()? {
                b',' => byte = self.token()?,
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// The next byte that is no white space.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        loop {
            let byte = *self.document.get(self.at)?;
            self.at += 1;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
        }
    }

    /// Up to the closing quote, which is passed.
    #[inline]
    fn name(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let near = scan::special_nearby(self.document, start);
        let end = near.unwrap_or_else(|| scan::special_in_string(self.document, start));
        self.at = end + 1;
        (self.document.get(end) == Some(&b'"')).then(|| &self.document[start..end])
    }

    #[inline]
    fn item(&mut self) -> Option<Item<'a>> {
        match self.token()? {
            b'{' => Some(Item::Object),
            b'"' => self.name().map(Item::Word),
            b'n' => self.document.get(self.at..)?.starts_with(b"ull").then(|| {
                self.at += b"ull".len();
                Item::Null
            }),
            first @ b'0'..=b'9' => {
                let mut count = u64::from(first - b'0');
                while let Some(digit @ b'0'..=b'9') = self.document.get(self.at) {
                    // A leading zero is no number; the walker says so.
                    if count == 0 {
                        return None;
                    }
                    count = count.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
                    self.at += 1;
                }
                Some(Item::Count(count))
            }
            _ => None,
        }
    }
}
