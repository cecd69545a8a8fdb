//! What a router's machine is given before its agent runs: by whom it is, where it listens, and by which
//! certificates it and its host know each other. The driver that makes the machine puts it there, anew
//! for each machine.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The name in a router's certificate. It is the only one that its host trusts, so it says no more.
pub const NAME: &str = "netloom-router";

/// The file of a [`Bootstrap`].
const FILE: &str = "bootstrap.json";

/// Who a router is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bootstrap {
    /// The router.
    pub router: Uuid,
    /// Where its agent listens: its management address. The address need not be there yet.
    pub listen: SocketAddr,
    /// What this end proves to be itself with, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// The certificate of the other end, PEM: the only one that is trusted.
    pub peer: String,
}

/// Why a router's agent cannot begin.
#[derive(Debug, Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It is not what the driver of a router writes.
    #[error("{path} is not a router's bootstrap: {error}")]
    Form {
        /// The file.
        path: String,
        /// Why.
        error: serde_json::Error,
    },
    /// Certificates or key are not what they are to be.
    #[error("the bootstrap's certificates cannot be used: {0}")]
    Tls(String),
}

impl Bootstrap {
    /// That in a directory.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Form`].
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let words = || path.display().to_string();
        let bytes = fs::read(&path).map_err(|error| Error::File { path: words(), error })?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Form { path: words(), error })
    }

    /// What the router's agent listens with.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn server(&self) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.peer()?, provider.clone());
        let verifier = verifier.build().map_err(|error| Error::Tls(error.to_string()))?;
        let (chain, key) = self.own()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .and_then(|it| it.with_client_cert_verifier(verifier).with_single_cert(chain, key))
            .map_err(|error| Error::Tls(error.to_string()))?;
        // Each connection shakes hands anew: nothing is kept of those that were.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What its host speaks to it with; `self` is the host's end.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn client(&self) -> Result<Arc<ClientConfig>, Error> {
        let (chain, key) = self.own()?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .and_then(|builder| {
                let roots =
                    self.peer().map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.with_root_certificates(roots).with_client_auth_cert(chain, key)
            });
        config.map(Arc::new).map_err(|error| Error::Tls(error.to_string()))
    }

    fn own(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let wrong = |error: &dyn std::error::Error| Error::Tls(error.to_string());
        let chain = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes());
        Ok((vec![chain.map_err(|error| wrong(&error))?], key.map_err(|error| wrong(&error))?))
    }

    fn peer(&self) -> Result<Arc<RootCertStore>, Error> {
        let wrong = |error: &dyn std::error::Error| Error::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        let peer = CertificateDer::from_pem_slice(self.peer.as_bytes());
        roots.add(peer.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
        Ok(Arc::new(roots))
    }
}

/// The name that a host looks for in its router's certificate.
#[must_use]
pub fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("it is the form of a name")
}
