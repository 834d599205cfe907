//! What the command line does without a gateway: help, completion, and errors that say what to do.

use std::process::{Command, Output};

use nemo_tests::fleet::binary_path;

fn nemo(arguments: &[&str], envs: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary_path("nemo").unwrap());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home.path());
    command.env("XDG_DATA_HOME", home.path()).envs(envs.iter().copied()).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The commands below a path, as its help lists them.
fn subcommands(path: &[String]) -> Vec<String> {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = nemo(&arguments, &[]);
    assert!(help.status.success(), "{path:?}");
    let text = out(&help);
    let Some((_, listed)) = text.split_once("Commands:\n") else {
        assert!(text.contains("Examples:\n  "), "nemo {} --help has no example:\n{text}", path.join(" "));
        return Vec::new();
    };
    let listed = listed.lines().take_while(|line| !line.is_empty());
    let name = |line: &str| line.strip_prefix("  ")?.split_whitespace().next().map(str::to_owned);
    // Continued lines are indented further.
    let own = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    own.filter_map(name).filter(|name| name != "help").collect()
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let (mut paths, mut leaves) = (vec![Vec::new()], 0);
    while let Some(path) = paths.pop() {
        let below = subcommands(&path);
        leaves += usize::from(below.is_empty());
        paths.extend(below.into_iter().map(|name| [path.clone(), vec![name]].concat()));
    }
    assert!(leaves > 50, "only {leaves} commands found");
}

#[test]
fn completion_scripts_are_scripts() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = nemo(&["completion", shell], &[]);
        assert!(script.status.success(), "{shell}");
        let text = out(&script);
        assert!(text.contains("rotate") && text.len() > 10_000, "{shell}: {} bytes", text.len());
        if shell == "bash" {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let checked = Command::new("bash").arg("-n").arg(file.path()).output().unwrap();
            assert!(checked.status.success(), "{checked:?}");
        }
    }
    assert_eq!(nemo(&["completion", "cmd"], &[]).status.code(), Some(2));
}

#[test]
fn errors_say_what_to_do_and_exit_codes_are_kept() {
    let nothing_runs = nemo(&["keys", "list", "--data-dir", "/nonexistent/nemo"], &[]);
    assert_eq!(nothing_runs.status.code(), Some(1));
    let told = err(&nothing_runs);
    assert!(told.contains("nemo standalone") && told.contains("--data-dir"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");

    let url = ("NEMO_ADMIN_URL", "http://127.0.0.1:1");
    let no_token = nemo(&["keys", "list"], &[url]);
    assert_eq!(no_token.status.code(), Some(2), "{}", err(&no_token));
    assert!(err(&no_token).contains("--token"), "{}", err(&no_token));
    let away = nemo(&["keys", "list"], &[url, ("NEMO_ADMIN_TOKEN", "adm-nemo-canary")]);
    assert_eq!(away.status.code(), Some(1));
    let told = err(&away);
    assert!(told.contains("does not answer") && told.contains("--url") && !told.contains("canary"), "{told}");

    let misspelt = nemo(&["keys", "craete"], &[]);
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(err(&misspelt).contains("create"), "the nearest command is named: {}", err(&misspelt));
    let time = nemo(&["requests", "list", "--since", "yesterday"], &[]);
    assert_eq!(time.status.code(), Some(2));
    assert!(err(&time).contains("2026-11-21"), "{}", err(&time));
    let role = nemo(&["members", "create", "a@b.c", "--role", "boss"], &[]);
    assert!(err(&role).contains("viewer, member, admin, owner"), "{}", err(&role));
}
