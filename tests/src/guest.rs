//! What netloom has not made: guests with cables of their own to a host.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use hostnet::{Namespace, scratch::Scratch};

/// Copies frames between two taps, as a hypervisor does.
const RELAY: &str = include_str!("relay.py");

/// A network namespace that stands for a container, or for what runs inside a VM.
pub struct Guest {
    /// It. What a killed test leaves goes with the next one.
    pub namespace: Scratch,
}

/// A hypervisor that runs: it has a tap on the host and one in its guest.
pub struct Hypervisor(Child);

impl Guest {
    /// Makes one without a cable.
    pub fn new() -> Self {
        Self { namespace: Scratch::new("guest").unwrap() }
    }

    /// Runs `ip` in it; it must succeed.
    pub fn ip(&self, words: &str) {
        ip(&self.namespace, words);
    }

    /// Lays a cable to a host: `device` there, down, and `eth0` here.
    pub fn cable(&self, host: &Namespace, device: &str) {
        let (name, mtu) = (self.namespace.name(), 1450);
        ip(
            host,
            &format!("link add {device} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {name}"),
        );
    }

    /// Begins to run the guest behind a tap of a host, `device`, which is up.
    pub fn run(&self, host: &Namespace, device: &str) -> Hypervisor {
        self.relay(host, device, None)
    }

    /// Begins to run it as a machine at an access port of a switch: `device` there, in this VLAN.
    pub fn run_in_vlan(&self, switch: &Namespace, device: &str, vlan: u16) -> Hypervisor {
        self.relay(switch, device, Some(vlan))
    }

    fn relay(&self, host: &Namespace, device: &str, vlan: Option<u16>) -> Hypervisor {
        let mut command = Command::new("python3");
        command.args(["-c", RELAY, device]);
        command.arg(format!("/run/netns/{}", self.namespace.name())).arg("eth0");
        command.args(vlan.map(|vlan| vlan.to_string()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = host.run_in(|| command.spawn()).unwrap().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        ip(host, &format!("link set {device} up"));
        Hypervisor(child)
    }

    /// Gives `eth0` what a NIC has, and puts it up.
    pub fn configure(&self, mac: &str, address: &str) {
        self.ip(&format!("link set eth0 address {mac} mtu 1450"));
        self.ip(&format!("address add {address} dev eth0"));
        self.ip("link set eth0 up");
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hypervisor {
    /// Its taps go with it.
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("a relay stays behind: {error}");
        }
    }
}

/// Runs `ip` somewhere; it must succeed.
pub fn ip(namespace: &Namespace, words: &str) {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    let output = namespace.run_in(|| command.output()).unwrap().unwrap();
    assert!(output.status.success(), "{}: ip {words}: {output:?}", namespace.name());
}
