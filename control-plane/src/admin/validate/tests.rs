//! What is accepted, what is refused, and that a refusal names the member.

use super::*;

/// Every refusal has a field and says what was expected.
fn refused<T: std::fmt::Debug>(result: Result<T, AdminError>) -> bool {
    match result {
        Ok(_) => false,
        Err(error) => {
            assert!(error.field.as_deref() == Some("f") && error.expected.is_some(), "{error:?}");
            true
        }
    }
}

#[test]
fn names_are_short_and_printable() {
    for text in ["Acme", "Équipe 7", "a", &"x".repeat(128), "a b"] {
        assert!(!refused(name("f", text)), "{text}");
    }
    for text in ["", " a", "a ", "a\nb", "a\u{7f}", "a\u{0}", &"x".repeat(129)] {
        assert!(refused(name("f", text)), "{text:?}");
    }
}

#[test]
fn addresses_are_lower_case_afterwards() {
    assert_eq!(email("f", "Ann.Lee@Example.COM").unwrap(), "ann.lee@example.com");
    for text in
        ["", "a", "@b", "a@", "a@b@c", "a b@c.d", "a@.b", "a@b.", "<a@b>", &format!("{}@b.c", "x".repeat(65))]
    {
        assert!(refused(email("f", text)), "{text:?}");
    }
}

#[test]
fn base_urls_carry_neither_secrets_nor_queries() {
    assert_eq!(base_url("f", "https://api.openai.com/v1/").unwrap(), "https://api.openai.com/v1");
    assert_eq!(base_url("f", "http://127.0.0.1:11434/v1").unwrap(), "http://127.0.0.1:11434/v1");
    for text in [
        "",
        "api.openai.com",
        "/v1",
        "ftp://host/",
        "https://",
        "https://user:pw@host/v1",
        "https://user@host/v1",
        "https://host/v1?key=x",
        "https://host/v1#x",
        "https://host/v 1",
        "https://-x.example/v1",
        "https://10.0.0.999/v1",
        "https://a..b/v1",
        "file:///etc/passwd",
    ] {
        assert!(refused(base_url("f", text)), "{text:?}");
    }
}

/// E.4: Azure's URLs name a version of its interface, and nothing else.
#[test]
fn base_urls_of_azure_may_name_a_version() {
    for (text, expected) in [
        ("https://r.openai.azure.com/openai/v1/", "https://r.openai.azure.com/openai/v1"),
        (
            "https://r.openai.azure.com?api-version=2024-10-21",
            "https://r.openai.azure.com?api-version=2024-10-21",
        ),
        (
            "https://r/openai/?api-version=2025-04-01-preview",
            "https://r/openai?api-version=2025-04-01-preview",
        ),
    ] {
        assert_eq!(azure_base_url("f", text).unwrap(), expected);
    }
    for text in [
        "https://r?api-version=",
        "https://r?api-version=1&key=x",
        "https://r?api-version=1#x",
        "https://r?key=x",
        "https://user@r?api-version=1",
        "r?api-version=1",
    ] {
        assert!(refused(azure_base_url("f", text)), "{text:?}");
    }
}

#[test]
fn model_names_and_slugs_keep_to_their_alphabet() {
    for text in ["gpt-5.2", "openai/gpt-5.2", "meta-llama/Llama-3.3-70B:free", "claude-3-5-sonnet@20241022"] {
        assert!(!refused(model_name("f", text)), "{text}");
    }
    for text in ["", "a b", "/a", "ä", "a\"b", "a*", &"x".repeat(257)] {
        assert!(refused(model_name("f", text)), "{text:?}");
    }
    for text in ["openai", "x.ai", "4all", "a_b-c"] {
        assert!(!refused(slug("f", text)), "{text}");
    }
    for text in ["", "OpenAI", "-a", "a/b", "a b", &"x".repeat(65)] {
        assert!(refused(slug("f", text)), "{text:?}");
    }
}

#[test]
fn refused_secrets_do_not_show_up_in_the_message() {
    for text in ["", "canary\u{e9}", "canary\n", " canary"] {
        let error = secret("f", "openai", text).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
    assert!(secret("f", "openai", "sk-live-1234").is_ok());
}

/// A key file as Google hands it out, with its line breaks; what nodes could not use is refused where it is stored.
#[test]
fn secrets_that_are_json_have_what_nodes_need() {
    let file =
        "{\n  \"type\": \"service_account\",\n  \"client_email\": \"a@b\",\n  \"private_key\": \"canary\"\n}";
    assert!(secret("f", "google-vertex", file).is_ok());
    assert!(secret("f", "google-vertex", "ya29.token").is_ok());
    for keys in [
        r#"{"access_key_id":"AKIA","secret_access_key":"canary"}"#,
        r#"{"AWS_ACCESS_KEY_ID":"AKIA","aws_secret_access_key":"canary"}"#,
        r#"{"AccessKeyId":"AKIA","SecretAccessKey":"canary"}"#,
    ] {
        assert!(secret("f", "bedrock", keys).is_ok(), "{keys}");
    }
    for (provider, text) in [
        ("google-vertex", "{\"client_email\":\"canary\"}"),
        ("google-vertex", "{canary"),
        ("bedrock", file),
        ("openai", file),
    ] {
        let error = secret("f", provider, text).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[test]
fn an_expiry_lies_in_the_future() {
    let at = |seconds: i64| Some(Timestamp::from(now() + Duration::seconds(seconds)));
    assert!(expiry("f", at(60)).unwrap().is_some());
    assert_eq!(expiry("f", None).unwrap(), None);
    assert!(refused(expiry("f", at(-60))));
    assert!(refused(expiry("f", Some(Timestamp { seconds: i64::MAX, nanos: 0 }))));
}

#[test]
fn unknown_strategies_and_roles_list_the_known_ones() {
    assert!(strategy("f", "simple-shuffle").is_ok() && strategy("f", "").is_ok());
    let error = strategy("f", "fastest").unwrap_err();
    assert!(error.expected.unwrap().contains("simple-shuffle"));
    assert_eq!(role("f", "viewer").unwrap(), Role::Viewer);
    assert!(role("f", "root").unwrap_err().expected.unwrap().contains("owner, admin, member, viewer"));
}

#[test]
fn page_sizes_are_bounded() {
    assert_eq!((page_size(0).unwrap(), page_size(1).unwrap(), page_size(1000).unwrap()), (100, 1, 1000));
    assert_eq!(page_size(1001).unwrap_err().field.as_deref(), Some("page_size"));
}

#[test]
fn weights_are_bounded() {
    assert_eq!(weight("f", MAX_WEIGHT).unwrap(), i64::from(MAX_WEIGHT));
    assert!(refused(weight("f", MAX_WEIGHT + 1)));
}
