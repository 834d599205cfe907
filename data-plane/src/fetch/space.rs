//! What fetched files may take of this node's memory, over all of its requests: room is taken before anything is fetched,
//! for the most that it can be, and given back as far as less has come, and all of it when the request has its answer.
//! Called by [`super`].

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use super::{MAX_ALL, MAX_FILE, Why};

/// Bytes of one permit.
const UNIT: u64 = 1024;

/// See the module.
#[derive(Clone, Debug)]
pub struct Space {
    free: Arc<Semaphore>,
    all: u32,
}

/// Room that is taken, until this is dropped.
#[derive(Debug)]
pub struct Reserved(OwnedSemaphorePermit);

impl Space {
    /// For so many bytes. A request that could take more than that is let in alone.
    pub fn new(bytes: u64) -> Self {
        let all = units(bytes).max(1);
        Self { free: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Room for so many files of one request, for which it waits until `due`.
    ///
    /// # Errors
    /// When there is none by then.
    pub async fn reserve(&self, files: usize, due: Instant) -> Result<Reserved, Why> {
        let raw = files.saturating_mul(MAX_FILE).min(MAX_ALL);
        // As base64, which is how they are kept.
        let wanted = units(raw.div_ceil(3) as u64 * 4).min(self.all);
        let taken = timeout_at(due, self.free.clone().acquire_many_owned(wanted)).await;
        // It is never closed.
        taken.ok().and_then(Result::ok).map(Reserved).ok_or(Why::Full)
    }
}

impl Reserved {
    /// No more than this has come.
    pub fn shrink(&mut self, bytes: usize) {
        let needed = units(bytes as u64) as usize;
        drop(self.0.split(self.0.num_permits().saturating_sub(needed)));
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Base64 of one file of the largest size.
    const ONE: u64 = (MAX_FILE as u64).div_ceil(3) * 4;

    fn within(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_for_it_until_it_is_due() {
        let space = Space::new(2 * ONE + UNIT);
        let first = space.reserve(1, within(5)).await.unwrap();
        let _second = space.reserve(1, within(5)).await.unwrap();
        let begun = Instant::now();
        assert_eq!(space.reserve(1, within(5)).await.unwrap_err(), Why::Full);
        assert_eq!(begun.elapsed(), Duration::from_secs(5));

        let leaving = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(first);
        };
        let begun = Instant::now();
        let (third, ()) = tokio::join!(space.reserve(1, within(5)), leaving);
        assert_eq!((third.is_ok(), begun.elapsed()), (true, Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_come_is_given_back() {
        let space = Space::new(2 * ONE + UNIT);
        let mut first = space.reserve(16, within(1)).await.unwrap();
        assert_eq!(space.reserve(1, within(1)).await.unwrap_err(), Why::Full);
        first.shrink(1000);
        let second = space.reserve(1, within(1)).await.unwrap();
        drop((first, second));
        assert!(space.reserve(2, within(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_all_there_is_is_let_in_alone() {
        let space = Space::new(0);
        let alone = space.reserve(16, within(1)).await.unwrap();
        assert_eq!(space.reserve(1, within(1)).await.unwrap_err(), Why::Full);
        drop(alone);
        assert!(space.reserve(1, within(1)).await.is_ok());
    }
}
