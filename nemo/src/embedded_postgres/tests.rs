//! Covers: the life of the embedded PostgreSQL, including crashes of it and of its parent. Against the real thing.

use std::{os::unix::ffi::OsStrExt as _, path::Path, process::Stdio};

use nemo_runtime::{TaskGroup, drain};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;

/// Nobody waits for it where all is well: machines that run tests stand still now and then.
const PATIENCE: Duration = Duration::from_secs(30);

fn options(dir: &Path) -> Options {
    Options { dir: dir.canonicalize().unwrap(), user: None, places: Places::of_this_process() }
}

async fn started(options: &Options) -> EmbeddedPostgres {
    let (_trigger, drain) = drain::channel();
    EmbeddedPostgres::start(options, &drain).await.unwrap().unwrap()
}

async fn refused(options: &Options) -> String {
    let (_trigger, drain) = drain::channel();
    EmbeddedPostgres::start(options, &drain).await.unwrap_err().to_string()
}

/// Dead, or a zombie that nobody has waited for.
fn is_gone(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// Living processes that are told this directory, or work in it, as what `initdb` starts does.
fn processes_on(dir: &Path) -> usize {
    let on_it = |entry: &std::fs::DirEntry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let told = command.windows(dir.as_os_str().len()).any(|part| part == dir.as_os_str().as_bytes());
        told || std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(on_it).count()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

async fn count(server: &EmbeddedPostgres) -> i64 {
    let options: PgConnectOptions = server.url().parse().unwrap();
    let mut connection = options.connect().await.unwrap();
    connection.execute("CREATE TABLE IF NOT EXISTS rows (n int)").await.unwrap();
    connection.execute("INSERT INTO rows VALUES (1)").await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM rows").fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn rows_survive_a_restart_and_the_role_cannot_bypass_row_security() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = started(&options(dir.path())).await;
    assert_eq!(count(&server).await, 1);
    let url: PgConnectOptions = server.url().parse().unwrap();
    let mut connection = url.connect().await.unwrap();
    let free: bool =
        sqlx::query_scalar("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert!(!free, "the control plane's role is above row-level security");
    let pid = server.pid().unwrap();
    server.stop().await;
    assert!(is_gone(pid));

    let begin = Instant::now();
    let mut server = started(&options(dir.path())).await;
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    assert_eq!(count(&server).await, 2);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = started(&options(dir.path())).await;
    assert_eq!(count(&server).await, 1);
    let first = server.pid().unwrap();
    let (_trigger, watcher) = drain::channel();
    kill(first, Signal::KILL);
    let restarted = async {
        for seconds in 1.. {
            let answers = async {
                eventually("the first server is gone", || is_gone(first)).await;
                let options = connect_options(&Files::prepare(dir.path(), None).unwrap(), "nemo", "nemo");
                while options.connect().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                // Until the supervisor has seen that as well.
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            };
            tokio::select! {
                ended = server.supervise(&watcher) => panic!("{ended:?}"),
                () = answers => {}
            }
            // None where that was too short for it.
            if server.pid().is_some() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, restarted).await.expect("not started again");
    assert_ne!(server.pid().unwrap(), first);
    assert_eq!(count(&server).await, 2);
    server.stop().await;
}

/// Not a test of its own: what the next one kills.
#[tokio::test]
#[ignore = "started by a_killed_parent_takes_the_server_along_and_the_next_start_recovers"]
async fn helper_that_hosts_a_server() {
    let Some(dir) = std::env::var_os("NEMO_TEST_POSTGRES_DIR") else { return };
    let server = started(&options(Path::new(&dir))).await;
    assert_eq!(count(&server).await, 1);
    println!("postgres pid {}", server.pid().unwrap());
    tokio::time::sleep(Duration::from_secs(300)).await;
}

#[tokio::test]
async fn a_killed_parent_takes_the_server_along_and_the_next_start_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["embedded_postgres::tests::helper_that_hosts_a_server", "--exact", "--ignored", "--nocapture"])
        .env("NEMO_TEST_POSTGRES_DIR", dir.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pid: u32 = loop {
        let line = lines.next_line().await.unwrap().expect("the helper ended early");
        if let Some((_, pid)) = line.split_once("postgres pid ") {
            break pid.trim().parse().unwrap();
        }
    };
    assert!(!is_gone(pid));
    parent.kill().await.unwrap();
    eventually("the server is gone", || is_gone(pid)).await;
    let mut server = started(&options(dir.path())).await;
    assert_eq!(count(&server).await, 2);
    server.stop().await;
}

#[tokio::test]
async fn an_orphaned_server_is_ended_before_a_new_one_starts() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = started(&options(dir.path())).await;
    assert_eq!(count(&first).await, 1);
    // As if the parent had died between fork and exec, before the death signal was set.
    let mut second = started(&options(dir.path())).await;
    tokio::time::timeout(PATIENCE, first.child.wait()).await.expect("the first is still there").unwrap();
    assert_eq!(count(&second).await, 2);
    second.stop().await;
}

#[tokio::test]
async fn a_stale_pid_file_of_a_living_stranger_does_not_hinder() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = started(&options(dir.path())).await;
    let data = server.files.data.clone();
    let pid_file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    server.stop().await;
    let (_, rest) = pid_file.split_once('\n').unwrap();
    std::fs::write(data.join("postmaster.pid"), format!("{}\n{rest}", std::process::id())).unwrap();
    let mut server = started(&options(dir.path())).await;
    assert_eq!(count(&server).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn an_interrupted_first_start_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("postgres.new")).unwrap();
    std::fs::write(dir.path().join("postgres.new/PG_VERSION"), "15\n").unwrap();
    let mut server = started(&options(dir.path())).await;
    server.stop().await;
    assert!(!dir.path().join("postgres.new").exists());
}

#[tokio::test]
async fn a_first_start_that_is_given_up_leaves_no_process() {
    // Where this process stands still for too long, initdb is done before it is given up.
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let (unfinished, done) = (options.dir.join("postgres.new"), options.dir.join("postgres"));
        let begun = unfinished.clone();
        let (trigger, drain) = drain::channel();
        TaskGroup::new().spawn("Ctrl-C", async move {
            // initdb and a child of it.
            while processes_on(&begun) < 2 && !done.exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            trigger.start();
        });
        if let Some(mut server) = EmbeddedPostgres::start(&options, &drain).await.unwrap() {
            server.stop().await;
            continue;
        }
        if !unfinished.exists() {
            continue;
        }
        eventually("initdb is gone", || processes_on(&options.dir) == 0).await;
        let mut server = started(&options).await;
        assert_eq!(count(&server).await, 1);
        server.stop().await;
        return;
    }
    panic!("initdb was never caught at work");
}

#[tokio::test]
async fn a_database_of_another_major_version_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("postgres")).unwrap();
    std::fs::write(dir.path().join("postgres/PG_VERSION"), "9\n").unwrap();
    let error = refused(&options(dir.path())).await;
    assert!(error.contains("made by PostgreSQL 9") && error.contains("postgresql-9"), "{error}");
}

#[tokio::test]
async fn a_broken_database_says_why_and_where_to_look() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = started(&options(dir.path())).await;
    server.stop().await;
    std::fs::write(server.files.data.join("postgresql.conf"), "nonsense\n").unwrap();
    let error = refused(&options(dir.path())).await;
    assert!(error.starts_with("PostgreSQL did not start: ") && error.contains("postgres.log"), "{error}");
}

#[test]
fn the_url_escapes_odd_paths() {
    assert_eq!(percent_encode(OsStr::new("/a b/ü?#%")), "/a%20b/%C3%BC%3F%23%25");
}
