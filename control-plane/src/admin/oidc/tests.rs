//! Tokens, key sets and settings without an issuer. `tests/it/oidc.rs` has the same against a real one.

mod issuer;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use super::{
    keys::KeySet,
    settings::{GroupRole, OidcOptions, OidcSettings, is_safe},
    token::{Identity, Policy, Refusal, verify},
};
use crate::admin::Role;

const NOW: i64 = 1_800_000_000;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with one Ed25519 key `ed` and one P-256 key `ec`.
struct Signer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
}

impl Signer {
    fn new() -> Self {
        super::ring_provider::install();
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
        }
    }

    fn jwks(&self) -> Vec<Value> {
        let point = self.ec.public_key().as_ref();
        vec![
            json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(self.ed.public_key()) }),
            json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig",
                    "x": encode(&point[1..33]), "y": encode(&point[33..]) }),
        ]
    }

    fn keys(&self) -> KeySet {
        key_set(&self.jwks())
    }

    fn ed(&self, header: &Value, claims: &Value) -> String {
        signed(header, claims, |message| self.ed.sign(message).as_ref().to_vec())
    }

    fn ec(&self, header: &Value, claims: &Value) -> String {
        signed(header, claims, |message| {
            self.ec.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        })
    }
}

fn key_set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn signed(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn settings() -> OidcSettings {
    let options = OidcOptions {
        issuer: Some("https://issuer.example".into()),
        audience: Some("nemo, other-nemo".into()),
        ..OidcOptions::default()
    };
    options.check().unwrap().unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": "nemo", "sub": "u-1", "exp": NOW + 300, "iat": NOW, "nbf": NOW,
        "email": "Ada@Example.com", "email_verified": true, "groups": ["a", "b"],
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(member)),
        value => claims[member] = value,
    }
    claims
}

const ED: fn() -> Value = || json!({ "alg": "EdDSA", "kid": "ed", "typ": "JWT" });

#[test]
fn a_good_token_says_who_it_is_about() {
    let signer = Signer::new();
    let (keys, policy) = (signer.keys(), Policy::of(&settings()));
    let expected = Identity {
        subject: "u-1".into(),
        email: Some("ada@example.com".into()),
        groups: vec!["a".into(), "b".into()],
    };
    let es256 = json!({ "alg": "ES256", "kid": "ec", "typ": "at+jwt" });
    for token in [
        signer.ed(&ED(), &claims()),
        signer.ec(&es256, &claims()),
        // A token that names no key may be signed with any.
        signer.ec(&json!({ "alg": "ES256" }), &claims()),
        signer.ed(&ED(), &with("aud", json!(["x", "other-nemo"]))),
        signer.ed(&ED(), &with("exp", json!(1_800_000_300.5))),
    ] {
        assert_eq!(verify(&token, &keys, &policy, NOW), Ok(expected.clone()), "{token}");
    }
}

#[test]
fn claims_that_are_wrong_missing_or_of_another_time_are_refused() {
    let signer = Signer::new();
    let (keys, policy) = (signer.keys(), Policy::of(&settings()));
    let claim = |name: &str| Refusal::Claim(name.into());
    for (member, value, refusal) in [
        ("iss", json!("https://issuer.example/"), Refusal::Issuer),
        ("iss", json!(["https://issuer.example", "x"]), Refusal::Malformed),
        ("iss", Value::Null, Refusal::Issuer),
        ("aud", json!("someone"), Refusal::Audience),
        ("aud", json!([]), Refusal::Audience),
        ("aud", Value::Null, Refusal::Audience),
        ("exp", json!(NOW - 60), Refusal::Expired),
        ("exp", Value::Null, claim("exp")),
        ("exp", json!("soon"), Refusal::Malformed),
        ("nbf", json!(NOW + 61), Refusal::NotYet),
        ("iat", json!(NOW + 61), Refusal::NotYet),
        ("sub", Value::Null, claim("sub")),
        ("sub", json!(""), claim("sub")),
        ("sub", json!(7), claim("sub")),
        ("sub", json!("x".repeat(256)), claim("sub")),
    ] {
        let token = signer.ed(&ED(), &with(member, value.clone()));
        assert_eq!(verify(&token, &keys, &policy, NOW), Err(refusal), "{member} {value}");
    }
    // A clock may be a little wrong.
    for (member, value) in [("exp", NOW - 59), ("nbf", NOW + 60), ("iat", NOW + 60)] {
        let token = signer.ed(&ED(), &with(member, json!(value)));
        assert!(verify(&token, &keys, &policy, NOW).is_ok(), "{member}");
    }
}

