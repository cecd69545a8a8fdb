//! Frames of guests in, frames to guests out.
//!
//! TCP goes through the kernel of the agent's own namespace: what a port sends comes out of its end of
//! the TUN device, and what that kernel sends goes to the port. A question by UDP is answered here.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, PoisonError},
};

use hostnet::Tun;
use tokio::task::JoinSet;
use wire::told::Service;

use crate::{
    Handed, Refusal, Shared,
    address::{End, Of},
    dns::{self, Question, Step},
    metadata,
    translate::{self, Macs, Protocol, Segment},
};

/// Bytes of the longest packet.
const PACKET_MAX: usize = 65_536;
const HTTP: u16 = 80;
const DNS: u16 = 53;

/// Takes frames that leave by an interface.
pub(crate) type Deliver = Arc<dyn Fn(u32, &[u8]) + Send + Sync>;

/// What is handed to and fro.
pub(crate) struct Relay {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tun: Tun,
    pub(crate) deliver: Deliver,
    /// How the next frame gets to a port.
    back: HashMap<u32, Back>,
    questions: JoinSet<()>,
}

/// How a frame gets to a port: as the last one has come.
#[derive(Clone, Copy, Debug)]
struct Back {
    ifindex: u32,
    macs: Macs,
}

impl Relay {
    pub(crate) fn new(shared: Arc<Shared>, tun: Tun, deliver: Deliver) -> Self {
        Self { shared, tun, deliver, back: HashMap::new(), questions: JoinSet::new() }
    }

    /// Takes what a port has sent.
    pub(crate) fn take(&mut self, handed: &Handed) {
        while self.questions.try_join_next().is_some() {}
        if let Err(refusal) = self.inward(handed) {
            self.shared.count(refusal);
        }
    }

    fn inward(&mut self, handed: &Handed) -> Result<(), Refusal> {
        let port = handed.port;
        let (macs, segment) =
            translate::read_frame(&handed.frame).map_err(|_| Refusal::Malformed)?;
        let is_one = |mac: [u8; 6]| mac[0] & 1 == 0;
        if !is_one(macs.from) || !is_one(macs.to) {
            return Err(Refusal::Malformed);
        }
        let macs = Macs { to: macs.from, from: macs.to };
        let back = Back { ifindex: handed.ifindex, macs };
        match (segment.protocol, segment.destination_port()) {
            (Protocol::Udp, DNS) => return self.question(port, back, segment),
            (Protocol::Tcp, HTTP) if self.has_metadata(port, segment.to) => {}
            (Protocol::Tcp, DNS) if self.has_resolver(port, segment.to) => {}
            _ => return Err(Refusal::NotServed),
        }
        self.back.insert(port, back);
        let packet = {
            let mut ways = self.shared.ways();
            let from = ways.inner(Of { end: End::Guest, port, ip: segment.from });
            let to = ways.inner(Of { end: End::Asked, port, ip: segment.to });
            Segment { from: from.into(), to: to.into(), ..segment }.packet()
        };
        let packet = packet.ok_or(Refusal::Malformed)?;
        self.tun.send(&packet).map_err(|_| Refusal::Full)
    }

    fn has_metadata(&self, port: u32, to: IpAddr) -> bool {
        let directory = self.shared.directory.read().unwrap_or_else(PoisonError::into_inner);
        let is_there = metadata::ADDRESSES.iter().any(|text| text.parse() == Ok(to));
        is_there && directory.served(port, Service::Metadata).is_some()
    }

    fn has_resolver(&self, port: u32, to: IpAddr) -> bool {
        let directory = self.shared.directory.read().unwrap_or_else(PoisonError::into_inner);
        let port = directory.served(port, Service::Dns);
        port.is_some_and(|port| directory.resolver_at(port, to).is_some())
    }

    fn question(&mut self, port: u32, back: Back, segment: Segment<'_>) -> Result<(), Refusal> {
        let (from, to) = (segment.to, segment.from);
        let ports = (segment.destination_port(), segment.source_port());
        let (shared, deliver) = (Arc::clone(&self.shared), Arc::clone(&self.deliver));
        let answer = move |payload: Option<Vec<u8>>| {
            let bytes = payload.and_then(|it| translate::datagram(ports.0, ports.1, &it));
            let Some(bytes) = bytes else { return };
            let reply = Segment { from, to, protocol: Protocol::Udp, bytes: &bytes };
            if let Some(frame) = reply.frame(back.macs) {
                deliver(back.ifindex, &frame);
            }
        };
        let question =
            Question { port, asked: segment.to, bytes: segment.datagram(), is_tcp: false };
        match dns::begin(&self.shared, &question) {
            Step::Done(payload) => answer(payload),
            // The turn that it has bounds how many there are.
            Step::Wait(pending) => {
                self.questions.spawn(async move { answer(pending.finish(&shared).await) });
            }
            Step::NotHere => return Err(Refusal::NotServed),
            Step::TooMuch => return Err(Refusal::TooMuch),
        }
        Ok(())
    }

    /// Sends what came out of the TUN device to its port.
    pub(crate) fn outward(&self, packet: &[u8]) {
        // The kernel also looks for neighbours and routers, which there are none of.
        let Ok(segment) = translate::read(packet) else { return };
        let of = {
            let ways = self.shared.ways();
            [segment.from, segment.to].map(|ip| match ip {
                IpAddr::V6(v6) => ways.outer(v6),
                IpAddr::V4(_) => None,
            })
        };
        let [Some(from), Some(to)] = of else { return self.shared.count(Refusal::Forgotten) };
        let is_reply = from.end == End::Asked && to.end == End::Guest && from.port == to.port;
        let Some(back) = self.back.get(&to.port).filter(|_| is_reply) else {
            return self.shared.count(Refusal::Forgotten);
        };
        let reply = Segment { from: from.ip, to: to.ip, ..segment };
        if let Some(frame) = reply.frame(back.macs) {
            (self.deliver)(back.ifindex, &frame);
        }
    }

    /// Forgets the ports and networks that are gone.
    pub(crate) fn tidy(&mut self) {
        let directory = self.shared.directory.read().unwrap_or_else(PoisonError::into_inner);
        let is_there = |port: u32| directory.port(port).is_some();
        self.back.retain(|port, _| is_there(*port));
        self.shared.ways().retain(is_there);
        self.shared.rate().retain(is_there);
        self.shared.forwarders.retain(|subnet| directory.subnet(subnet).is_some());
    }
}

/// Bytes of a buffer for what comes out of the TUN device.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; PACKET_MAX]
}
