//! The binary `nemo` as a user runs it: first and later starts, the printed example, the end by signal and by
//! SIGKILL, and what is said when something is in the way. Every test has its own data directory and ports.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const NEMO: &str = env!("CARGO_BIN_EXE_nemo");
/// Nobody waits for it where all is well: machines that run tests stand still now and then.
const PATIENCE: Duration = Duration::from_secs(30);
const PORTS: [&str; 5] =
    ["--listen", "--admin-listen", "--grpc-listen", "--ops-listen", "--admin-ops-listen"];

/// A data directory that any user may reach: PostgreSQL does not run as root.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn nemo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NEMO);
        // Nothing of the developer's environment: no keys, no settings.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.dir.path());
        if let Some(bin) = std::env::var_os("NEMO_PG_BIN") {
            command.env("NEMO_PG_BIN", bin);
        }
        command.args(arguments).arg("--data-dir").arg(self.data());
        command
    }

    fn standalone(&self) -> Command {
        let mut command = self.nemo(&["standalone"]);
        command.args(PORTS.iter().flat_map(|option| [*option, "127.0.0.1:0"]));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.nemo(arguments).output().unwrap()
    }

    fn start(&self) -> Nemo {
        Nemo::start(self.standalone())
    }
}

/// A running `nemo standalone`.
struct Nemo {
    child: Child,
    banner: String,
}

impl Nemo {
    fn start(mut command: Command) -> Self {
        #[expect(clippy::zombie_processes, reason = "the other way out is a panic")]
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        loop {
            let Some(Ok(line)) = lines.next() else {
                let mut complaint = String::new();
                child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
                panic!("nemo did not start: {complaint}");
            };
            banner.push_str(&line);
            banner.push('\n');
            if line.contains("Ctrl-C stops it") {
                return Self { child, banner };
            }
        }
    }

    /// The value of a line of the banner.
    fn field(&self, name: &str) -> &str {
        let line = self.banner.lines().find_map(|line| line.trim_start().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{}", self.banner))
            .trim()
            .trim_end_matches("(shown once)")
            .trim()
    }

    /// The command that the banner prints, run by a shell.
    fn pasted(&self) -> String {
        let (_, example) = self.banner.split_once("  curl ").expect("an example");
        let (example, _) = example.split_once("\n\n").unwrap();
        let output = Command::new("sh").arg("-c").arg(format!("curl -sS {example}")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end; returns the exit code and what is on standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "still there after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (status.code(), text)
    }
}

impl Drop for Nemo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Living processes whose command line names the directory.
fn processes_on(data: &Path) -> Vec<String> {
    let wanted = data.as_os_str().to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(wanted) {
            found.push(command);
        }
    }
    found
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Without those of the database driver about its own timing.
fn warnings(log: &str) -> Vec<&str> {
    let timing =
        |line: &str| [" sqlx::query: slow ", " sqlx::pool::acquire: "].iter().any(|it| line.contains(it));
    log.lines().filter(|line| line.contains("WARN") && !timing(line)).collect()
}

/// Another one for another database: its server never writes this file again.
fn identity(home: &Home) -> (u64, i64, i64) {
    let file = std::fs::metadata(home.data().join("postgres/PG_VERSION")).unwrap();
    (file.ino(), file.mtime(), file.mtime_nsec())
}

#[test]
fn the_printed_example_works_and_a_later_start_is_quick_and_issues_keys() {
    let home = Home::new();
    let nemo = home.start();
    assert!(nemo.field("Key").starts_with("sk-nemo-") && nemo.field("Admin token").starts_with("adm-nemo-"));
    let answer = nemo.pasted();
    assert!(answer.contains("\"object\":\"chat.completion\""), "{answer}");

    let listed = || text(&home.run(&["requests", "list", "--json"]).stdout);
    eventually("the request is in the log", || listed().contains("\"outcome\": \"ok\""));
    nemo.signal("-INT");
    let (code, complaints) = nemo.end();
    assert_eq!((code, warnings(&complaints)), (Some(0), Vec::new()), "{complaints}");
    assert_eq!(processes_on(&home.data()), Vec::<String>::new());

    let (begin, made) = (Instant::now(), identity(&home));
    let nemo = home.start();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert_eq!(identity(&home), made, "a later start has made another database");
    assert!(nemo.field("Key").contains("nemo keys create"), "{}", nemo.banner);
    assert!(!nemo.banner.contains("sk-nemo-") && !nemo.banner.contains("adm-nemo-"), "{}", nemo.banner);

    let created = home.run(&["keys", "create", "--name", "ci"]);
    let key = text(&created.stdout);
    assert!(key.starts_with("sk-nemo-"), "{created:?}");
    let models = format!("{}/models", nemo.field("Base URL"));
    let status = || {
        let header = format!("authorization: Bearer {key}");
        let output = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &models])
            .output();
        text(&output.unwrap().stdout)
    };
    eventually("the new key works", || status() == "200");
    assert!(home.run(&["keys", "disable", "ci"]).status.success());
    eventually("the disabled key does not", || status() == "401");
    assert!(home.run(&["keys", "enable", "ci"]).status.success());
    let rotated = text(&home.run(&["keys", "rotate", "ci"]).stdout);
    assert!(rotated.starts_with("sk-nemo-") && rotated != key);
    assert!(text(&home.run(&["keys", "list"]).stdout).contains("ci "));
    assert!(home.run(&["keys", "delete", "ci"]).status.success());
    assert!(!text(&home.run(&["keys", "list"]).stdout).contains("ci "));
    assert!(text(&home.run(&["models", "list"]).stdout).contains("demo-chat"));
    nemo.signal("-TERM");
    assert_eq!(nemo.end().0, Some(0));
}

