//! What ports ask the agent, and what they are told: addresses by DHCP, DHCPv6 and router
//! advertisements.
//!
//! The shell reads what the programs hand over, finds the guest by the number of the port, and sends the
//! answers. What is answered, is decided in pure functions of the guest as the objects say at that
//! moment, the frame and the time: [`dhcp`], [`dhcp6`], [`router`]. So nothing has to be kept over
//! a restart, and a guest that has moved is told the same by another host.
//!
//! It works beside the converge loop, which it never waits for.

mod dhcp;
mod dhcp6;
mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
pub(crate) mod guests;
mod names;
mod router;
mod seen;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::{Duration, SystemTime},
};

use dataplane::{Answers, Desk, FlowEvents, HandedFrame, PortMap, Questions};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use wire::{leases::LeaseSeen, told::Service};

use crate::{backoff::Backoff, kernel::HostKernel, requests, state::Desired};
use frame::{Asked, Content};
use guests::{Guest, Guests};
use router::Advertisers;
pub(crate) use seen::{Leases, Seen};

/// Frames that are answered before anything else is looked at.
const AT_ONCE: usize = 64;

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ignored {
    /// It makes no sense.
    Malformed,
    /// The port is told nothing of the kind.
    NotServed,
    /// It is of a client with another MAC than the port's.
    Stranger,
    /// It is for another server.
    OtherServer,
    /// The port has no address of that family that netloom tells of.
    NoAddress,
    /// It comes too soon after the one before.
    TooSoon,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "questions of guests that make no sense",
            Self::NotServed => "questions of guests that are told nothing of the kind",
            Self::Stranger => "questions about another MAC than that of the port",
            Self::OtherServer => "requests to other servers, which are not ours to answer",
            Self::NoAddress => "questions of guests without an address that they could be told",
            Self::TooSoon => "router solicitations too soon after others",
        })
    }
}

/// What the agent has not answered, and why.
pub type IgnoredCounts = BTreeMap<Ignored, u64>;

/// What others may see of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Served {
    /// What guests asked last.
    pub(crate) leases: Leases,
    /// What was not answered.
    pub(crate) ignored: IgnoredCounts,
}

/// Answers until told to stop. There is one desk, so it also says where guests ask for all
/// else, and where ports tell of connections.
pub(crate) async fn keep<K: HostKernel>(
    mut kernel: K,
    (others, flows_to): (mpsc::Sender<requests::Desk>, mpsc::Sender<FlowEvents>),
    desired: watch::Receiver<Option<Desired>>,
    served: watch::Sender<Served>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    let serving = async {
        loop {
            match kernel.desk().await {
                Ok(None) => return std::future::pending().await,
                Ok(Some(Desk { leases, requests, flows, answers, ports })) => {
                    // With nobody there the agent ends.
                    let _ = others.send((requests, answers.clone())).await;
                    let _ = flows_to.send(flows).await;
                    let office = Office::new((answers, ports), served.clone());
                    if let Err(error) = office.work(leases, desired.clone()).await {
                        tracing::warn!(%error, "ports cannot be heard");
                    }
                }
                Err(refusal) => tracing::warn!(%refusal, "no answers for ports; trying again"),
            }
            sleep(backoff.next()).await;
        }
    };
    stop.run_until_cancelled(serving).await;
}

/// Who answers.
struct Office {
    guests: Guests,
    answers: Answers,
    /// Where ports are: their interfaces, by number, as far as is known.
    heard: HashMap<u32, u32>,
    ports: PortMap,
    advertisers: Advertisers,
    served: watch::Sender<Served>,
}

impl Office {
    fn new((answers, ports): (Answers, PortMap), served: watch::Sender<Served>) -> Self {
        Self {
            guests: Guests::default(),
            answers,
            heard: HashMap::new(),
            ports,
            advertisers: Advertisers::default(),
            served,
        }
    }

    async fn work(
        mut self,
        questions: Questions,
        mut desired: watch::Receiver<Option<Desired>>,
    ) -> std::io::Result<()> {
        let mut questions = requests::readable(questions)?;
        desired.mark_changed();
        loop {
            let due = self.advertisers.due();
            tokio::select! {
                Ok(()) = desired.changed() => {
                    let wanted = desired.borrow_and_update().clone();
                    if let Some(Desired { holding, .. }) = wanted {
                        let changed = self.guests.follow(&holding);
                        self.heard.retain(|port, _| self.guests.get(*port).is_some());
                        self.advertisers.changed(&self.guests, &changed, Instant::now());
                    }
                }
                ready = questions.readable_mut() => {
                    let mut ready = ready?;
                    let asked: Vec<_> = ready.get_inner_mut().by_ref().take(AT_ONCE).collect();
                    if asked.len() < AT_ONCE {
                        ready.clear_ready();
                    }
                    for handed in &asked {
                        self.answer(handed);
                    }
                }
                () = sleep_until(due.unwrap_or_else(far)), if due.is_some() => self.advertise(),
            }
        }
    }

