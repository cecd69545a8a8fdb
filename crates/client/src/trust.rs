//! Whom a client believes that a server is the one that it asks for.

use std::{fs, io, sync::Arc};

use rustls::crypto::ring;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Where Debian keeps the authorities that the whole system trusts.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The authorities that the system trusts. Without the file these are none, and each certificate is
/// refused.
pub(crate) fn system() -> Vec<Certificate<'static>> {
    fs::read(SYSTEM).ok().and_then(|text| read(&text).ok()).unwrap_or_default()
}

/// All certificates of a PEM text.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            found.push(certificate);
        }
    }
    match found.is_empty() {
        true => Err("there is no certificate in it".to_owned()),
        false => Ok(found),
    }
}

pub(crate) fn config(trusted: Vec<Certificate<'static>>) -> TlsConfig {
    TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build()
}

/// What is wrong with the server's certificate, if it was this that ended the call.
pub(crate) fn refusal(error: &ureq::Error) -> Option<String> {
    let of_tls = match error {
        ureq::Error::Rustls(error) => error,
        ureq::Error::Io(error) => io::Error::get_ref(error)?.downcast_ref()?,
        _ => return None,
    };
    match of_tls {
        rustls::Error::InvalidCertificate(cause) => Some(cause.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        for text in ["", "nonsense", key, "-----BEGIN CERTIFICATE-----\nAA"] {
            assert!(super::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
