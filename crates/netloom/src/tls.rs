//! What REST proves to be the server with: the operator's files, or a certificate of an authority of
//! its own. Both are renewed while it runs.
//!
//! This authority is not that of the agents: whoever trusts it trusts it for REST alone.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use api::Identity;
use clap::Args;
use link::Pki;
use model::Timestamp;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time,
};
use tokio_util::sync::CancellationToken;
use wire::durable;

use crate::{Failure, runtime};

/// The authority for REST, below the data directory.
pub(crate) const PKI: &str = "rest-pki";
/// Its certificate alone, for clients: no secret.
const CA: &str = "rest-ca.pem";
/// The machine's name (proc(5)).
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a certificate of our own is shown, in seconds; it is good for much longer.
const SHOWN_SECONDS: i64 = 30 * 86_400;

/// How REST is secured.
#[derive(Args)]
#[group(id = "tls")]
pub(crate) struct Arguments {
    /// The server's certificate (PEM), then those that lead to its authority. Read again when it
    /// changes, and on SIGHUP. Without, netloom makes one; clients need DATA/rest-ca.pem then.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM).
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A name or address that clients use, for the certificate that netloom makes; several may be
    /// given. The address of --listen, the machine's name and loopback are always in it.
    #[arg(long, conflicts_with = "tls_cert")]
    tls_name: Vec<String>,
    /// Speak plain HTTP on an address that is not loopback. Passwords are readable on the way then.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_name"])]
    plain_http: bool,
}

/// Where the certificate comes from.
pub(crate) enum Source {
    /// From the operator.
    Files { certificate: PathBuf, key: PathBuf },
    /// From our authority.
    Own { authority: Box<Pki>, names: Vec<String> },
}

impl Source {
    /// What is chosen for a server that listens there; `None` is plain HTTP.
    ///
    /// # Errors
    /// When the authority cannot be opened or made.
    pub(crate) fn choose(
        arguments: &Arguments,
        data: &Path,
        listen: SocketAddr,
    ) -> Result<Option<Self>, Failure> {
        if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
            let (certificate, key) = (certificate.clone(), key.clone());
            return Ok(Some(Self::Files { certificate, key }));
        }
        let is_plain = listen.ip().is_loopback() && arguments.tls_name.is_empty();
        if is_plain || arguments.plain_http {
            if !listen.ip().is_loopback() {
                tracing::warn!(%listen, "REST is plain HTTP: passwords and sessions are readable \
                    on the way");
            }
            return Ok(None);
        }
        let authority = Box::new(Pki::open(&data.join(PKI), runtime::now())?);
        let ca = data.join(CA);
        if fs::read_to_string(&ca).ok().as_deref() != Some(authority.certificate()) {
            durable::replace(&ca, authority.certificate().as_bytes())?;
            tracing::info!(ca = %ca.display(), "clients trust this server with --ca and this file");
        }
        Ok(Some(Self::Own { authority, names: names(arguments, listen) }))
    }

    /// The certificate as it is now.
    ///
    /// # Errors
    /// When files cannot be read, or do not belong together.
    pub(crate) fn identity(&self, now: Timestamp) -> Result<Identity, Failure> {
        let (certificate, key) = self.texts(now)?;
        Identity::read(&certificate, &key).map_err(|error| self.blame(&error))
    }

    /// The certificate and its key, PEM.
    fn texts(&self, now: Timestamp) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let read = |path: &Path| {
            fs::read(path).map_err(|cause| format!("cannot read {}: {cause}", path.display()))
        };
        match self {
            Self::Files { certificate, key } => Ok((read(certificate)?, read(key)?)),
            Self::Own { authority, names } => {
                let made = authority.server_at(names, now).map_err(|error| {
                    format!("cannot make a certificate for {}: {error}", names.join(", "))
                })?;
                Ok((made.certificate.into_bytes(), made.key.into_bytes()))
            }
        }
    }

    fn blame(&self, error: &str) -> Failure {
        match self {
            Self::Files { certificate, key } => {
                let (certificate, key) = (certificate.display(), key.display());
                format!("--tls-cert {certificate} --tls-key {key}: {error}").into()
            }
            Self::Own { .. } => error.into(),
        }
    }
}