    fn answer(&mut self, handed: &HandedFrame) {
        self.heard.insert(handed.port, handed.ifindex);
        let now = Instant::now();
        let answered = match self.guests.get(handed.port) {
            None => Err(Ignored::NotServed),
            Some(guest) => {
                let advertisers = &mut self.advertisers;
                reply(&guest, &handed.frame, |guest| advertisers.solicited(guest, now)).map(
                    |(frames, seen)| (frames, seen.map(|seen| seen.of(guest.port.uuid, now_ms()))),
                )
            }
        };
        match answered {
            Ok((frames, seen)) => {
                frames.iter().for_each(|frame| self.send(handed.ifindex, frame));
                if let Some(seen) = seen {
                    self.note(seen);
                }
            }
            Err(why) => {
                tracing::debug!(port = handed.port, ?why, "not answered");
                self.served.send_modify(|served| *served.ignored.entry(why).or_default() += 1);
            }
        }
    }

    fn note(&self, seen: LeaseSeen) {
        tracing::debug!(nic = %seen.nic.simple(), kind = seen.kind.word(), address = ?seen.address, "lease");
        self.served.send_modify(|served| served.leases.note(seen));
    }

    /// Sends what is due by time.
    fn advertise(&mut self) {
        let now = Instant::now();
        let due = self.advertisers.take_due(now);
        if due.iter().any(|port| !self.heard.contains_key(port)) {
            match self.ports.interfaces() {
                Ok(interfaces) => self.heard.extend(interfaces),
                Err(error) => tracing::debug!(%error, "ports are not found"),
            }
        }
        for port in due {
            let Some(guest) = self.guests.get(port) else { continue };
            let Some(ifindex) = self.heard.get(&port).copied() else { continue };
            if let Some(frame) = router::advertisement(&guest, router::All) {
                self.send(ifindex, &frame);
                self.advertisers.sent(port, now);
            }
        }
    }

    fn send(&mut self, ifindex: u32, frame: &[u8]) {
        if let Err(error) = self.answers.send(ifindex, frame) {
            tracing::debug!(ifindex, %error, "an answer is lost");
        }
    }
}

/// Frames to send, and what there is to tell of it.
pub(crate) type Reply = (Vec<Vec<u8>>, Option<Seen>);

/// What a port is answered. Whether a router solicitation is, depends on those before.
pub(crate) fn reply(
    guest: &Guest<'_>,
    frame: &[u8],
    solicited: impl FnOnce(&Guest<'_>) -> bool,
) -> Result<Reply, Ignored> {
    let Asked { content, source, mac } = frame::read(frame).ok_or(Ignored::Malformed)?;
    if mac != guest.port.mac {
        return Err(Ignored::Stranger);
    }
    let served = |service| if guest.has(service) { Ok(()) } else { Err(Ignored::NotServed) };
    match content {
        Content::Udp { to: dhcp::SERVER, payload, .. } => {
            served(Service::Dhcp)?;
            let dhcp::Answered { frame, seen } = dhcp::answer(guest, payload)?;
            Ok((frame.into_iter().collect(), Some(seen)))
        }
        Content::Udp { from, to: dhcp6::SERVER, payload } => {
            served(Service::Ipv6)?;
            let dhcp6::Answered { frame, seen } = dhcp6::answer(guest, (source, from), payload)?;
            Ok((frame.into_iter().collect(), Some(seen)))
        }
        Content::Icmpv6 { kind: router::SOLICITATION, message } => {
            served(Service::Ipv6)?;
            router::check(source, message)?;
            let told =
                router::advertisement(guest, router::Asker(source)).ok_or(Ignored::NoAddress)?;
            match solicited(guest) {
                true => Ok((vec![told], Some(router::seen(source)))),
                false => Err(Ignored::TooSoon),
            }
        }
        _ => Err(Ignored::Malformed),
    }
}

/// The wall clock, in milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Later than anything that is waited for.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}
