//! Capability tags as bits: every tag of a snapshot has a number, so that "has all of these" is one operation.

use std::fmt;

/// More different tags than these can't be told apart by one [`TagSet`].
pub const MAX_TAGS: usize = 128;

/// A set of tags, as bits. It means something only beside the [`TagNames`] of the snapshot that it was made with.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TagSet(pub u128);

impl TagSet {
    pub const EMPTY: Self = Self(0);

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of tags.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in the other.
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for TagSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagSet({:#x})", self.0)
    }
}

/// Every tag that a snapshot knows, in order; its position is its bit in a [`TagSet`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagNames(Box<[Box<str>]>);

/// No model of the catalog has the tag, nor does anything else name it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown tag {0:?}")]
pub struct UnknownTag(pub String);

impl TagNames {
    /// Tags that are known in every snapshot, because requests imply them: a request with an image must find no
    /// deployment, not any deployment, where no model can see.
    pub const WELL_KNOWN: [&str; 10] = [
        "audio",
        "code",
        "fast",
        "function-calling",
        "json",
        "long-context",
        "multilingual",
        "multimodal",
        "reasoning",
        "vision",
    ];

    /// # Errors
    /// The number of different tags, when it is more than [`MAX_TAGS`].
    pub fn new<'a>(tags: impl IntoIterator<Item = &'a str>) -> Result<Self, usize> {
        let mut all: Vec<&str> = tags.into_iter().chain(Self::WELL_KNOWN).collect();
        all.sort_unstable();
        all.dedup();
        if all.len() > MAX_TAGS {
            return Err(all.len());
        }
        Ok(Self(all.into_iter().map(Into::into).collect()))
    }

    /// In order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|tag| &**tag)
    }

    pub fn get(&self, tag: &str) -> Option<TagSet> {
        self.0.binary_search_by(|known| (**known).cmp(tag)).ok().map(|bit| TagSet(1 << bit))
    }

    /// # Errors
    /// The first name that nothing in this snapshot has.
    pub fn set<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<TagSet, UnknownTag> {
        names.into_iter().try_fold(TagSet::EMPTY, |set, name| {
            self.get(name).map(|one| set.union(one)).ok_or_else(|| UnknownTag(name.into()))
        })
    }

    /// The names in a set, in order.
    pub fn names(&self, set: TagSet) -> impl Iterator<Item = &str> {
        self.iter().enumerate().filter(move |(bit, _)| set.0 >> bit & 1 == 1).map(|(_, tag)| tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R004-19.
    #[test]
    fn several_tags_are_an_intersection() {
        let names = TagNames::new(["vision", "x", "a", "x"]).unwrap();
        let set = |tags: &[&str]| names.set(tags.iter().copied()).unwrap();
        assert!(set(&["x", "vision"]).minus(set(&["vision", "long-context", "x"])).is_empty());
        assert!(!set(&["vision", "long-context"]).minus(set(&["vision"])).is_empty());
        let missing = set(&["vision", "x"]).minus(set(&["x"]));
        assert_eq!(names.names(missing).collect::<Vec<_>>(), ["vision"]);
        assert_eq!((missing.len(), set(&["a", "x", "a"]).len()), (1, 2));
        assert_eq!(names.set(["x", "nope"]), Err(UnknownTag("nope".into())));
        assert_eq!(names.set(["Vision"]), Err(UnknownTag("Vision".into())));
    }

    #[test]
    fn tags_that_requests_imply_are_known_without_a_catalog() {
        let names = TagNames::new([]).unwrap();
        assert_eq!(names.iter().collect::<Vec<_>>(), TagNames::WELL_KNOWN, "sorted, each once");
    }

    #[test]
    fn more_tags_than_bits_are_refused_with_their_number() {
        let tags: Vec<String> = (0..MAX_TAGS).map(|n| format!("t{n:03}")).collect();
        let fits = &tags[..MAX_TAGS - TagNames::WELL_KNOWN.len()];
        let names = TagNames::new(fits.iter().map(String::as_str)).unwrap();
        let all = names.set(names.iter()).unwrap();
        assert_eq!(all.0, u128::MAX);
        assert_eq!(
            TagNames::new(tags.iter().map(String::as_str)),
            Err(MAX_TAGS + TagNames::WELL_KNOWN.len())
        );
    }
}