/// No token chooses how it is checked: not at all, with a public key as a shared secret, or with another's key.
#[test]
fn no_token_chooses_how_it_is_checked() {
    let signer = Signer::new();
    let (keys, policy) = (signer.keys(), Policy::of(&settings()));
    let refused = |token: &str| verify(token, &keys, &policy, NOW).unwrap_err();

    let body = encode(claims().to_string());
    for alg in ["none", "None", "nOnE", ""] {
        let header = encode(json!({ "alg": alg }).to_string());
        assert_eq!(refused(&format!("{header}.{body}.")), Refusal::Algorithm, "{alg}");
    }
    // HMAC keyed with what everybody can read.
    for public in [self_point(&signer), signer.ed.public_key().as_ref().to_vec()] {
        for kid in [json!("ec"), json!("ed"), Value::Null] {
            let mut header = json!({ "alg": "HS256" });
            if !kid.is_null() {
                header["kid"] = kid;
            }
            let key = hmac::Key::new(hmac::HMAC_SHA256, &public);
            let token = signed(&header, &claims(), |message| hmac::sign(&key, message).as_ref().to_vec());
            assert_eq!(refused(&token), Refusal::Algorithm);
        }
    }
    // A key of another type, or one that is for another algorithm.
    let wrong_type = signer.ed(&json!({ "alg": "EdDSA", "kid": "ec" }), &claims());
    assert_eq!(refused(&wrong_type), Refusal::UnknownKey);
    let unknown = signer.ed(&json!({ "alg": "EdDSA", "kid": "x" }), &claims());
    assert_eq!(refused(&unknown), Refusal::UnknownKey);
    // A key that the token brings along.
    let own = Signer::new();
    let mut header = ED();
    header["jwk"] = own.jwks()[0].clone();
    assert_eq!(refused(&own.ed(&header, &claims())), Refusal::Signature);
    // Claims that were changed after signing.
    let token = signer.ed(&ED(), &claims());
    let mut parts: Vec<_> = token.split('.').collect();
    let other = encode(with("sub", json!("u-2")).to_string());
    parts[1] = &other;
    assert_eq!(refused(&parts.join(".")), Refusal::Signature);
    // What must be understood and is not; what is not for APIs.
    let mut header = ED();
    header["crit"] = json!(["b64"]);
    assert_eq!(refused(&signer.ed(&header, &claims())), Refusal::Malformed);
    let logout = json!({ "alg": "EdDSA", "kid": "ed", "typ": "logout+jwt" });
    assert_eq!(refused(&signer.ed(&logout, &claims())), Refusal::Type);
    for text in ["a.b", "a.b.c", "..", "a.b.c.d", &format!("{}.{}.x", "e".repeat(9000), "e".repeat(9000))] {
        assert!(matches!(refused(text), Refusal::Malformed | Refusal::Algorithm), "{text:.20}");
    }
}

fn self_point(signer: &Signer) -> Vec<u8> {
    signer.ec.public_key().as_ref().to_vec()
}

#[test]
fn keys_for_other_purposes_and_shared_secrets_are_not_in_the_set() {
    let signer = Signer::new();
    let [ed, ec] = signer.jwks().try_into().unwrap();
    let changed = |member: &str, value: Value| {
        let mut key: Value = ec.clone();
        key[member] = value;
        key
    };
    for useless in [
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "ec" }),
        json!({ "kty": "RSA", "kid": "ec" }),
        json!({ "kty": "new" }),
        json!(7),
        changed("use", json!("enc")),
        changed("key_ops", json!(["encrypt"])),
        changed("alg", json!("ECDH-ES")),
        changed("alg", json!("RSA-OAEP")),
    ] {
        let keys = key_set(&[useless.clone(), ed.clone()]);
        assert_eq!(keys.len(), 1, "{useless}");
    }
    assert!(KeySet::parse(b"{}").is_err() && KeySet::parse(b"[]").is_err());
    let many = vec![ed; 200];
    assert_eq!(key_set(&many).len(), 100);
}

