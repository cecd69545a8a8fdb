//! The certificate authority of an installation: it vouches for the server to the agents and for
//! each agent to the server, and for nobody else. A second one, in a directory of its own, vouches
//! for the REST server, so that whoever trusts that one cannot be sent to a false agents' server.
//!
//! Its key and certificate are one file, so that a crash leaves both or none. The server's own
//! certificate is made anew at each start and is never on disk. Agents' certificates last a year and
//! are renewed by the agents after eight months. A new enrolment replaces a certificate at once,
//! because the server accepts only those whose hashes are on record.

use std::{fs, io, os::unix::fs::DirBuilderExt, path::Path, time::Duration};

use model::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use wire::{SERVER_NAME, durable};

use crate::Error;

/// The authority's key and certificate, below the directory given to [`Pki::open`].
const FILE: &str = "ca.pem";

/// How long servers' certificates are good for, in seconds: ten years.
const SERVER_SECONDS: i64 = 10 * 365 * 86_400;

/// How long agents' certificates are good for, in seconds: a year.
const AGENT_SECONDS: i64 = 365 * 86_400;

/// After how long an agent gets another one, in seconds: a host may be away for four months.
pub(crate) const RENEWED_AFTER_SECONDS: i64 = AGENT_SECONDS / 3 * 2;

/// How far a host's clock may be behind the server's, in seconds.
const CLOCK_SKEW_SECONDS: i64 = 30 * 86_400;

/// The certificate authority.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    now: Timestamp,
}

/// A certificate and its key, PEM.
pub struct KeyedCertificate {
    /// The certificate.
    pub certificate: String,
    /// The key: a secret.
    pub key: String,
}

/// A certificate for a host's agent.
pub(crate) struct AgentCertificate {
    pub(crate) pem: String,
    /// SHA-256 of its DER, hex.
    pub(crate) sha256: String,
    /// SHA-256 of its public key, hex.
    pub(crate) key_sha256: String,
}

impl Pki {
    /// Opens the authority in `directory`, or makes one if there is none; nobody but its owner may
    /// enter a directory that is made. Blocks.
    ///
    /// # Errors
    /// [`Error::Pki`] when the file cannot be read, written or understood.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let failed = |cause: String| Error::Pki { path: path.clone(), cause };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let fresh = make(now).map_err(|error| failed(error.to_string()))?;
                let mut private = fs::DirBuilder::new();
                private
                    .recursive(true)
                    .mode(0o700)
                    .create(directory)
                    .and_then(|()| durable::replace(&path, fresh.as_bytes()))
                    .map_err(|error| failed(error.to_string()))?;
                fresh
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        read(&text, now).map_err(|error| failed(error.to_string()))
    }

    /// The authority's certificate, PEM: what agents trust. No secret.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for the agents' server, with a fresh key.
    pub(crate) fn server(&self) -> Result<KeyedCertificate, rcgen::Error> {
        self.server_at(&[SERVER_NAME.to_owned()], self.now)
    }

    /// A certificate for a server at these names and addresses, with a fresh key.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn server_at(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<KeyedCertificate, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        restrict(&mut params, ExtendedKeyUsagePurpose::ServerAuth, (now, SERVER_SECONDS));
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(KeyedCertificate { certificate, key: key.serialize_pem() })
    }

    /// A certificate for the agent of `host`. Only the public key is taken from the request.
    pub(crate) fn agent(
        &self,
        host: Uuid,
        request: &[u8],
        now: Timestamp,
    ) -> Result<AgentCertificate, rcgen::Error> {
        let mut request = CertificateSigningRequestParams::from_der(&request.into())?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, host.simple().to_string());
        restrict(&mut params, ExtendedKeyUsagePurpose::ClientAuth, (now, AGENT_SECONDS));
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?;
        Ok(AgentCertificate {
            sha256: sha256_hex(certificate.der()),
            key_sha256: sha256_hex(request.public_key.der_bytes()),
            pem: certificate.pem(),
        })
    }
}

/// SHA-256, in the lower-case hex in which the store keeps hashes.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make(now: Timestamp) -> Result<String, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "netloom");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // The authority outlives every certificate that it signs.
    params.not_before =
        date_time_ymd(1970, 1, 1) + since_epoch(now.plus_seconds(-CLOCK_SKEW_SECONDS));
    params.not_after = date_time_ymd(4096, 1, 1);
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

fn read(text: &str, now: Timestamp) -> Result<Pki, rcgen::Error> {
    let split = text.find("-----BEGIN PRIVATE KEY").ok_or(rcgen::Error::CouldNotParseKeyPair)?;
    let (certificate, key) = text.split_at(split);
    let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
    Ok(Pki { issuer, certificate: certificate.to_owned(), now })
}

fn restrict(
    params: &mut CertificateParams,
    usage: ExtendedKeyUsagePurpose,
    (now, seconds): (Timestamp, i64),
) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.not_before =
        date_time_ymd(1970, 1, 1) + since_epoch(now.plus_seconds(-CLOCK_SKEW_SECONDS));
    params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(now.plus_seconds(seconds));
}

fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_millis(time.0.try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    #[test]
    fn the_authority_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = Pki::open(&directory.path().join("pki"), NOW).unwrap();
        let again = Pki::open(&directory.path().join("pki"), NOW).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        assert!(!first.certificate().contains("PRIVATE"));
        for (path, expected) in [("pki", 0o700), ("pki/ca.pem", 0o600)] {
            let mode = fs::metadata(directory.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{path}");
        }
    }

    #[test]
    fn a_damaged_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "nonsense").unwrap();
        assert!(Pki::open(directory.path(), NOW).is_err());
        assert_eq!(fs::read_to_string(directory.path().join(FILE)).unwrap(), "nonsense");
    }

    #[test]
    fn a_request_without_a_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::open(directory.path(), NOW).unwrap();
        assert!(pki.agent(Uuid::nil(), b"nonsense", NOW).is_err());
    }
}
