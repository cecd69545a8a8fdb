//! What the attacker's neighbours do meanwhile: connections and echo requests that live through it all, and
//! new connections after each case.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT,
    traffic::{Pings, Traffic},
};

use crate::{ears::sinks, site::Site};

/// Who talks with whom, at which addresses.
const PAIRS: [(&str, &str, [&str; 2]); 3] = [
    ("near", "far", ["10.0.0.12", "fd00::12"]),
    ("far", "near", ["10.0.0.11", "fd00::11"]),
    ("other-near", "other-far", ["10.0.0.12", "fd00::12"]),
];

/// A listener, and who opens connections to it.
struct Door {
    from: Namespace,
    listener: TcpListener,
    to: SocketAddr,
}

/// All that goes on.
pub(crate) struct Neighbours {
    flows: Vec<(String, Traffic)>,
    pings: Pings,
    doors: Vec<Door>,
    _sinks: Vec<UdpSocket>,
}

impl Neighbours {
    pub(crate) fn start(site: &Site) -> Self {
        let (mut flows, mut doors) = (Vec::new(), Vec::new());
        for (from, to, addresses) in PAIRS {
            for address in addresses {
                let ip: IpAddr = address.parse().unwrap();
                let (from_vm, to_vm) = (site.lab.namespace(from), site.lab.namespace(to));
                let listener = to_vm.run_in(|| TcpListener::bind((ip, 0))).unwrap().unwrap();
                let flow = Traffic::with_patience(&from_vm, &to_vm, ip, LIMIT);
                flows.push((format!("{from} to {to} at {ip}"), flow));
                let to = listener.local_addr().unwrap();
                doors.push(Door { from: from_vm, listener, to });
            }
        }
        let far = "10.0.0.12".parse().unwrap();
        let pings = Pings::start(&site.lab.namespace("near"), far);
        Self { flows, pings, doors, _sinks: sinks(site) }
    }

    /// Each connection has had something back since it was asked, and new ones are opened.
    pub(crate) fn go_on(&mut self, case: &str) {
        let before: Vec<u64> = self.flows.iter().map(|(_, flow)| flow.bytes()).collect();
        for Door { from, listener, to } in &self.doors {
            let connect = || TcpStream::connect_timeout(to, LIMIT);
            let connected = from.run_in(connect).unwrap();
            assert!(connected.is_ok(), "{case}: {} to {to}: {connected:?}", from.name());
            listener.accept().unwrap();
        }
        for ((name, flow), before) in self.flows.iter().zip(before) {
            assert!(wait::holds(LIMIT, || flow.bytes() > before), "{case}: {name} stands still");
        }
    }

    /// Ends it: nothing was lost.
    pub(crate) fn finish(self) {
        // Each waits for its last answers.
        thread::scope(|scope| {
            for (name, flow) in self.flows {
                scope.spawn(move || {
                    let probes = flow.finish();
                    assert!(probes.sent > 100 && probes.lost == 0, "{name}: {probes:?}");
                });
            }
        });
        let (sent, answered) = self.pings.finish_counted();
        // The answer to the last one may have been on its way.
        assert!(
            sent > 50 && answered + 1 >= sent,
            "{answered} of {sent} echo requests are answered"
        );
    }
}
