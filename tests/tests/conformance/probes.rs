//! Sends packets that open something, all of a case at once, and sees what becomes of each: it arrives, or
//! a host counts it as dropped for a policy. No instance answers, so nothing else is on its way.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use dataplane::View;
use lab::wait;
use netloom_tests::{
    TestLab,
    frames::{Wire, ethernet},
};

use crate::describe::{NAMES, Outcome, Probe, What, address};

/// How long packets may be on their way: only a failure takes that long.
const LIMIT: Duration = Duration::from_secs(10);
/// Looks before it pauses between two.
const SPINS: usize = 20;
/// What every packet has in it, before its number.
const MARK: &[u8] = b"conform:";
/// The source port of the first case. No probe goes to a port from there on below 65,000, so none looks
/// like the answer to another one.
const SOURCES: u16 = 30_000;
/// Codes of echo requests that are told apart in a case: 0, 1, and another one.
const CODES: u16 = 3;
/// Frames between two looks at what has come in: more than that, and a socket may be full.
const BURST: usize = 32;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The instances of the cases, whose own stacks are silent.
pub(crate) struct Field {
    wires: Vec<Wire>,
    hosts: Vec<View>,
}

/// What became of probes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    /// Which of them have arrived.
    pub arrived: Vec<bool>,
    /// How many the hosts have dropped, by host: for the policy of a sender, and of a receiver.
    pub drops: [[u64; 2]; 2],
}

impl Seen {
    /// What is to be seen when this becomes of probes.
    pub(crate) fn of(probes: &[Probe], outcomes: &[Outcome]) -> Self {
        let mut seen = Self { arrived: Vec::new(), drops: [[0; 2]; 2] };
        let host = |nic: usize| nic / (NAMES.len() / 2);
        for (probe, outcome) in probes.iter().zip(outcomes) {
            seen.arrived.push(*outcome == Outcome::Arrives);
            match outcome {
                Outcome::Arrives => {}
                Outcome::DeniedBySender => seen.drops[host(probe.from)][0] += 1,
                Outcome::DeniedByReceiver => seen.drops[host(probe.to)][1] += 1,
            }
        }
        seen
    }
}

impl Field {
    pub(crate) fn of(lab: &TestLab) -> Self {
        for name in NAMES {
            // What has no address answers nobody.
            for words in ["address flush dev eth0", "-6 address flush dev eth0"] {
                lab.ip(name, words);
            }
        }
        let wires = NAMES.map(|name| Wire::open(&lab.namespace(name))).into();
        let open = |host: &str| View::open(&lab.data(host).join("bpf")).unwrap();
        Self { wires, hosts: ["h1", "h2"].map(open).into() }
    }

