//! Signatures that botocore 1.44 made of the same requests, with AWS's well-known example key.

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn keys(token: Option<&str>) -> Keys {
    let token = token.map(str::to_owned);
    Keys { id: "AKIDEXAMPLE".to_owned(), secret: SECRET.to_owned(), token, region: None }
}

/// Bedrock takes the signature, also of a model whose name is escaped in the path, of temporary keys, of a
/// query, on a leap day and in a year that is no leap year although it is divisible by four.
#[test]
fn requests_are_signed_as_botocore_signs_them() {
    struct Case {
        host: &'static str,
        path: &'static str,
        query: &'static str,
        body: &'static str,
        token: Option<&'static str>,
        now: u64,
        region: &'static str,
        date: &'static str,
        signature: &'static str,
    }
    let cases = [
        Case {
            host: "bedrock-runtime.us-east-1.amazonaws.com",
            path: "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
            query: "",
            body: r#"{"messages":[]}"#,
            token: None,
            now: 1_755_700_327,
            region: "us-east-1",
            date: "20250820T143207Z",
            signature: "9c89bdd46cd9e86c5a26d4f89271ec07f67dae731265eb84c432c24d3a7ccf8c",
        },
        Case {
            host: "bedrock-runtime.eu-central-1.amazonaws.com",
            path: "/model/arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Aapplication-inference-profile%2Fabc/converse-stream",
            query: "",
            body: "",
            token: Some("FwoGZXIvYXdzEXAMPLE//token=="),
            now: 951_782_400,
            region: "eu-central-1",
            date: "20000229T000000Z",
            signature: "5c54bf54669a923e0db6939813de9681a61941cbbba5baa46b4a87a0d4065abc",
        },
        Case {
            host: "127.0.0.1:8080",
            path: "/model/amazon.titan-embed-text-v2%3A0/invoke",
            query: "b=2&a=x%20y&c",
            body: r#"{"inputText":"é"}"#,
            token: None,
            now: 4_107_542_399,
            region: "us-west-2",
            date: "21000228T235959Z",
            signature: "aebc0c9fae3d3847b3b4f1b9626a340898248fd4563163364669c7989d680611",
        },
    ];
    for case in cases {
        // The pieces that a body comes in make no difference.
        let (head, tail) = case.body.as_bytes().split_at(case.body.len() / 2);
        let Case { host, path, query, .. } = case;
        let request = Signable { method: "POST", host, path, query, body: BodyHash::of([head, tail]) };
        let signed = sign(&keys(case.token), case.region, "bedrock", &request, case.now);
        assert_eq!(signed.date, case.date);
        assert!(signed.authorization.ends_with(&format!("Signature={}", case.signature)), "{host}");
        assert!(signed.authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
        assert_eq!(signed.token.as_deref(), case.token);
    }
}

#[test]
fn every_day_of_four_centuries_has_its_date() {
    let mut expected = (1970, 1, 1);
    for day in 0..146_097 {
        assert_eq!(civil(day), expected);
        let (year, month, of_month) = expected;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        expected = match (of_month < length, month) {
            (true, _) => (year, month, of_month + 1),
            (false, 12) => (year + 1, 1, 1),
            (false, _) => (year, month + 1, 1),
        };
    }
    assert_eq!(civil(146_097), (2370, 1, 1));
}

#[test]
fn a_secret_is_an_api_key_or_an_access_key() {
    assert_eq!(Credential::parse(" ABSKQmVk "), Ok(Credential::Bearer("ABSKQmVk".to_owned())));
    let temporary =
        r#"{"AccessKeyId":"AKIDEXAMPLE","SecretAccessKey":"s","SessionToken":"t","Expiration":"x"}"#;
    let Ok(Credential::Keys(found)) = Credential::parse(temporary) else { panic!("no keys") };
    assert_eq!((&*found.id, &*found.secret, found.token.as_deref()), ("AKIDEXAMPLE", "s", Some("t")));
    let own = r#"{"access_key_id":"a","secret_access_key":"s","region":"eu-west-1","session_token":""}"#;
    let Ok(Credential::Keys(found)) = Credential::parse(own) else { panic!("no keys") };
    assert_eq!((found.region.as_deref(), found.token), (Some("eu-west-1"), None));
    for wrong in
        ["", " ", "{}", r#"{"access_key_id":"a"}"#, r#"{"access_key_id":"","secret_access_key":""}"#, "{"]
    {
        assert_eq!(Credential::parse(wrong), Err(CredentialError), "{wrong}");
    }
}

/// I10.
#[test]
fn no_secret_is_ever_shown() {
    let keys = keys(Some("temporary-token"));
    let request =
        Signable { method: "POST", host: "h", path: "/", query: "", body: BodyHash::of([&b"x"[..]]) };
    let signed = sign(&keys, "us-east-1", "bedrock", &request, 0);
    let shown = format!(
        "{keys:?} {:?} {:?} {signed:?} {:?}",
        Credential::Keys(keys.clone()),
        Credential::Bearer("api-key-canary".to_owned()),
        Credential::parse(r#"{"access_key_id":"api-key-canary"}"#)
    );
    for secret in [SECRET, "temporary-token", "api-key-canary", &signed.authorization] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn the_region_stands_in_the_host() {
    for (host, region) in [
        ("bedrock-runtime.us-east-1.amazonaws.com", Some("us-east-1")),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com:443", Some("us-gov-west-1")),
        ("vpce-0a1-b2.bedrock-runtime.eu-west-3.vpce.amazonaws.com", Some("eu-west-3")),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
        ("bedrock-runtime.internal", None),
        ("127.0.0.1:9000", None),
        ("", None),
    ] {
        assert_eq!(region_of_host(host), region, "{host}");
    }
}