#[test]
fn an_address_counts_when_it_is_verified_or_the_issuer_is_trusted_with_it() {
    let signer = Signer::new();
    let keys = signer.keys();
    let trusting = Policy::of(&OidcSettings { trust_email: true, ..settings() });
    let careful = Policy::of(&settings());
    for (verified, by_careful, by_trusting) in [
        (json!(true), true, true),
        (json!("true"), true, true),
        (json!(false), false, false),
        (json!("false"), false, false),
        (json!(1), false, false),
        (Value::Null, false, true),
    ] {
        let token = signer.ed(&ED(), &with("email_verified", verified.clone()));
        for (policy, expected) in [(&careful, by_careful), (&trusting, by_trusting)] {
            let identity = verify(&token, &keys, policy, NOW).unwrap();
            assert_eq!(identity.email.is_some(), expected, "{verified}");
        }
    }
}

#[test]
fn claims_are_found_by_name_and_by_path() {
    let signer = Signer::new();
    let keys = signer.keys();
    let policy = Policy::of(&OidcSettings {
        groups_claim: "realm_access.roles".into(),
        email_claim: "https://nemo.example/mail".into(),
        ..settings()
    });
    let mut claims = claims();
    claims["realm_access"] = json!({ "roles": ["r1", 2, "r3"] });
    claims["https://nemo.example/mail"] = json!("eve@example.com");
    let identity = verify(&signer.ed(&ED(), &claims), &keys, &policy, NOW).unwrap();
    assert_eq!(identity.groups, ["r1", "r3"]);
    assert_eq!(identity.email.as_deref(), Some("eve@example.com"));
}

#[test]
fn an_issuer_is_reached_over_tls_or_not_over_a_network() {
    for safe in
        ["https://a.example/x", "http://127.0.0.1:8080/realms/x", "http://localhost:1", "http://[::1]:9"]
    {
        assert!(is_safe(safe), "{safe}");
    }
    for unsafe_url in [
        "http://a.example",
        "ftp://a.example",
        "a.example",
        "",
        "https://",
        "http://10.0.0.1",
        "https://u@a.example",
    ] {
        assert!(!is_safe(unsafe_url), "{unsafe_url}");
    }
}

#[test]
fn settings_that_would_let_anybody_in_are_refused() {
    let good = OidcOptions {
        issuer: Some("https://issuer.example".into()),
        audience: Some("nemo".into()),
        ..OidcOptions::default()
    };
    assert_eq!(OidcOptions::default().check().unwrap(), None);
    let wrong: [(&str, OidcOptions); 7] = [
        ("oidc_audience", OidcOptions { audience: Some(" , ".into()), ..good.clone() }),
        ("oidc_issuer", OidcOptions { issuer: Some("http://issuer.example".into()), ..good.clone() }),
        ("oidc_issuer", OidcOptions { issuer: Some("https://issuer.example?x".into()), ..good.clone() }),
        ("oidc_audience", OidcOptions { issuer: None, ..good.clone() }),
        ("oidc_roles", OidcOptions { roles: Some("admins".into()), ..good.clone() }),
        ("oidc_roles", OidcOptions { roles: Some("admins=owner".into()), ..good.clone() }),
        ("oidc_roles", OidcOptions { roles: Some("admins=king@x".into()), ..good.clone() }),
    ];
    for (name, options) in wrong {
        let error = options.check().unwrap_err().to_string();
        assert!(error.starts_with(name) && error.contains("expected"), "{error}");
    }
    let org = "01890a5d-ac96-774b-bcce-b302099a8057";
    let roles = format!("cn=ops,dc=x=operator; devs = member@{org};");
    let settings = OidcOptions { roles: Some(roles), ..good }.check().unwrap().unwrap();
    let devs = GroupRole { group: "devs".into(), role: Role::Member, org: org.parse().ok() };
    let ops = GroupRole { group: "cn=ops,dc=x".into(), role: Role::Operator, org: None };
    assert_eq!(settings.group_roles, [ops, devs]);
}
