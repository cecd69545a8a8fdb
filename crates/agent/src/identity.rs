//! Who the agent is: its key and certificate, the server it belongs to, on disk in one file.

use std::{fs, io, path::Path};

use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use uuid::Uuid;
use wire::{SERVER_NAME, durable};

use crate::{Config, Error};

/// The file's name in the data directory.
const FILE: &str = "identity.json";

/// The name of the file with a key that has no certificate yet.
const PENDING_FILE: &str = "identity.pending.json";

/// What `CreateHostEnrolment` gives to the operator, who carries it to the host.
#[derive(Deserialize)]
pub(crate) struct Bundle {
    /// Where the server listens for agents: address and port.
    pub(crate) server: String,
    /// The host.
    pub(crate) host: Uuid,
    /// The one-time token.
    pub(crate) token: String,
    /// The certificate authority, PEM.
    pub(crate) ca: String,
}

/// `CreateHostEnrolment`'s answer, as the command line prints it, or what is in it.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "not an answer of CreateHostEnrolment, with server, host, token and ca"
)]
enum Enrolment {
    Answer { inventory: Bundle },
    Bundle(Bundle),
}

/// A key that a token is being traded with. It is kept until the certificate is there: an answer
/// that was lost is given again to the same key only.
#[derive(Serialize, Deserialize)]
pub(crate) struct Pending {
    /// SHA-256 of the token, hex.
    token_sha256: String,
    /// The key, PEM.
    pub(crate) key: String,
}

/// Who the agent is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Where the server listens for agents: address and port.
    pub(crate) server: String,
    /// The host.
    pub(crate) host: Uuid,
    /// The certificate authority, PEM.
    pub(crate) ca: String,
    /// The client certificate, PEM.
    pub(crate) certificate: String,
    /// Its key, PEM. Never leaves the host.
    pub(crate) key: String,
    /// SHA-256 of the token that it was enrolled with, hex.
    pub(crate) token_sha256: String,
}

/// What is there at the start.
pub(crate) struct Known {
    pub(crate) identity: Option<Identity>,
    /// An enrolment that has not been used for this identity.
    pub(crate) bundle: Option<Bundle>,
}

impl Known {
    /// Reads the identity and the enrolment. Blocks.
    pub(crate) fn read(config: &Config) -> Result<Self, Error> {
        let path = config.data.join(FILE);
        let identity: Option<Identity> = match read(&path) {
            Err(Error::File { cause, .. }) if cause.kind() == io::ErrorKind::InvalidData => {
                put_aside(&path, cause, config)?;
                None
            }
            read => read?,
        };
        let bundle: Option<Bundle> = match &config.enrol {
            None => None,
            Some(path) => match read(path) {
                Ok(Some(Enrolment::Answer { inventory: bundle } | Enrolment::Bundle(bundle))) => {
                    Some(bundle)
                }
                // It may well be gone once it was used.
                _ if identity.is_some() => None,
                Ok(None) => {
                    return Err(Error::file(path, "read")(io::ErrorKind::NotFound.into()));
                }
                Err(error) => return Err(error),
            },
        };
        let used = |bundle: &Bundle| {
            identity.as_ref().is_some_and(|known| known.token_sha256 == bundle.token_sha256())
        };
        let bundle = bundle.filter(|bundle| !used(bundle));
        if identity.is_none() && bundle.is_none() {
            return Err(Error::NotEnrolled(config.data.clone()));
        }
        Ok(Self { identity, bundle })
    }
}

impl Bundle {
    /// The key to trade the token with: the one of an earlier try, or a new one, on disk before
    /// it is used. Blocks.
    pub(crate) fn key(&self, directory: &Path) -> Result<KeyPair, Error> {
        let path = directory.join(PENDING_FILE);
        let earlier: Option<Pending> = read(&path)?;
        if let Some(earlier) = earlier.filter(|it| it.token_sha256 == self.token_sha256()) {
            return Ok(KeyPair::from_pem(&earlier.key)?);
        }
        let key = KeyPair::generate()?;
        let pending = Pending { token_sha256: self.token_sha256(), key: key.serialize_pem() };
        fs::create_dir_all(directory).map_err(Error::file(directory, "make it"))?;
        save(&path, &pending)?;
        Ok(key)
    }

    pub(crate) fn token_sha256(&self) -> String {
        Sha256::digest(self.token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Identity {
    /// Makes it durable. Blocks.
    pub(crate) fn save(&self, directory: &Path) -> Result<(), Error> {
        save(&directory.join(FILE), self)?;
        let pending = directory.join(PENDING_FILE);
        match fs::remove_file(&pending) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::file(&pending, "remove")(error))
            }
            _ => Ok(()),
        }
    }
}

impl Identity {
    /// A request for another certificate for its key, DER.
    pub(crate) fn request(&self) -> Result<Vec<u8>, Error> {
        let key = KeyPair::from_pem(&self.key)?;
        Ok(CertificateParams::default().serialize_request(&key)?.der().to_vec())
    }
}

/// Makes room for a new identity, where the operator has given an enrolment to get one with.
fn put_aside(path: &Path, cause: io::Error, config: &Config) -> Result<(), Error> {
    if config.enrol.is_none() {
        return Err(Error::DamagedIdentity { path: path.to_owned(), cause });
    }
    let aside = path.with_extension("damaged");
    fs::rename(path, &aside).map_err(Error::file(path, "move the damaged file aside"))?;
    tracing::error!(file = %aside.display(), %cause, "the identity cannot be read; enrolling anew");
    Ok(())
}

