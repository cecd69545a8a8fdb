//! What else filters VMs on a plain Linux host: a bridge whose frames pass netfilter (br_netfilter),
//! with rules of iptables (legacy, the port by physdev) or of nftables. Both ask one rule after the
//! other, and both know members by a set.
//!
//! The rules are those of [`crate::filtered`]: nobody may open a connection to either VM but members, to
//! the ports of the load, and some with addresses that none of the VMs has.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use hostnet::Namespace;

use crate::{
    Failure,
    serve::{COUNT, SINK},
    site::{MTU_BYTES, Site, VM_DEVICE},
    traffic::{Pair, same_subnet},
};

/// How many rules a VM has, and how many members the group that its last two name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Rules, [`LAST`] included.
    pub(crate) rules: u32,
    /// Members, the client included.
    pub(crate) members: u32,
}

/// The rules that name the members: one for TCP, one for UDP.
pub(crate) const LAST: u32 = 2;

/// The bridge's ports, the first of which leads to the client.
const PORTS: [&str; 2] = ["p1", "p2"];
const SET: &str = "members";

/// What a rule in front of the last ones lets in: nobody of those here.
pub(crate) fn other(number: u32) -> (Ipv4Addr, u32) {
    // Addresses for benchmarks (RFC 2544).
    (Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number), 10_000 + number)
}

/// A bridge with the rules in iptables.
pub(crate) fn iptables(site: &mut Site, size: Size) -> Result<Pair, Failure> {
    let Bridge { host, vms, ends: [from, to] } = Bridge::new(site, "iptables", size)?;
    let mut set = format!("create {SET} hash:ip family inet maxelem {}\n", size.members + 1);
    for ip in members(from, size) {
        writeln!(set, "add {SET} {ip}")?;
    }
    feed(&host, &["ipset", "restore"], &set)?;
    feed(&host, &["iptables-legacy-restore"], &table(size)?)?;
    Pair::new(&format!("iptables-{}", size.rules), vms, to)
}

/// A bridge with the rules in nftables.
pub(crate) fn nftables(site: &mut Site, size: Size) -> Result<Pair, Failure> {
    let Bridge { host, vms, ends } = Bridge::new(site, "nftables", size)?;
    feed(&host, &["nft", "-f", "-"], &ruleset(ends, size)?)?;
    Pair::new(&format!("nftables-{}", size.rules), vms, ends[1])
}

/// A host with a bridge whose frames pass netfilter, and two VMs.
struct Bridge {
    host: Namespace,
    vms: (Namespace, Namespace),
    /// Their addresses.
    ends: [Ipv4Addr; 2],
}

impl Bridge {
    fn new(site: &mut Site, kind: &str, size: Size) -> Result<Self, Failure> {
        let name = |part: &str| format!("{kind}{}-{part}", size.rules);
        let host = site.namespace(&name("host"))?;
        let vms = (site.namespace(&name("1"))?, site.namespace(&name("2"))?);
        for (port, vm) in PORTS.into_iter().zip([&vms.0, &vms.1]) {
            site.cable((&host, port), (vm, VM_DEVICE), MTU_BYTES)?;
        }
        site.bridge(&host, &PORTS, MTU_BYTES)?;
        host.sysctl("net/bridge/bridge-nf-call-iptables", "1")?;
        let to = same_subnet(site, &vms.0, &vms.1)?;
        let from = Ipv4Addr::from(u32::from(to) - 1);
        Ok(Self { host, vms, ends: [from, to] })
    }
}

/// The client, and others that are nowhere.
fn members(client: Ipv4Addr, size: Size) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(Ipv4Addr::new(10, 100, 0, 1));
    std::iter::once(client).chain((1..size.members).map(move |at| Ipv4Addr::from(first + at)))
}

