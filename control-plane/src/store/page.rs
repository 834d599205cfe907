//! Keyset pagination by id: stable under concurrent inserts, and as fast on the last page as on the first.

use sqlx::{
    FromRow, Postgres,
    postgres::{PgArguments, PgRow},
    query::QueryAs,
};
use time::OffsetDateTime;
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

/// What a list is restricted to, as far as all lists can be. `None`: not restricted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The whole name; of members, the address.
    pub name: Option<String>,
    /// How it begins.
    pub name_prefix: Option<String>,
    /// Then or later.
    pub created_after: Option<OffsetDateTime>,
    /// Earlier than then.
    pub created_before: Option<OffsetDateTime>,
}

/// The end of a listing: what stands after `FROM table`. Takes a prefix for ambiguous columns, the column that is the
/// name, and what else has to hold, whose parameters begin at `$7`. To be run by [`page_query`].
macro_rules! page_of {
    ($prefix:literal, $name:literal, $where:literal) => {
        concat!(
            " WHERE ",
            $where,
            " AND ($1::uuid IS NULL OR ",
            $prefix,
            "id > $1)",
            " AND ($3::text IS NULL OR ",
            $prefix,
            $name,
            " = $3)",
            " AND ($4::text IS NULL OR starts_with(",
            $prefix,
            $name,
            ", $4))",
            " AND ($5::timestamptz IS NULL OR ",
            $prefix,
            "created_at >= $5)",
            " AND ($6::timestamptz IS NULL OR ",
            $prefix,
            "created_at < $6)",
            " ORDER BY ",
            $prefix,
            "id LIMIT $2"
        )
    };
}
pub(super) use page_of;

/// A listing that ends in [`page_of`], with its first six parameters bound.
pub(super) fn page_query<'q, O>(
    sql: &'static str,
    page: Page,
    filter: &'q Filter,
) -> QueryAs<'q, Postgres, O, PgArguments>
where
    O: for<'r> FromRow<'r, PgRow>,
{
    sqlx::query_as(sql)
        .bind(page.after)
        .bind(page.limit())
        .bind(filter.name.as_deref())
        .bind(filter.name_prefix.as_deref())
        .bind(filter.created_after)
        .bind(filter.created_before)
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
