//! Named background tasks that a drain waits for. The only place of the product that starts tasks
//! (connections of [`crate::http_server`] have a set of their own).

use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{runtime::Handle, task::AbortHandle};
use tokio_util::task::TaskTracker;

/// How long [`TaskGroup::join`] waits for aborted tasks to be gone. One that blocks its thread never is.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// A group of named tasks. Clones share the group.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tracker: TaskTracker,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, (&'static str, Option<AbortHandle>)>,
}

impl TaskGroup {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `task` on the current runtime until it ends. A panic in it is logged with its name and ends only it.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(name, task, &Handle::current());
    }

    /// Like [`TaskGroup::spawn`], on a given runtime.
    pub fn spawn_on(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        runtime: &Handle,
    ) {
        let mut running = self.inner.running();
        let id = running.next;
        running.next += 1;
        running.tasks.insert(id, (name, None));
        let group = Arc::clone(&self.inner);
        let handle = self.inner.tracker.spawn_on(
            async move {
                // Also when the task is aborted or panics.
                let _entry = Entry { group, id };
                if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                    tracing::error!(task = name, panic = panic_text(&*panic), "a background task panicked");
                }
            },
            runtime,
        );
        // The lock is still held, so the task cannot have removed its entry yet.
        if let Some(entry) = running.tasks.get_mut(&id) {
            entry.1 = Some(handle.abort_handle());
        }
    }

    /// Names of the tasks that have not ended.
    pub fn running(&self) -> Vec<&'static str> {
        self.inner.running().tasks.values().map(|(name, _)| *name).collect()
    }

    /// Waits until all tasks have ended, at most for `deadline`; aborts the others and returns their names.
    pub async fn join(&self, deadline: Duration) -> Vec<&'static str> {
        self.inner.tracker.close();
        if tokio::time::timeout(deadline, self.inner.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let mut late = Vec::new();
        for (name, handle) in self.inner.running().tasks.values() {
            late.push(*name);
            if let Some(handle) = handle {
                handle.abort();
            }
        }
        if tokio::time::timeout(ABORT_GRACE, self.inner.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = ?self.running(), "tasks block their threads and could not be aborted");
        }
        late
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Entry {
    group: Arc<Inner>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.group.running().tasks.remove(&self.id);
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn join_waits_for_tasks_that_end_in_time() {
        let (group, done) = (TaskGroup::new(), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&done);
        group.spawn("slow", async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            flag.store(true, Ordering::Relaxed);
        });
        assert_eq!(group.running(), ["slow"]);
        assert!(group.join(Duration::from_secs(10)).await.is_empty());
        assert!(done.load(Ordering::Relaxed));
        assert!(group.running().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn join_names_and_aborts_tasks_that_outlive_the_deadline() {
        struct OnDrop(Arc<AtomicBool>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (group, dropped) = (TaskGroup::new(), Arc::new(AtomicBool::new(false)));
        let guard = OnDrop(Arc::clone(&dropped));
        group.spawn("stuck", async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        group.spawn("quick", async {});
        assert_eq!(group.join(Duration::from_secs(1)).await, ["stuck"]);
        assert!(dropped.load(Ordering::Relaxed));
        assert!(group.running().is_empty());
    }

    #[tokio::test]
    async fn a_panicking_task_ends_alone() {
        let group = TaskGroup::new();
        group.spawn("bad", async { panic!("boom") });
        group.clone().spawn_on("good", tokio::task::yield_now(), &Handle::current());
        assert!(group.join(Duration::from_secs(10)).await.is_empty());
    }
}
