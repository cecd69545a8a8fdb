//! The agent's own word about its host, for `netloom inspect`: over a socket in its data directory,
//! so that it is never older than the question, and there is none without an agent.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, Permissions},
    io::{self, Read},
    net::IpAddr,
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener as StdListener, UnixStream as StdStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use guest::Refusal;
use hostnet::Losses;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use wire::leases::LeaseSeen;

use crate::{
    flow_log::Sampled,
    kernel::HostKernel,
    serve::{IgnoredCounts, Served},
    worker::Achieved,
};

/// The socket's name in the data directory.
const SOCKET: &str = "agent.sock";

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);

/// What an agent says of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Word {
    /// It has worked on this revision; `None`: it does not know yet what is wanted.
    pub revision: Option<u64>,
    /// Objects that are not in effect, by uuid, and why.
    pub not_in_effect: BTreeMap<Uuid, String>,
    /// What ails the host as a whole.
    pub trouble: Vec<String>,
    /// What the kernel has dropped on devices of the host, behind the programs.
    #[serde(default)]
    pub losses: Vec<Loss>,
    /// What guests have asked for and were not given, as far as it is metadata or names, by reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// What guests asked last for their addresses.
    #[serde(default)]
    pub leases: Vec<Lease>,
    /// Questions of guests that got no answer, by reason.
    #[serde(default)]
    pub ignored: IgnoredCounts,
    /// Verdicts of the programs that were asked for again, and those that were others.
    #[serde(default)]
    pub sampled: Sampled,
}

/// What a guest asked last, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The NIC.
    pub nic: Uuid,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What became of it, in a word.
    pub kind: String,
    /// Whether it was IPv6.
    pub is_v6: bool,
    /// The address that this was about.
    pub address: Option<IpAddr>,
    /// The name that the guest gave itself.
    pub hostname: Option<String>,
    /// How the client identified itself, in hexadecimal digits.
    pub client_id: String,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_v6 { "IPv6" } else { "IPv4" };
        let address = self.address.map(|ip| format!(" {ip}")).unwrap_or_default();
        let secs = i64::try_from(self.at_ms / 1_000).unwrap_or(i64::MAX);
        write!(f, "nic {}: {family}{address} {} at {secs} s", self.nic.simple(), self.kind)?;
        match &self.hostname {
            Some(name) => write!(f, ", calls itself {name:?}"),
            None => Ok(()),
        }
    }
}

impl From<&LeaseSeen> for Lease {
    fn from(seen: &LeaseSeen) -> Self {
        let LeaseSeen { nic, at_ms, kind, is_v6, address, hostname, client_id } = seen;
        Self {
            nic: *nic,
            at_ms: *at_ms,
            kind: kind.word().to_owned(),
            is_v6: *is_v6,
            address: *address,
            hostname: hostname.clone(),
            client_id: client_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// What a device has lost since it was made. The names are those of `ip -s link`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Loss {
    /// The device.
    pub device: String,
    /// Received and dropped.
    pub rx_dropped: u64,
    /// Received and broken.
    pub rx_errors: u64,
    /// Dropped before they were sent.
    pub tx_dropped: u64,
    /// Not sent for another reason.
    pub tx_errors: u64,
    /// Those among them that had no carrier; of the tunnel device, no route to the other host or no
    /// VTEP address on this one.
    pub tx_carrier_errors: u64,
}

impl From<Losses> for Loss {
    fn from(losses: Losses) -> Self {
        let Losses { device, rx_dropped, rx_errors, tx_dropped, tx_errors, tx_carrier_errors } =
            losses;
        Self { device, rx_dropped, rx_errors, tx_dropped, tx_errors, tx_carrier_errors }
    }
}

impl Word {
    /// Whether all that is wanted is in effect.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.revision.is_some() && self.not_in_effect.is_empty() && self.trouble.is_empty()
    }

    fn of(achieved: Option<&Achieved>) -> Self {
        let Some(Achieved { revision, outcome, .. }) = achieved else { return Self::default() };
        Self {
            revision: Some(*revision),
            not_in_effect: outcome.failed.clone(),
            trouble: outcome.trouble.clone(),
            ..Self::default()
        }
    }
}

/// How often which reason was met, if it was.
fn refused(guests: &guest::Shared) -> BTreeMap<String, u64> {
    let counts = guests.refusals().into_iter().filter(|(_, count)| *count > 0);
    let named = counts.filter_map(|(refusal, count)| {
        let (_, name) = Refusal::ALL.into_iter().find(|(known, _)| *known == refusal)?;
        Some((name.to_owned(), count))
    });
    named.collect()
}

/// Answers whoever asks until told to stop, one after the other.
pub(crate) async fn serve<K: HostKernel>(
    mut kernel: K,
    data: PathBuf,
    (achieved, served, guests, sampled): (
        watch::Receiver<Option<Achieved>>,
        watch::Receiver<Served>,
        Arc<guest::Shared>,
        watch::Receiver<Sampled>,
    ),
    stop: CancellationToken,
) {
    let listener = match bind(&data) {
        Ok(listener) => listener,
        // The host is more important than who looks at it.
        Err(error) => {
            tracing::warn!(%error, "`netloom inspect` will not hear the agent");
            return stop.cancelled().await;
        }
    };
    let answers = async {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let mut word = Word::of(achieved.borrow().as_ref());
            word.refused = refused(&guests);
            let seen = served.borrow().clone();
            word.leases = seen.leases.iter().map(Lease::from).collect();
            word.ignored = seen.ignored;
            word.sampled = *sampled.borrow();
            let answered = async {
                // Better no counters than no word.
                let losses = kernel.losses().await.unwrap_or_default();
                word.losses = losses.into_iter().map(Loss::from).collect();
                answer(stream, &word).await
            };
            let _ = timeout(PATIENCE, answered).await;
        }
    };
    stop.run_until_cancelled(answers).await;
    let _ = fs::remove_file(data.join(SOCKET));
}

