//! Whom a client believes over TLS: the system's authorities, certificates that it was given, or anybody.
//!
//! What it is not: it opens no socket (`dial`) and no file. What must stay true: whoever is believed has the key of its certificate; a
//! certificate that was given is believed for the names that it has, and for no other.

use crate::error::Error;
use crate::options::Tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::{BuilderVerifierExt, Verifier};
use std::sync::Arc;

impl Tls {
    /// Whom the system trusts, and besides the certificates in this PEM: authorities, or servers' own, as one that signed
    /// itself. Reads what the system has, which takes files and time.
    ///
    /// # Errors
    /// It has no certificate, or one that cannot be read.
    pub fn trusting(pem: &[u8]) -> Result<Tls, Error> {
        believing(Tls::verifier(pem)?).map(Tls::Config).map_err(|error| wrong(&error))
    }

    /// What verifies for [`trusting`](Tls::trusting), for whoever makes configurations of their own.
    ///
    /// # Errors
    /// Those of [`trusting`](Tls::trusting).
    pub fn verifier(pem: &[u8]) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let given: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error: rustls::pki_types::pem::Error| wrong(&error))?;
        if given.is_empty() {
            return Err(wrong(&"there is none"));
        }
        let provider = provider();
        let others = Verifier::new_with_extra_roots(given.iter().cloned(), Arc::clone(&provider))
            .map_err(|error| wrong(&error))?;
        Ok(Arc::new(Believing { whom: Whom::Also { given, others: Box::new(others) }, provider }))
    }
}

fn wrong(what: &dyn std::fmt::Display) -> Error {
    Error::bad_argument(format!("certificates in PEM: {what}"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Whom the system trusts.
pub(crate) fn system() -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_platform_verifier()?.with_no_client_auth()))
}

/// Everybody.
pub(crate) fn anybody() -> Result<Arc<ClientConfig>, rustls::Error> {
    believing(Arc::new(Believing { whom: Whom::Anybody, provider: provider() }))
}

fn believing(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// Accepts whom it believes, and only from whoever has the certificate's key.
#[derive(Debug)]
struct Believing {
    whom: Whom,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Whom {
    /// Any certificate.
    Anybody,
    /// What the system's authorities and those that were given vouch for, and what was given itself.
    ///
    /// The latter has a rule of its own because what `openssl req -x509` makes is an authority's certificate, and no server
    /// may show one of those.
    Also { given: Vec<CertificateDer<'static>>, others: Box<Verifier> },
}

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.whom {
            Whom::Anybody => Ok(ServerCertVerified::assertion()),
            Whom::Also { given, .. } if given.iter().any(|given| given == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            Whom::Also { others, .. } => {
                others.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::server::ServerConfig;
    use rustls::{ClientConnection, ServerConnection};

    fn params(name: &str, is_authority: bool) -> CertificateParams {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    /// What a client that trusts `pem` says of a server with this certificate and key.
    fn judge(
        pem: &str,
        name: &str,
        certificate: &CertificateDer<'static>,
        key: &KeyPair,
    ) -> Result<(), String> {
        let Tls::Config(config) = Tls::trusting(pem.as_bytes()).unwrap() else { panic!("a configuration") };
        let mut client =
            ClientConnection::new(config, ServerName::try_from(name.to_owned()).unwrap()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets().map_err(|error| error.to_string())?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    #[test]
    fn what_was_given_is_trusted_for_its_name_alone() {
        for is_authority in [false, true] {
            let key = KeyPair::generate().unwrap();
            let own = params("good.example", is_authority).self_signed(&key).unwrap();
            let other =
                params("good.example", is_authority).self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(judge(&own.pem(), "good.example", own.der(), &key), Ok(()));
            assert_eq!(
                judge(&format!("{}{}", other.pem(), own.pem()), "good.example", own.der(), &key),
                Ok(())
            );
            let foreign_name = judge(&own.pem(), "bad.example", own.der(), &key).unwrap_err();
            assert!(foreign_name.contains("not valid for name"), "{foreign_name}");
            assert!(judge(&other.pem(), "good.example", own.der(), &key).is_err());
        }
    }

    #[test]
    fn whom_a_given_authority_vouches_for_is_trusted() {
        let key = KeyPair::generate().unwrap();
        let params_of_authority = params("authority", true);
        let authority = params_of_authority.self_signed(&key).unwrap();
        let issuer = Issuer::new(params_of_authority, key);
        let key = KeyPair::generate().unwrap();
        let server = params("good.example", false).signed_by(&key, &issuer).unwrap();
        assert_eq!(judge(&authority.pem(), "good.example", server.der(), &key), Ok(()));
        assert!(judge(&authority.pem(), "bad.example", server.der(), &key).is_err());
    }

    #[test]
    fn what_holds_no_certificate_is_refused() {
        for (pem, says) in [
            ("", "there is none"),
            ("nothing", "there is none"),
            ("-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n", "certificates in PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificates in PEM"),
        ] {
            let error = Tls::trusting(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{pem}: {error}");
        }
    }
}
