//! What somebody asks about a packet, checked, as a question to the NIC's host.

use std::net::IpAddr;

use model::{
    AnyId, Claim, Code, Error, Id, Kind, Record, Resource, Result,
    id::parse_uuid,
    resource::{
        host::Host, l2_network::L2Network, nic_looks::GetVmNicTrace, used_ip::UsedIp,
        vm_nic::VmNic, zone::EnableState,
    },
};
use serde_json::{Map, Value, json};
use store::{Read, Snapshot};
use wire::question::FromPort;

use crate::{Caller, operation::shared_only};

/// ICMP (RFC 792), TCP (RFC 9293), UDP (RFC 768), ICMPv6 (RFC 4443).
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// The types of echo requests.
const ECHO: u8 = 8;
const ECHO_V6: u8 = 128;

/// A packet that somebody asks about.
#[derive(Debug)]
pub(super) struct Probe {
    /// The NIC that sends it.
    pub(super) nic: VmNic,
    /// Where that is.
    pub(super) host: Id<Host>,
    /// What its host is asked.
    pub(super) question: FromPort,
}

/// A NIC of the caller's own, and the host that has it.
pub(super) fn nic(
    read: &Snapshot<Record>,
    caller: &Caller,
    id: Id<VmNic>,
) -> Result<(VmNic, Id<Host>)> {
    let own = own(read, caller, id)?;
    let hint = |error: Error, hint: &str| error.on_field("vmNicUuid").hint(hint);
    let failed = |text: String| Error::new(Code::OperationFailed, text);
    if own.state == EnableState::Disabled {
        let error = failed(format!("NIC {id} is disabled, so it is on no host"));
        return Err(hint(error, "ChangeVmNicState enables it"));
    }
    match (own.host_uuid, own.vm_instance_uuid) {
        (Some(host), _) => Ok((own, host)),
        (None, Some(instance)) => {
            let text = format!("NIC {id} is on no host, as its instance {instance} does not run");
            Err(hint(failed(text), "StartVmInstance starts it"))
        }
        (None, None) => {
            let text = format!("NIC {id} is plugged into neither an instance nor a device");
            Err(hint(failed(text), "AttachVmNicToVm or PlugVmNic plugs it in"))
        }
    }
}

/// What is somebody else's is not there; what is only shared is not the caller's to look into.
fn own(read: &Snapshot<Record>, caller: &Caller, id: Id<VmNic>) -> Result<VmNic> {
    let record = read.get(Kind::VmNic, id.uuid()).filter(|record| caller.sees(read, record));
    let found = record.as_ref().and_then(|record| Some((record, VmNic::of(record)?)));
    match found {
        None => Err(Error::not_found(VmNic::DEF.name, id).on_field("vmNicUuid")),
        Some((record, _)) if !caller.may_change(record) => {
            Err(shared_only(Kind::VmNic, id.uuid()).on_field("vmNicUuid"))
        }
        Some((_, nic)) => Ok(nic.clone()),
    }
}

/// Checks what somebody asks about.
pub(super) fn probe(
    read: &Snapshot<Record>,
    caller: &Caller,
    message: &GetVmNicTrace,
) -> Result<Probe> {
    let (nic, host) = nic(read, caller, message.vm_nic_uuid)?;
    let own = addresses(read, nic.uuid);
    let remote = target(read, caller, (message, &nic, &own))?;
    let family = if remote.is_ipv4() { 4 } else { 6 };
    if let Some(source) = message.source.filter(|ip| ip.is_ipv4() != remote.is_ipv4()) {
        let error = Error::field("source", format!("{source} is not of IPv{family}, as {remote}"));
        return Err(error.hint("leave it out for the NIC's own address"));
    }
    let has_one = own.iter().any(|used| used.ip.is_ipv4() == remote.is_ipv4());
    if !has_one && message.source.is_none() {
        let error = Error::field("to", format!("NIC {} has no address of IPv{family}", nic.uuid));
        return Err(error.hint("ask about an address of a family that it has, or give a source"));
    }
    let protocol = protocol(&message.protocol, family)?;
    let port_or_type = port_or_type(message, protocol)?;
    let (port, source, source_port) =
        (nic.uuid.uuid(), message.source, message.source_port.unwrap_or(0));
    let question = FromPort { port, source, remote, protocol, source_port, port_or_type };
    Ok(Probe { nic, host, question })
}