#[test]
fn after_a_kill_no_child_lives_on_and_the_next_start_recovers() {
    let home = Home::new();
    let mut nemo = home.start();
    let key = nemo.field("Key").to_owned();
    assert!(nemo.pasted().contains("chat.completion"));
    nemo.child.kill().unwrap();
    nemo.child.wait().unwrap();
    eventually("the database is gone", || processes_on(&home.data()).is_empty());

    let again = home.start();
    let models = format!("{}/models", again.field("Base URL"));
    let header = format!("authorization: Bearer {key}");
    let output = Command::new("curl").args(["-sS", "-H", &header, &models]).output().unwrap();
    assert!(text(&output.stdout).contains("demo-chat"), "{output:?}");
}

#[test]
fn a_second_signal_stops_at_once_with_a_request_in_flight() {
    let home = Home::new();
    let mut command = home.standalone();
    command.args(["--demo-delay-ms", "1000"]);
    let nemo = Nemo::start(command);
    let (_, example) = nemo.banner.split_once("  curl ").unwrap();
    let (example, _) = example.split_once("\n\n").unwrap();
    let example = example.replace("{\"model\"", "{\"stream\": true, \"model\"");
    let mut client = Command::new("sh")
        .arg("-c")
        .arg(format!("exec curl -sSNi {example}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The head of the answer is there: the request is in flight, and its last word is ten seconds away.
    let mut head = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    nemo.signal("-INT");
    let announced = home.data().join("standalone.json");
    eventually("the drain has begun", || !announced.exists());
    assert!(!processes_on(&home.data()).is_empty());
    nemo.signal("-INT");
    let (code, complaints) = nemo.end();
    assert_eq!(code, Some(1), "{complaints}");
    assert!(complaints.contains("stopped at once"), "{complaints}");
    assert_eq!(processes_on(&home.data()), Vec::<String>::new());
    let _ = client.kill();
    let _ = client.wait();
}

#[test]
fn what_is_in_the_way_is_named_in_one_line() {
    let home = Home::new();
    let nemo = home.start();
    let refused = |command: &mut Command| {
        let output = command.output().unwrap();
        let complaint = text(&output.stderr);
        assert_eq!((output.status.code(), complaint.lines().count()), (Some(1), 1), "{complaint}");
        complaint
    };
    let complaint = refused(&mut home.standalone());
    assert!(complaint.contains(&format!("in use by another nemo (pid {})", nemo.child.id())), "{complaint}");

    let other = Home::new();
    let taken = nemo.field("Base URL").trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let complaint =
        refused(other.nemo(&["standalone", "--listen", &taken]).args(["--admin-listen", "127.0.0.1:0"]));
    assert!(
        complaint.contains(&format!("{taken} is taken")) && complaint.contains("--listen"),
        "{complaint}"
    );

    std::fs::create_dir(other.data()).unwrap();
    std::fs::write(other.data().join("nemo-data"), "Nemo Router data directory, layout 99\n").unwrap();
    let complaint = refused(&mut other.standalone());
    assert!(complaint.contains("another version"), "{complaint}");

    let complaint = refused(&mut Home::new().nemo(&["keys", "list"]));
    assert!(complaint.contains("nemo standalone"), "{complaint}");

    let third = Home::new();
    let complaint = refused(third.standalone().env("NEMO_PG_BIN", "/nonexistent"));
    assert!(complaint.contains("NEMO_PG_BIN is /nonexistent"), "{complaint}");

    let config = third.dir.path().join("nemo.toml");
    std::fs::write(&config, "[[providers]]\nid = \"openai\"\napi_kee = \"env:X\"\n").unwrap();
    let output = third.standalone().arg("--config").arg(&config).output().unwrap();
    let complaint = text(&output.stderr);
    assert!(
        complaint.contains("nemo.toml:3: ") && complaint.contains("unknown field `api_kee`"),
        "{complaint}"
    );
    let checked = Command::new(NEMO).arg("check-config").arg(&config).output().unwrap();
    assert_eq!(checked.status.code(), Some(1));
}

#[test]
fn providers_come_from_a_file_and_its_keys_are_shown_once() {
    let home = Home::new();
    let config = home.dir.path().join("nemo.toml");
    let file = "\
        [[providers]]\nid = \"openai\"\napi_key = \"env:MY_KEY\"\n\
        [[deployments]]\nname = \"small\"\nprovider = \"openai\"\nmodel = \"gpt-4o-mini\"\n\
        [[model_groups]]\nname = \"smart\"\nlinks = [[\"small\"]]\n\
        [[keys]]\nname = \"app\"\nmodels = [\"smart\"]\n";
    std::fs::write(&config, file).unwrap();
    let start = || {
        let mut command = home.standalone();
        command.arg("--config").arg(&config).env("MY_KEY", "sk-canary-1234567890");
        Nemo::start(command)
    };
    let nemo = start();
    let key = nemo.field("Key app").to_owned();
    assert!(key.starts_with("sk-nemo-"));
    let models = format!("{}/models", nemo.field("Base URL"));
    let header = format!("authorization: Bearer {key}");
    let output = Command::new("curl").args(["-sS", "-H", &header, &models]).output().unwrap();
    let answer = text(&output.stdout);
    assert!(answer.contains("\"smart\"") && !answer.contains("demo-chat"), "{answer}");
    nemo.signal("-INT");
    nemo.end();

    let nemo = start();
    assert!(!nemo.banner.contains("Key app"), "{}", nemo.banner);
    drop(nemo);
    // The provider's key is nowhere in the clear.
    let mut stack = vec![home.data()];
    while let Some(path) = stack.pop() {
        if path.is_dir() {
            stack.extend(std::fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            assert!(!bytes.windows(9).any(|window| window == b"sk-canary"), "{}", path.display());
        }
    }
}
