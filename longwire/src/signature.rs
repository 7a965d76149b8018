//! The signature of what is sent to a backend, by which it knows who sent it and when.
//!
//! `t=SECONDS,v1=HEX`: HEX is the HMAC-SHA256 of the seconds since 1970, a dot and the body. A backend computes
//! the same and refuses what is older than it likes, which is all that a replay could use. Nothing here sends.

use aws_lc_rs::hmac;
use std::fmt::Write as _;

/// The header that carries a signature, in lower case.
pub const HEADER: &str = "x-longwire-signature";

/// The signature of a body that is sent at a time, in seconds since 1970.
pub fn sign(secret: &str, unix_seconds: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
    context.update(format!("{unix_seconds}.").as_bytes());
    context.update(body);
    let mut signature = format!("t={unix_seconds},v1=");
    for byte in context.sign().as_ref() {
        let _ = write!(signature, "{byte:02x}");
    }
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `php -r 'echo hash_hmac("sha256", "1700000000.{}", "key");'` says the same.
    #[test]
    fn a_signature_is_what_php_computes() {
        let expected = "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(sign("key", 1_700_000_000, b"{}"), expected);
    }

    #[test]
    fn another_time_body_or_secret_is_another_signature() {
        let signature = sign("key", 1_700_000_000, b"{}");
        for other in [
            sign("key2", 1_700_000_000, b"{}"),
            sign("key", 1_700_000_001, b"{}"),
            sign("key", 1_700_000_000, b"{ }"),
        ] {
            assert_ne!(signature.split_once(",v1="), other.split_once(",v1="));
        }
    }
}
