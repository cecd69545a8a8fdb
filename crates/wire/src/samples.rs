//! What guests are told, who may talk to whom, questions and their answers, for tests and fuzzing.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    object::{About, Member, Prefix, SecurityGroup, Subnet, Timeouts},
    policy::{Action, AddressSpan, MemberAddress, Policy, PortSpan, Rule, Way},
    question::{
        Answer, Answered, Arrival, Asked, By, Decision, Delivered, DropSeen, Dropped, Drops,
        DropsOf, End, FromPort, Other, Question, Sent, Served, Step, Trace, Unanswered,
    },
    told::{
        AddressMode, AddressRange, Bytes, Dhcp, DhcpOption, GuestAddresses, Resolver, Route,
        Service, SshKey, Told,
    },
};

pub(crate) fn told(at: usize) -> Told {
    let option =
        DhcpOption { code: 66, data: Bytes(b"boot".to_vec()), is_v6: at.is_multiple_of(2) };
    Told {
        services: vec![Service::Dhcp, Service::Metadata],
        hostname: Some(format!("vm-{at}")),
        options: vec![option],
        is_default: at.is_multiple_of(2),
        may_choose: at.is_multiple_of(3),
        addresses: at.is_multiple_of(4).then_some(GuestAddresses::Left),
    }
}

pub(crate) fn subnet(uuid: Uuid, network: Uuid, own: IpAddr, at: usize) -> Subnet {
    let prefix = Prefix { ip: own, bits: 128 };
    let mode = at.is_multiple_of(2).then_some(AddressMode::Stateless);
    let range = AddressRange { prefix: prefix.clone(), gateway: Some(own), mode };
    let dhcp = Dhcp {
        server: Some(own),
        server6: None,
        lease_seconds: 86_400,
        options: told(at).options,
        time_servers: vec![own],
        search: vec!["example.org".to_owned()],
    };
    Subnet {
        uuid,
        network,
        domain: Some(format!("n{at}.example.org")),
        dns: vec![own],
        routes: vec![Route { prefix, via: own }],
        ranges: vec![range],
        dhcp: at.is_multiple_of(3).then_some(dhcp),
        resolver: Some(Resolver { addresses: vec![own], forwarders: Vec::new() }),
    }
}

pub(crate) fn about(uuid: Uuid, at: usize) -> About {
    let key = SshKey { name: "one".to_owned(), key: "ssh-ed25519 AAAA".to_owned() };
    About {
        uuid,
        name: format!("vm {at}"),
        hostname: format!("vm-{at}"),
        user_data: Some(Bytes(vec![0, 0xff])),
        vendor_data: None,
        ssh_keys: vec![key],
        account: uuid,
        zone: "zone1".to_owned(),
        offering: "small".to_owned(),
        tags: vec!["role=web".to_owned()],
        needs_token: at.is_multiple_of(2),
    }
}

pub(crate) fn policy(group: Uuid) -> Policy {
    Policy { groups: vec![group], ingress: Action::Drop, egress: Action::Accept }
}

pub(crate) fn security_group(uuid: Uuid, number: u32) -> SecurityGroup {
    let of_group = Rule {
        uuid,
        number,
        way: Way::Ingress,
        is_v6: false,
        action: Action::Accept,
        protocol: Some(6),
        ports: vec![PortSpan { first: 80, last: 90 }],
        group: Some(number),
        addresses: Vec::new(),
    };
    let [first, last] = [0, 9].map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
    let of_addresses = Rule {
        way: Way::Egress,
        is_v6: true,
        action: Action::Drop,
        protocol: None,
        ports: Vec::new(),
        group: None,
        addresses: vec![AddressSpan { first, last }],
        ..of_group.clone()
    };
    let is_stateless = number.is_multiple_of(2);
    SecurityGroup { uuid, number, rules: vec![of_group, of_addresses], is_stateless }
}

pub(crate) fn member(uuid: Uuid, ip: IpAddr, number: u32) -> Member {
    let addresses = vec![MemberAddress { ip, domain: number }];
    Member { uuid, addresses, groups: vec![number, number + 1] }
}

pub(crate) fn timeouts(uuid: Uuid) -> Timeouts {
    Timeouts {
        uuid,
        tcp_opening: 30,
        tcp_established: 7_440,
        tcp_closing: 240,
        tcp_closed: 10,
        opening: 30,
        udp_established: 120,
        icmp: 30,
        other: 600,
    }
}

/// One question of each kind.
pub(crate) fn questions() -> Vec<Asked> {
    let (port, remote) = (Uuid::from_u128(5), [10, 0, 0, 3].into());
    let from_port =
        FromPort { port, source: None, remote, protocol: 6, source_port: 0, port_or_type: 80 };
    let arrival = Arrival { network: port, vtep: Some(remote), frame: Bytes(vec![1; 60]) };
    let all = [
        Question::FromPort(from_port),
        Question::Arrival(arrival),
        Question::DropsOf(DropsOf { port, most: 16 }),
    ];
    let asked = |(number, question)| Asked { number, question };
    (1..).zip(all).map(asked).collect()
}

/// One answer of each kind.
pub(crate) fn answers() -> Vec<Answered> {
    let (port, remote): (_, IpAddr) = (Uuid::from_u128(5), [10, 0, 0, 3].into());
    let trace = |end, inconclusive: Option<&str>| {
        let step =
            Step { stage: "guard".to_owned(), text: "its own".to_owned(), object: Some(port) };
        let decision = Decision {
            port,
            way: Way::Egress,
            by: By::Rule,
            action: Action::Accept,
            rule: Some(port),
            group: Some(port),
            is_stateless: false,
        };
        let inconclusive = inconclusive.map(str::to_owned);
        Answer::Trace(Trace {
            revision: 7,
            steps: vec![step],
            decisions: vec![decision],
            end,
            inconclusive,
        })
    };
    let (reason, meaning) = ("denied".to_owned(), "A rule.".to_owned());
    let sent = Sent { network: port, vtep: Some(remote), own: None, frame: Bytes(vec![1; 60]) };
    let seen = DropSeen {
        at_ms: 1,
        count: 2,
        reason: reason.clone(),
        meaning: meaning.clone(),
        is_from_port: true,
        what: "TCP".to_owned(),
        rule: Some(port),
        group: None,
        source: Some(remote),
        destination: Some(remote),
        protocol: Some(6),
        source_port: 1,
        port_or_type: 80,
    };
    let all = [
        trace(End::Dropped(Dropped { reason, meaning }), None),
        trace(End::Delivered(Delivered { port }), None),
        trace(End::Sent(sent), Some("about to change")),
        trace(End::Served(Served { by: "DHCP".to_owned() }), None),
        trace(End::Other(Other { what: "flooded".to_owned() }), None),
        Answer::Drops(Drops { frames: vec![seen], counted: 3, lost: 0, since_ms: 1 }),
        Answer::Unanswered(Unanswered { why: "no such port".to_owned() }),
    ];
    let answered = |(number, answer)| Answered { number, answer };
    (1..).zip(all).map(answered).collect()
}
