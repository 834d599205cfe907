//! What makes a token acceptable: signed by the issuer with an algorithm of public keys, for us, and now. Pure: time and
//! keys are arguments.

use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{keys::KeySet, settings::OidcSettings};

/// Clocks of issuers and ours differ by so much, in seconds.
const LEEWAY: i64 = 60;
/// No token is longer.
const MAX_BYTES: usize = 16 * 1024;
/// Longest subject, as the specification says.
const MAX_SUBJECT: usize = 255;
const MAX_EMAIL: usize = 254;

/// Whom a token is about, as its issuer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Stays the same for a person.
    pub subject: String,
    /// Verified, lower case.
    pub email: Option<String>,
    pub groups: Vec<String>,
}

/// What tokens are measured against.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    issuer: String,
    audiences: Vec<String>,
    subject_claim: String,
    email_claim: String,
    trust_email: bool,
    groups_claim: String,
}

impl Policy {
    pub(super) fn of(settings: &OidcSettings) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            audiences: settings.audiences.clone(),
            subject_claim: settings.subject_claim.clone(),
            email_claim: settings.email_claim.clone(),
            trust_email: settings.trust_email,
            groups_claim: settings.groups_claim.clone(),
        }
    }
}

/// Why a token is not acceptable. Told to whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("neither an admin token nor a signed token of the issuer")]
    Malformed,
    #[error("the token's signing algorithm is not accepted")]
    Algorithm,
    #[error("the token is of a type that is not for APIs")]
    Type,
    #[error("the token is signed with a key that the issuer does not publish")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token lacks the claim {0:?}, or it has another form")]
    Claim(String),
}

/// The claims that must be there in this form. `exp` and its kin are seconds, maybe with a fraction.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Audience>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Some(Vec<String>),
}

/// Who the token is about, when it is acceptable at `now` (Unix seconds).
pub(super) fn verify(token: &str, keys: &KeySet, policy: &Policy, now: i64) -> Result<Identity, Refusal> {
    if token.len() > MAX_BYTES || token.split('.').count() != 3 {
        return Err(Refusal::Malformed);
    }
    // Algorithms that we have no name for, `none` among them, end here.
    let header = decode_header(token).map_err(|error| match error.kind() {
        ErrorKind::Json(_) => Refusal::Algorithm,
        _ => Refusal::Malformed,
    })?;
    if header.crit.is_some() {
        return Err(Refusal::Malformed);
    }
    let typ = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    if !matches!(typ.as_str(), "jwt" | "at+jwt" | "application/at+jwt") {
        return Err(Refusal::Type);
    }
    if matches!(header.alg, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512) {
        return Err(Refusal::Algorithm);
    }
    let claims = signed_claims(token, keys, header.kid.as_deref(), header.alg)?;
    check(&claims, policy, now)?;
    identity(&claims.others, policy)
}

/// The claims, once one of the issuer's keys fits the signature.
fn signed_claims(
    token: &str,
    keys: &KeySet,
    id: Option<&str>,
    algorithm: Algorithm,
) -> Result<Claims, Refusal> {
    // What the library would check of the claims is checked below: strictly, and against a clock that tests can set.
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let mut refusal = Refusal::UnknownKey;
    for key in keys.candidates(id, algorithm) {
        match decode::<Claims>(token, key, &validation) {
            Ok(decoded) => return Ok(decoded.claims),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {
                refusal = Refusal::Signature;
            }
            Err(_) => return Err(Refusal::Malformed),
        }
    }
    Err(refusal)
}

/// Of whom, for whom, when.
#[expect(
    clippy::cast_precision_loss,
    reason = "Unix seconds are exact in a double for longer than anybody lives"
)]
fn check(claims: &Claims, policy: &Policy, now: i64) -> Result<(), Refusal> {
    if claims.iss.as_deref() != Some(policy.issuer.as_str()) {
        return Err(Refusal::Issuer);
    }
    let ours = |audience: &String| policy.audiences.contains(audience);
    let is_ours = match &claims.aud {
        Some(Audience::One(audience)) => ours(audience),
        Some(Audience::Some(audiences)) => audiences.iter().any(ours),
        None => false,
    };
    if !is_ours {
        return Err(Refusal::Audience);
    }
    let (earliest, latest) = ((now - LEEWAY) as f64, (now + LEEWAY) as f64);
    let expires = claims.exp.ok_or_else(|| Refusal::Claim("exp".to_owned()))?;
    if expires <= earliest {
        return Err(Refusal::Expired);
    }
    let begins = [claims.nbf, claims.iat];
    if begins.into_iter().flatten().any(|begin| begin > latest) {
        return Err(Refusal::NotYet);
    }
    Ok(())
}

fn identity(claims: &Map<String, Value>, policy: &Policy) -> Result<Identity, Refusal> {
    let missing = |claim: &str| Refusal::Claim(claim.to_owned());
    let subject = find(claims, &policy.subject_claim).and_then(Value::as_str);
    let subject = subject.filter(|subject| {
        (1..=MAX_SUBJECT).contains(&subject.len()) && !subject.chars().any(char::is_control)
    });
    let subject = subject.ok_or_else(|| missing(&policy.subject_claim))?.to_owned();
    let verified = match claims.get("email_verified") {
        Some(Value::Bool(verified)) => *verified,
        // Some issuers write it as text.
        Some(Value::String(verified)) => verified == "true",
        // An address that the issuer calls unverified is never believed.
        Some(_) => false,
        None => policy.trust_email,
    };
    let email = find(claims, &policy.email_claim).and_then(Value::as_str);
    let email = email.filter(|email| verified && email.len() <= MAX_EMAIL && email.contains('@'));
    let groups = match find(claims, &policy.groups_claim) {
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(group)) => vec![group.clone()],
        _ => Vec::new(),
    };
    Ok(Identity { subject, email: email.map(str::to_lowercase), groups })
}

/// A claim by its name (which may be a URL with dots in it), else by its path.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, step| value.get(step))
}
