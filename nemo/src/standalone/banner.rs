//! What `nemo standalone` prints when it serves: where it is, how to get in, and an example that works as pasted.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use nemo_types::Secret;

use super::address::Port;
use crate::{admin_client::default_dir_option, bootstrap::ADMIN_TOKEN, console};

pub(super) struct Banner {
    pub data_dir: PathBuf,
    pub data: Port,
    pub admin: Port,
    /// Only when it was made now.
    pub admin_token: Option<Secret>,
    pub new_key: Option<Secret>,
    /// Keys that `nemo.toml` asked for and that were issued now.
    pub file_keys: Vec<(String, Secret)>,
    pub sample: Option<String>,
    pub demo: bool,
    pub notes: Vec<String>,
}

impl Banner {
    pub(super) fn print(&self, took: Duration) {
        console::result(self.text(took, &command()));
    }

    /// `nemo`: how this program is called from here.
    fn text(&self, took: Duration, nemo: &str) -> String {
        let mut out = String::new();
        let base = format!("{}/v1", self.data.url());
        let dir = self.data_dir.display();
        let option = default_dir_option(&self.data_dir);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(out, "  {name:<12} {value}");
        };
        line("Base URL", &base);
        match &self.new_key {
            Some(key) => line("Key", &format!("{}   (shown once)", key.expose())),
            None => line("Key", &format!("issue another with `{nemo} keys create{option}`")),
        }
        for (name, secret) in &self.file_keys {
            line(&format!("Key {name}"), &format!("{}   (shown once)", secret.expose()));
        }
        line("Admin API", &format!("{}/admin/v1", self.admin.url()));
        match &self.admin_token {
            Some(token) => line("Admin token", token.expose()),
            None => line("Admin token", &format!("in {dir}/{ADMIN_TOKEN}")),
        }
        line("Data", &format!("{dir}"));
        if self.demo {
            line(
                "Models",
                "the built-in demo; set OPENAI_API_KEY or another of `nemo providers` for real ones",
            );
        } else {
            line("Models", &format!("`{nemo} models list{option}` shows them"));
        }
        for note in &self.notes {
            line("Note", note);
        }
        let mut text = format!("\nNemo Router is ready ({:.1} s)\n\n{out}", took.as_secs_f32());
        match (&self.sample, &self.new_key) {
            (Some(model), Some(key)) => {
                let _ =
                    write!(text, "\nTry it:\n\n{}\n", example(&self.data.curl_options(), &base, key, model));
            }
            (None, _) => text.push_str("\nNo model can be asked yet: no deployment serves chat.\n"),
            (Some(_), None) => {}
        }
        text.push_str("\nCtrl-C stops it.\n");
        text
    }
}

fn example(options: &str, base: &str, key: &Secret, model: &str) -> String {
    let model = serde_json::Value::from(model).to_string();
    let body = format!(r#"{{"model": {model}, "messages": [{{"role": "user", "content": "Hello!"}}]}}"#);
    // Inside single quotes a shell only minds single quotes.
    let body = body.replace('\'', r"'\''");
    format!(
        "  curl {options}{base}/chat/completions \\\n    -H 'authorization: Bearer {}' \\\n    \
         -H 'content-type: application/json' \\\n    -d '{body}'",
        key.expose()
    )
}

/// As it was typed, when it was typed with a path: it may not be on the PATH.
fn command() -> String {
    std::env::args().next().filter(|name| name.contains('/')).unwrap_or_else(|| "nemo".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(addr: &str) -> Port {
        Port::new(addr.parse().unwrap(), &nemo_runtime::tls::Identity::default()).unwrap()
    }

    fn banner() -> Banner {
        Banner {
            data_dir: "/srv/nemo".into(),
            data: port("0.0.0.0:8080"),
            admin: port("127.0.0.1:8081"),
            admin_token: Some(Secret::new("adm-nemo-token")),
            new_key: Some(Secret::new("sk-nemo-key")),
            file_keys: Vec::new(),
            sample: Some("demo-chat".to_owned()),
            demo: true,
            notes: vec!["something".to_owned()],
        }
    }

    #[test]
    fn the_first_start_shows_secrets_and_an_example() {
        let text = banner().text(Duration::from_secs(2), "nemo");
        for part in [
            "http://127.0.0.1:8080/v1",
            "sk-nemo-key",
            "adm-nemo-token",
            "/srv/nemo",
            "something",
            "curl http://127.0.0.1:8080/v1/chat/completions",
            r#"{"model": "demo-chat", "messages""#,
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn later_starts_say_how_to_issue_a_key() {
        let banner = Banner { new_key: None, admin_token: None, ..banner() };
        let text = banner.text(Duration::from_secs(2), "target/release/nemo");
        assert!(text.contains("`target/release/nemo keys create --data-dir /srv/nemo`"), "{text}");
        assert!(text.contains("/srv/nemo/admin-token") && !text.contains("curl"), "{text}");
    }
}