/// All names in our own certificate. Clients on an address that is not known here, such as that of
/// a load balancer, need `--tls-name`.
fn names(arguments: &Arguments, listen: SocketAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let own = fs::read_to_string(HOSTNAME).unwrap_or_default();
    names.extend([own.trim()].iter().filter(|name| !name.is_empty()).map(|&name| name.to_owned()));
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    names.extend(arguments.tls_name.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// Shows newcomers the newest certificate until `stop`. Files that do not do are told once, and the
/// last good ones are shown.
///
/// # Errors
/// When the system gives no signals.
pub(crate) async fn renew(
    source: Source,
    shown: watch::Sender<Identity>,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut asked = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    let mut tick = time::interval(LOOK_EVERY);
    let mut renewal = Renewal::new(runtime::now());
    loop {
        // Each branch only waits: dropping the others loses nothing.
        let is_asked = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = asked.recv() => true,
            _ = tick.tick() => false,
        };
        if let Some(identity) = renewal.look(&source, runtime::now(), is_asked) {
            shown.send_replace(identity);
        }
    }
}

/// What was seen last.
struct Renewal {
    made: Timestamp,
    seen: Option<(Vec<u8>, Vec<u8>)>,
    /// The last failure, which was told.
    told: Option<String>,
}

impl Renewal {
    fn new(now: Timestamp) -> Self {
        Self { made: now, seen: None, told: None }
    }

    /// A certificate to show from now on, if there is a new one.
    fn look(&mut self, source: &Source, now: Timestamp, is_asked: bool) -> Option<Identity> {
        let is_old = now >= self.made.plus_seconds(SHOWN_SECONDS);
        if matches!(source, Source::Own { .. }) && !is_asked && !is_old {
            return None;
        }
        let read = source.texts(now).map_err(|error| error.to_string()).and_then(|texts| {
            if self.seen.as_ref() == Some(&texts) && !is_asked {
                return Ok(None);
            }
            let identity = Identity::read(&texts.0, &texts.1);
            let identity = identity.map_err(|error| source.blame(&error).to_string())?;
            self.seen = Some(texts);
            Ok(Some(identity))
        });
        match read {
            Ok(identity) => {
                self.told = None;
                if identity.is_some() {
                    self.made = now;
                    tracing::info!("newcomers to REST see the certificate as it is now");
                }
                identity
            }
            Err(error) if self.told.as_ref() == Some(&error) && !is_asked => None,
            Err(error) => {
                tracing::error!(%error, "REST goes on with the certificate that it had");
                self.told = Some(error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

    use clap::Parser;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(line: &str) -> Result<Arguments, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.arguments).map_err(|error| error.to_string())
    }

    fn choose(data: &Path, line: &str, listen: &str) -> Option<Source> {
        Source::choose(&arguments(line).unwrap(), data, listen.parse().unwrap()).unwrap()
    }

    #[test]
    fn only_loopback_is_plain_unless_told() {
        let data = tempfile::tempdir().unwrap();
        let is_plain = |line: &str, listen: &str| choose(data.path(), line, listen).is_none();
        assert!(is_plain("", "127.0.0.1:1") && is_plain("", "[::1]:1"));
        for listen in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            assert!(!is_plain("", listen) && is_plain("--plain-http", listen), "{listen}");
        }
        assert!(!is_plain("--tls-name x", "127.0.0.1:1"));
        assert!(!is_plain("--tls-cert c --tls-key k", "127.0.0.1:1"));
        for line in ["--tls-cert c", "--tls-key k", "--plain-http --tls-name x"] {
            assert!(arguments(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_authority_is_kept_and_its_certificate_lies_beside_it() {
        let data = tempfile::tempdir().unwrap();
        let ca = || {
            assert!(choose(data.path(), "", "192.0.2.1:1").is_some());
            fs::read_to_string(data.path().join(CA)).unwrap()
        };
        let first = ca();
        assert!(first.contains("CERTIFICATE") && !first.contains("KEY"));
        assert_eq!(ca(), first);
        fs::remove_file(data.path().join(CA)).unwrap();
        assert_eq!(ca(), first);
    }

    #[test]
    fn the_certificate_names_where_it_listens_and_what_it_is_told() {
        let names = |line, listen: &str| {
            super::names(&arguments(line).unwrap(), listen.parse().unwrap()).join(" ")
        };
        let all = names("--tls-name api.example --tls-name 203.0.113.9", "192.0.2.1:1");
        assert!(["192.0.2.1", "api.example", "203.0.113.9"].iter().all(|name| all.contains(name)));
        assert!(!names("", "0.0.0.0:1").contains("0.0.0.0 "));
    }

    #[test]
    fn files_are_read_again_when_they_change_and_bad_ones_change_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let pki = Pki::open(&scratch.path().join("pki"), NOW).unwrap();
        let (certificate, key) = (scratch.path().join("cert"), scratch.path().join("key"));
        let write = |name: &str| {
            let made = pki.server_at(&[name.to_owned()], NOW).unwrap();
            fs::write(&certificate, made.certificate).unwrap();
            fs::write(&key, made.key).unwrap();
        };
        write("a");
        let source = Source::Files { certificate: certificate.clone(), key: key.clone() };
        let mut renewal = Renewal::new(NOW);
        assert!(renewal.look(&source, NOW, false).is_some());
        assert!(renewal.look(&source, NOW, false).is_none(), "nothing has changed");
        assert!(renewal.look(&source, NOW, true).is_some(), "asked for by a signal");
        write("b");
        assert!(renewal.look(&source, NOW, false).is_some());
        fs::write(&key, "nonsense").unwrap();
        assert!(renewal.look(&source, NOW, false).is_none());
        assert!(renewal.told.as_ref().unwrap().contains("--tls-key"));
        assert!(source.identity(NOW).is_err());
        write("c");
        assert!(renewal.look(&source, NOW, false).is_some() && renewal.told.is_none());
    }

    #[test]
    fn our_own_certificate_is_made_anew_in_time() {
        let data = tempfile::tempdir().unwrap();
        let source = choose(data.path(), "", "192.0.2.1:1").unwrap();
        let mut renewal = Renewal::new(NOW);
        assert!(renewal.look(&source, NOW.plus_seconds(SHOWN_SECONDS - 1), false).is_none());
        let later = NOW.plus_seconds(SHOWN_SECONDS);
        assert!(renewal.look(&source, later, false).is_some());
        assert!(renewal.look(&source, later, false).is_none());
        assert!(renewal.look(&source, later, true).is_some());
    }
}