/// As `iptables-legacy-restore` reads it.
fn table(size: Size) -> Result<String, Failure> {
    let mut table = "*filter\n:INPUT ACCEPT\n:FORWARD DROP\n:OUTPUT ACCEPT\n".to_owned();
    for port in PORTS {
        writeln!(table, ":to-{port} -")?;
    }
    for port in PORTS {
        let out = format!("--physdev-out {port} --physdev-is-bridged");
        writeln!(table, "-A FORWARD -m physdev {out} -j to-{port}")?;
        let known = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
        writeln!(table, "-A to-{port} {known}")?;
        writeln!(table, "-A to-{port} -m conntrack --ctstate INVALID -j DROP")?;
    }
    let server = PORTS[1];
    for (ip, port) in (LAST..size.rules).map(other) {
        writeln!(table, "-A to-{server} -s {ip}/32 -p tcp --dport {port} -j ACCEPT")?;
    }
    for (protocol, ports) in last() {
        let member = format!("-m set --match-set {SET} src");
        writeln!(table, "-A to-{server} -p {protocol} --dport {ports} {member} -j ACCEPT")?;
    }
    Ok(table + "COMMIT\n")
}

/// As `nft` reads it. In family `inet` a bridged frame comes from the bridge and goes to it, so that VMs
/// are told apart by address.
fn ruleset([from, to]: [Ipv4Addr; 2], size: Size) -> Result<String, Failure> {
    let members: Vec<String> = members(from, size).map(|ip| ip.to_string()).collect();
    let known = "ct state established,related accept\nct state invalid drop\n";
    let mut rules = format!(
        "table inet groups {{\nset {SET} {{ type ipv4_addr; elements = {{ {} }} }}\n\
         chain to-client {{\n{known}drop\n}}\nchain to-server {{\n{known}",
        members.join(", ")
    );
    for (ip, port) in (LAST..size.rules).map(other) {
        writeln!(rules, "ip saddr {ip} tcp dport {port} accept")?;
    }
    for (protocol, ports) in last() {
        let ports = ports.replace(':', "-");
        writeln!(rules, "ip saddr @{SET} {protocol} dport {ports} accept")?;
    }
    write!(
        rules,
        "drop\n}}\nchain forward {{\ntype filter hook forward priority 0; policy drop;\n\
         ip daddr vmap {{ {from} : jump to-client, {to} : jump to-server }}\n}}\n}}\n"
    )?;
    Ok(rules)
}

/// The ports of the load, and nothing else.
fn last() -> [(&'static str, String); LAST as usize] {
    [("tcp", format!("{SINK}:{COUNT}")), ("udp", COUNT.to_string())]
}

/// Runs a program in a namespace, with a text as its input.
fn feed(namespace: &Namespace, program: &[&str], text: &str) -> Result<(), Failure> {
    let [name, arguments @ ..] = program else { return Err("no program".into()) };
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped());
    let child = namespace.run_in(|| command.spawn())?;
    let mut child = child.map_err(|error| format!("{name}: {error}: `make setup-bench`"))?;
    // It reads all before it says anything.
    child.stdin.take().ok_or("a program without input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rules: 10, members: 3 };

    #[test]
    fn both_have_as_many_rules_as_are_wanted() {
        let table = table(SIZE).unwrap();
        let accepts = |line: &&str| line.starts_with("-A to-p2") && line.contains("--dport");
        assert_eq!(table.lines().filter(accepts).count(), 10);
        let ends = [1, 2].map(|last| Ipv4Addr::new(10, 77, 0, last));
        let rules = ruleset(ends, SIZE).unwrap();
        assert_eq!(rules.lines().filter(|line| line.contains("dport")).count(), 10);
        assert!(rules.contains("10.77.0.1, 10.100.0.2, 10.100.0.3 }"), "{rules}");
    }

    #[test]
    fn no_rule_is_about_what_probes_ask_for() {
        for (ip, port) in (LAST..10_000).map(other) {
            assert_ne!(port, u32::from(crate::serve::CLOSED));
            assert!(ip.octets()[0] == 198 && matches!(ip.octets()[1], 18 | 19), "{ip}");
        }
        const { assert!(crate::serve::CLOSED > COUNT) };
    }
}
