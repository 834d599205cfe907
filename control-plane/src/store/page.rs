//! Keyset pagination by id: stable under concurrent inserts, and as fast on the last page as on the first.

use uuid::Uuid;

/// One page that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Id of the last row of the page before; `None` for the first page.
    pub after: Option<Uuid>,
    /// Rows per page, at most 1000.
    pub size: u32,
}

impl Page {
    /// One row more than asked for tells whether there is a next page.
    pub(super) fn limit(self) -> i64 {
        i64::from(self.size) + 1
    }
}

/// One page of rows.
#[derive(Debug)]
pub struct Listed<T> {
    pub rows: Vec<T>,
    /// What [`Page::after`] has to be for the next page; `None` on the last.
    pub next: Option<Uuid>,
}

impl<T> Listed<T> {
    pub(super) fn new(mut rows: Vec<T>, page: Page, id: impl Fn(&T) -> Uuid) -> Self {
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        Self { next: rows.last().filter(|_| more).map(id), rows }
    }
}