fn addresses(read: &Snapshot<Record>, nic: Id<VmNic>) -> Vec<UsedIp> {
    let used = read.referrers(Kind::UsedIp, UsedIp::USED_BY, nic.uuid());
    let used = used.filter_map(|id| read.get(Kind::UsedIp, id));
    let mut used: Vec<UsedIp> = used.filter_map(|used| UsedIp::of(&used).cloned()).collect();
    // IPv4 first.
    used.sort_unstable_by_key(|used| used.ip);
    used
}

/// The address that a packet is for.
fn target(
    read: &Snapshot<Record>,
    caller: &Caller,
    (message, nic, own): (&GetVmNicTrace, &VmNic, &[UsedIp]),
) -> Result<IpAddr> {
    let to = message.to.trim();
    if let Ok(ip) = to.parse::<IpAddr>() {
        return one_receiver(ip);
    }
    let Some(uuid) = parse_uuid(to) else {
        let error = Error::field("to", format!("\"{to}\" is neither an address nor a uuid"));
        return Err(error.hint("give an IP address, or the uuid of a NIC or of an instance"));
    };
    let sees = |kind| read.get(kind, uuid).filter(|record| caller.sees(read, record));
    let nics: Vec<VmNic> = match (sees(Kind::VmNic), sees(Kind::VmInstance)) {
        (Some(found), _) => VmNic::of(&found).into_iter().cloned().collect(),
        (None, Some(_)) => {
            let field = VmNic::VM_INSTANCE.field;
            let ids = read.referrers(Kind::VmNic, field, uuid);
            let found = ids.filter_map(|id| read.get(Kind::VmNic, id));
            found.filter_map(|found| VmNic::of(&found).cloned()).collect()
        }
        (None, None) => {
            let error = Error::field("to", format!("no NIC and no instance has the uuid {to}"));
            return Err(error.hint("list what exists with QueryVmNic and QueryVmInstance"));
        }
    };
    address_of(read, (message, nic, own), nics)
}

/// The address of some NICs at which another NIC reaches them: on its own L2 network, if one is there.
fn address_of(
    read: &Snapshot<Record>,
    (message, nic, own): (&GetVmNicTrace, &VmNic, &[UsedIp]),
    mut nics: Vec<VmNic>,
) -> Result<IpAddr> {
    nics.retain(|found| found.uuid != nic.uuid);
    if nics.is_empty() {
        let error = Error::field("to", "there is no NIC but the one that sends");
        return Err(error.hint("name another NIC, an instance that has one, or an address"));
    }
    nics.sort_by_key(|found| (found.l2_network_uuid != nic.l2_network_uuid, found.device_id));
    let fits = |ip: &IpAddr| match message.source {
        Some(source) => source.is_ipv4() == ip.is_ipv4(),
        None => own.iter().any(|used| used.ip.is_ipv4() == ip.is_ipv4()),
    };
    let all = nics.iter().flat_map(|found| addresses(read, found.uuid)).map(|used| used.ip);
    all.into_iter().find(fits).ok_or_else(|| {
        let error = Error::field("to", "it has no address of a family that the NIC has");
        error.hint("SetVmStaticIp gives a NIC an address")
    })
}

/// A trace follows one packet to one receiver.
fn one_receiver(ip: IpAddr) -> Result<IpAddr> {
    let why = match ip {
        _ if ip.is_unspecified() => "nobody's address",
        _ if ip.is_loopback() => "an address that never leaves its machine",
        _ if ip.is_multicast() => "a group's address",
        IpAddr::V4(v4) if v4.is_broadcast() => "everybody's address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4 address in the form of IPv6",
        _ => return Ok(ip),
    };
    let error = Error::field("to", format!("{ip} is {why}"));
    Err(error.hint("a trace follows a packet to one receiver: give the address of one"))
}