fn save(path: &Path, what: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(what).map_err(io::Error::from);
    let saved = text.and_then(|text| durable::replace(path, &text));
    saved.map_err(Error::file(path, "write"))
}

/// Where and how to connect: the server must have the name that the authority gave it, whatever
/// its address is.
pub(crate) fn endpoint(
    server: &str,
    ca: &str,
) -> Result<(Endpoint, ClientTlsConfig), tonic::transport::Error> {
    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(SERVER_NAME);
    Ok((Endpoint::from_shared(format!("https://{server}"))?, tls))
}

/// Whether these bytes are an enrolment that says where to connect, and whom to believe.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn is_understood(bytes: &[u8]) -> bool {
    serde_json::from_slice(bytes).is_ok_and(|enrolment| {
        let (Enrolment::Answer { inventory: bundle } | Enrolment::Bundle(bundle)) = enrolment;
        let _ = bundle.token_sha256();
        endpoint(&bundle.server, &bundle.ca).is_ok()
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let failed = |action| Error::file(path, action);
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read")(error)),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
            let cause = io::Error::new(io::ErrorKind::InvalidData, error);
            failed("understand")(cause)
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config(directory: &Path, enrol: Option<&str>) -> Config {
        Config {
            data: directory.to_owned(),
            bpffs: PathBuf::new(),
            prefix: String::new(),
            enrol: enrol.map(|name| directory.join(name)),
            conntrack: crate::conntrack_size(1, Some(1)),
            direct_underlay: true,
            accel: crate::Accel::Tcg,
            handover: None,
            spares: 0,
            sample: 0,
        }
    }

    fn write_bundle(directory: &Path, token: &str) {
        let host = Uuid::from_u128(5).simple().to_string();
        let bundle = serde_json::json!(
            {"server": "127.0.0.1:1", "host": host, "token": token, "ca": "pem"}
        );
        fs::write(directory.join("bundle"), bundle.to_string()).unwrap();
    }

    #[test]
    fn without_identity_and_enrolment_there_is_a_clear_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = Known::read(&config(directory.path(), None)).err().unwrap().to_string();
        assert!(error.contains("CreateHostEnrolment"), "{error}");
        let error = Known::read(&config(directory.path(), Some("none"))).err().unwrap().to_string();
        assert!(error.contains("none"), "{error}");
    }

    #[test]
    fn a_damaged_identity_says_what_to_do_and_gives_way_to_an_enrolment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        for damaged in ["", "{\"server\": \"192.0.2.1:74", "\0\0\0\0"] {
            fs::write(&path, damaged).unwrap();
            let error = Known::read(&config(directory.path(), None)).err().unwrap().to_string();
            assert!(error.contains("identity.json") && error.contains("--enrol FILE"), "{error}");
            assert!(path.exists(), "nothing was touched");
            write_bundle(directory.path(), "one");
            let known = Known::read(&config(directory.path(), Some("bundle"))).unwrap();
            assert!(known.identity.is_none());
            assert_eq!(known.bundle.unwrap().token, "one");
            let aside = directory.path().join("identity.damaged");
            assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
        }
    }

    #[test]
    fn an_enrolment_is_understood_as_the_command_line_prints_it() {
        let directory = tempfile::tempdir().unwrap();
        write_bundle(directory.path(), "one");
        let path = directory.path().join("bundle");
        let answer = format!("{{\"inventory\": {}}}\n", fs::read_to_string(&path).unwrap());
        fs::write(&path, answer).unwrap();
        let known = Known::read(&config(directory.path(), Some("bundle"))).unwrap();
        assert_eq!(known.bundle.unwrap().token, "one");
        fs::write(&path, "{\"host\": 5}").unwrap();
        let error = Known::read(&config(directory.path(), Some("bundle"))).err().unwrap();
        assert!(error.to_string().contains("CreateHostEnrolment"), "{error}");
    }

    #[test]
    fn a_token_keeps_its_key_until_the_certificate_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), Some("bundle"));
        let key = |token| {
            write_bundle(directory.path(), token);
            let bundle = Known::read(&config).unwrap().bundle.unwrap();
            bundle.key(directory.path()).unwrap().serialize_pem()
        };
        let first = key("one");
        assert_eq!(key("one"), first);
        assert_ne!(key("two"), first);
    }

    #[test]
    fn an_enrolment_counts_once_and_a_new_token_again() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path(), Some("bundle"));
        write_bundle(directory.path(), "one");
        let bundle = Known::read(&config).unwrap().bundle.unwrap();
        let identity = Identity {
            token_sha256: bundle.token_sha256(),
            server: bundle.server,
            host: bundle.host,
            ca: bundle.ca,
            certificate: String::new(),
            key: String::new(),
        };
        identity.save(directory.path()).unwrap();
        assert!(Known::read(&config).unwrap().bundle.is_none());
        write_bundle(directory.path(), "two");
        assert!(Known::read(&config).unwrap().bundle.is_some());
        fs::remove_file(directory.path().join("bundle")).unwrap();
        assert!(Known::read(&config).unwrap().identity.is_some());
    }
}