async fn answer(mut stream: UnixStream, word: &Word) -> io::Result<()> {
    stream.write_all(&serde_json::to_vec(word)?).await?;
    stream.shutdown().await
}

fn bind(data: &Path) -> io::Result<UnixListener> {
    let path = data.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = through(data, |path| StdListener::bind(path))?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Asks the agent that works in this directory; `None` if there is none. Blocks.
///
/// # Errors
/// It does not answer, or not in words that this release knows.
pub(crate) fn ask(data: &Path) -> Result<Option<Word>, String> {
    let mut stream = match through(data, |path| StdStream::connect(path)) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error.to_string()),
            };
        }
    };
    let mut text = Vec::new();
    let read = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.read_to_end(&mut text));
    read.map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map(Some).map_err(|error| error.to_string())
}

/// Uses the socket by a path that is short: the kernel takes 107 bytes at most.
fn through<T>(data: &Path, use_it: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let directory = File::open(data)?;
    use_it(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{converge::Outcome, memory::Memory};

    fn achieved() -> Achieved {
        let failed = [(Uuid::from_u128(7), "is being made".to_owned())].into();
        let outcome = Outcome { failed, trouble: vec!["full".to_owned()], ..Outcome::default() };
        Achieved { revision: 9, digests: wire::digest::TableDigests::default(), outcome }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_asks_hears_the_newest_word_and_nothing_without_an_agent() {
        let directory = tempfile::tempdir().unwrap();
        // Longer than a socket's path may be.
        let data = directory.path().join("d".repeat(120));
        assert_eq!(ask(&data), Ok(None), "no directory");
        fs::create_dir(&data).unwrap();
        assert_eq!(ask(&data), Ok(None), "no socket");
        let (send, receive) = watch::channel(None);
        for _ in 0..2 {
            let stop = CancellationToken::new();
            let mut serving = tokio::task::JoinSet::new();
            let served = watch::channel(Served::default()).1;
            let sampled = watch::channel(Sampled::default()).1;
            let guests = Arc::new(guest::Shared::new([0; 32]));
            let sight = (receive.clone(), served, guests, sampled);
            serving.spawn(serve(Memory::default(), data.clone(), sight, stop.clone()));
            let heard = || tokio::task::block_in_place(|| ask(&data).unwrap());
            let first = loop {
                match heard() {
                    Some(word) => break word,
                    None => tokio::task::yield_now().await,
                }
            };
            assert_eq!(first, Word::default());
            assert!(!first.is_clean());
            send.send_replace(Some(achieved()));
            let word = heard().unwrap();
            assert_eq!((word.revision, word.trouble), (Some(9), vec!["full".to_owned()]));
            assert_eq!(word.not_in_effect[&Uuid::from_u128(7)], "is being made");
            stop.cancel();
            serving.join_all().await;
            // As if it had been killed.
            drop(through(&data, |path| StdListener::bind(path)).unwrap());
            assert_eq!(ask(&data), Ok(None), "nobody listens");
            send.send_replace(None);
        }
    }

    #[test]
    fn what_guests_were_refused_is_told_by_reason() {
        let guests = guest::Shared::new([0; 32]);
        assert!(refused(&guests).is_empty());
        for refusal in [Refusal::TooMuch, Refusal::Full, Refusal::Full] {
            guests.count(refusal);
        }
        let told: Vec<_> = refused(&guests).into_values().collect();
        assert_eq!((told.len(), told.iter().sum::<u64>()), (2, 3), "{told:?}");
    }
}
