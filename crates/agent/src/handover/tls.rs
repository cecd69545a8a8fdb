//! Mutual TLS between agents, with the certificates that they have for the server.
//!
//! The authority gives a host a certificate that is good for a client and names the host. Here it is
//! good for either end: each end checks it as the server does a client's. So the certificate of the
//! server itself, which is no client's, is refused.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::TLS13,
};
use uuid::Uuid;

use crate::identity::Identity;

/// What this host proves to be itself with, at either end.
pub(super) struct Tls {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

impl Tls {
    /// Of an identity, or what is wrong with it.
    pub(super) fn of(identity: &Identity) -> Result<Self, String> {
        let words = |error: &dyn std::error::Error| error.to_string();
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(identity.ca.as_bytes()) {
            roots.add(root.map_err(|e| words(&e))?).map_err(|e| words(&e))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|e| words(&e))?;
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
        let chain = chain.map_err(|e| words(&e))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|e| words(&e))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                let builder = builder.with_client_cert_verifier(Arc::clone(&verifier));
                builder.with_single_cert(chain.clone(), key.clone_key())
            });
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                let builder = builder.dangerous();
                let builder = builder.with_custom_certificate_verifier(Arc::new(Host(verifier)));
                builder.with_client_auth_cert(chain, key)
            });
        let (server, client) = (server.map_err(|e| words(&e))?, client.map_err(|e| words(&e))?);
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// The name that is sent to the other end, which has none: it is known by its host.
pub(super) fn name() -> ServerName<'static> {
    const NAME: &str = "netloom-agent";
    ServerName::try_from(NAME).expect("it is the form of a name")
}

/// The host that a certificate names, which has been checked.
pub(super) fn host_of(chain: Option<&[CertificateDer<'_>]>) -> Option<Uuid> {
    let (_, certificate) = x509_parser::parse_x509_certificate(chain?.first()?).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?;
    Uuid::try_parse(name).ok().filter(|_| names.next().is_none())
}

/// Checks the certificate of the end that was dialled as one of a host. Which host it is, is asked
/// afterwards ([`host_of`]).
#[derive(Debug)]
struct Host(Arc<dyn ClientCertVerifier>);

impl ServerCertVerifier for Host {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.0.verify_client_cert(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    /// An authority, and its certificate.
    fn authority() -> (Issuer<'static, KeyPair>, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "netloom");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), certificate)
    }

    /// What an authority would give, for this use, with this name.
    fn tls(
        (issuer, ca): &(Issuer<'static, KeyPair>, String),
        usage: ExtendedKeyUsagePurpose,
        name: &str,
    ) -> Tls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, issuer).unwrap().pem();
        let (server, host, token_sha256) = (String::new(), Uuid::nil(), String::new());
        let (ca, key) = (ca.clone(), key.serialize_pem());
        Tls::of(&Identity { server, host, ca, certificate, key, token_sha256 }).unwrap()
    }

    /// Whom each end sees, if it accepts the other one.
    async fn shake(near: &Tls, far: &Tls) -> [Option<Uuid>; 2] {
        let (one, other) = tokio::io::duplex(1 << 16);
        let (dials, listens) = tokio::join!(
            TlsConnector::from(near.client.clone()).connect(name(), one),
            TlsAcceptor::from(far.server.clone()).accept(other),
        );
        // TLS 1.3: the client is done before the server has judged it.
        let seen = dials.as_ref().ok().map(|stream| stream.get_ref().1.peer_certificates());
        let heard = listens.as_ref().ok().map(|stream| stream.get_ref().1.peer_certificates());
        [seen, heard].map(|chain| host_of(chain.flatten()))
    }

    #[tokio::test]
    async fn each_end_knows_the_others_host_and_takes_nobody_else() {
        let (ours, theirs) = (authority(), authority());
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        let host = |number| Uuid::from_u128(number).simple().to_string();
        let first = tls(&ours, client.clone(), &host(1));
        let second = tls(&ours, client.clone(), &host(2));
        assert_eq!(shake(&first, &second).await, [2, 1].map(|n| Some(Uuid::from_u128(n))));
        // Of another installation; the server; somebody without a host's name.
        let stranger = tls(&theirs, client.clone(), &host(1));
        let server = tls(&ours, ExtendedKeyUsagePurpose::ServerAuth, &host(1));
        let nobody = tls(&ours, client, "netloom-server");
        for other in [stranger, server, nobody] {
            assert_eq!(shake(&other, &second).await[1], None, "who dials");
            assert_eq!(shake(&second, &other).await[0], None, "who is dialled");
        }
    }
}