/// The number of a protocol.
fn protocol(text: &str, family: u8) -> Result<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.to_ascii_uppercase().as_str() {
        "TCP" => Ok(TCP),
        "UDP" => Ok(UDP),
        "ICMP" | "ICMPV6" if family == 6 => Ok(ICMPV6),
        "ICMP" => Ok(ICMP),
        number => number.parse().ok().filter(|_| is_number).ok_or_else(|| {
            let rule = format!("\"{text}\" is not TCP, UDP, ICMP or a number up to 255");
            Error::field("protocol", rule).hint("numbers are IANA's, such as 132 for SCTP")
        }),
    }
}

/// What the packet has in the place of a destination port.
fn port_or_type(message: &GetVmNicTrace, protocol: u8) -> Result<u16> {
    let (has_ports, has_types) = (matches!(protocol, TCP | UDP), matches!(protocol, ICMP | ICMPV6));
    let GetVmNicTrace { port, source_port, icmp_type, icmp_code, .. } = message;
    let given = [
        ("port", port.is_some(), has_ports, "TCP and UDP have"),
        ("sourcePort", source_port.is_some(), has_ports, "TCP and UDP have"),
        ("icmpType", icmp_type.is_some(), has_types, "ICMP has"),
        ("icmpCode", icmp_code.is_some(), has_types, "ICMP has"),
    ];
    if let Some((field, _, _, who)) = given.into_iter().find(|(_, given, fits, _)| *given && !fits)
    {
        let error = Error::field(field, format!("only {who} it, and the protocol is {protocol}"));
        return Err(error.hint("leave it out"));
    }
    match (has_ports, port) {
        (true, Some(port)) => return Ok(*port),
        (true, None) => {
            let error = Error::field("port", "is required for TCP and UDP");
            return Err(error.hint("give the port that the connection is opened to"));
        }
        (false, _) => {}
    }
    if icmp_code.is_some() && icmp_type.is_none() {
        return Err(Error::field("icmpCode", "needs a type").hint("give icmpType, too"));
    }
    let echo = if protocol == ICMPV6 { ECHO_V6 } else { ECHO };
    let icmp = u16::from(icmp_type.unwrap_or(echo)) << 8 | u16::from(icmp_code.unwrap_or(0));
    Ok(if has_types { icmp } else { 0 })
}

/// The packet, as the answer shows it.
pub(super) fn shown(question: &FromPort, source: Option<IpAddr>) -> Value {
    let FromPort { remote, protocol, source_port, port_or_type, .. } = question;
    let mut shown = Map::from_iter([
        ("source".to_owned(), json!(source)),
        ("destination".to_owned(), json!(remote)),
        ("protocol".to_owned(), json!(protocol)),
    ]);
    put_ports(&mut shown, *protocol, (*source_port, *port_or_type));
    Value::Object(shown)
}

/// What a packet of a protocol has there, by its names.
pub(super) fn put_ports(shown: &mut Map<String, Value>, protocol: u8, (from, to): (u16, u16)) {
    match protocol {
        TCP | UDP => {
            if from != 0 {
                shown.insert("sourcePort".to_owned(), json!(from));
            }
            shown.insert("port".to_owned(), json!(to));
        }
        ICMP | ICMPV6 => {
            shown.insert("icmpType".to_owned(), json!(to >> 8));
            shown.insert("icmpCode".to_owned(), json!(to & 0xff));
        }
        _ => {}
    }
}

/// The source of a packet whose sender names none.
pub(super) fn source(read: &Snapshot<Record>, question: &FromPort) -> Option<IpAddr> {
    let own = addresses(read, Id::new(question.port)).into_iter().map(|used| used.ip);
    let fits = |ip: &IpAddr| ip.is_ipv4() == question.remote.is_ipv4();
    question.source.or_else(|| own.into_iter().find(fits))
}

/// Who has an address on a NIC's L2 network, as far as netloom gave it out.
pub(super) fn holder(read: &Snapshot<Record>, l2: Id<L2Network>, ip: IpAddr) -> Option<AnyId> {
    let (kind, id) = read.holder(&Claim::Ip(l2, ip))?;
    let record = read.get(kind, id)?;
    UsedIp::of(&record).map(|used| used.used_by)
}