    /// What becomes of these; `case` numbers their connections.
    pub(crate) fn see(&self, case: u16, probes: &[Probe]) -> Result<Seen, String> {
        let before = self.drops();
        let mut arrived = vec![false; probes.len()];
        let mut strays = Vec::new();
        for (number, probe) in probes.iter().enumerate() {
            self.wires[probe.from].send(&self.frame(case, number, probe));
            if number % BURST == BURST - 1 {
                self.listen(probes, &mut arrived, &mut strays);
            }
        }
        let mut drops = [[0; 2]; 2];
        // Mostly all is decided as soon as it is sent.
        let mut is_decided = || {
            self.listen(probes, &mut arrived, &mut strays);
            let now = self.drops();
            for (host, reason) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                drops[host][reason] = now[host][reason] - before[host][reason];
            }
            let denied: u64 = drops.iter().flatten().sum();
            let arrived = arrived.iter().map(|it| u64::from(*it)).sum::<u64>();
            arrived + denied >= u64::try_from(probes.len()).unwrap()
        };
        let is_decided = (0..SPINS).any(|_| is_decided()) || wait::holds(LIMIT, is_decided);
        if is_decided && strays.is_empty() {
            return Ok(Seen { arrived, drops });
        }
        let lost = probes.iter().zip(&arrived).filter(|(_, arrived)| !**arrived);
        let lost: Vec<_> = lost.map(|(probe, _)| probe).take(5).collect();
        let all = self.all();
        Err(format!(
            "{drops:?} denied, and {strays:?} where they should not be; not seen: {lost:?}; all drops: {all:?}"
        ))
    }

    /// Takes what has come in.
    fn listen(&self, probes: &[Probe], arrived: &mut [bool], strays: &mut Vec<(usize, usize)>) {
        for (nic, wire) in self.wires.iter().enumerate() {
            while let Some(frame) = wire.take() {
                let mark = frame.windows(MARK.len()).position(|found| found == MARK);
                // Its own frames are seen, too.
                let Some(mark) = mark.filter(|_| frame[..6] == wire.mac) else { continue };
                let digits = &frame[mark + MARK.len()..][..4];
                let number = u32::from_be_bytes(digits.try_into().unwrap());
                let number = usize::try_from(number).unwrap();
                match probes.get(number).filter(|probe| probe.to == nic) {
                    Some(_) => arrived[number] = true,
                    None => strays.push((nic, number)),
                }
            }
        }
    }

    fn drops(&self) -> [[u64; 2]; 2] {
        [0, 1].map(|host: usize| {
            let drops = self.hosts[host].counters().unwrap().drops;
            let of = |reason| drops.get(reason).copied().unwrap_or(0);
            ["policy_egress", "policy_ingress"].map(of)
        })
    }

    fn all(&self) -> Vec<BTreeMap<&'static str, u64>> {
        let of = |host: &View| {
            let drops = host.counters().unwrap().drops.into_iter();
            drops.filter(|(_, count)| *count > 0).collect()
        };
        self.hosts.iter().map(of).collect()
    }

    fn frame(&self, case: u16, number: usize, probe: &Probe) -> Vec<u8> {
        let number = u32::try_from(number).unwrap().to_be_bytes();
        let mark = [MARK, &number, &[0; 8]].concat();
        let source = (SOURCES + case).to_be_bytes();
        let in_order = |port: u16| match probe.is_answer {
            true => [port.to_be_bytes(), source].concat(),
            false => [source, port.to_be_bytes()].concat(),
        };
        let payload = match probe.what {
            What::Tcp(port) => {
                let flags = if probe.is_answer { SYN | ACK } else { SYN };
                let rest = [5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0];
                [&in_order(port), &[0; 8][..], &rest, &mark].concat()
            }
            What::Udp(port) => {
                let length = u16::try_from(8 + mark.len()).unwrap().to_be_bytes();
                [&in_order(port), &length[..], &[0; 2], &mark].concat()
            }
            What::Echo(code) => {
                let kind = match (probe.is_answer, probe.is_v6) {
                    (false, false) => 8,
                    (false, true) => 128,
                    (true, false) => 0,
                    (true, true) => 129,
                };
                // A connection is told by its identifier, whatever the codes of its requests.
                let identifier = (case * CODES + u16::from(code).min(CODES - 1)).to_be_bytes();
                [&[kind, code, 0, 0], &identifier[..], &[0, 1], &mark].concat()
            }
            What::Other(_) => mark,
        };
        let (protocol, _) = probe.what.shown(probe.is_v6);
        let ends = [probe.from, probe.to].map(|nic| address(nic, probe.is_v6));
        let [from, to] = [probe.from, probe.to].map(|nic| self.wires[nic].mac);
        let ethertype = if probe.is_v6 { IPV6 } else { IPV4 };
        ethernet(to, from, ethertype, &packet(ends, protocol, &payload))
    }
}

/// An IP packet (RFC 791, RFC 8200).
fn packet(ends: [IpAddr; 2], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    match ends {
        [IpAddr::V4(from), IpAddr::V4(to)] => {
            let [high, low] = (20 + length).to_be_bytes();
            let mut header = [0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0].to_vec();
            header.extend(from.octets());
            header.extend(to.octets());
            let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
            let sum: u32 = words.sum();
            let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            [&header, payload].concat()
        }
        [IpAddr::V6(from), IpAddr::V6(to)] => {
            let [high, low] = length.to_be_bytes();
            let header = [0x60, 0, 0, 0, high, low, protocol, 64];
            [&header[..], &from.octets(), &to.octets(), payload].concat()
        }
        _ => panic!("{ends:?} are of one family"),
    }
}
