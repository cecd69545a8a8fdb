//! What clients of DHCPv6 are told.

use std::sync::Arc;

use wire::{
    object::{Port, Subnet},
    told::Bytes,
};

use super::*;
use crate::{
    sample,
    serve::{
        frame::{Content, read},
        guests::Guests,
    },
};

const SUBNET: u128 = 70;
const CLIENT: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 5];
const OWN: &str = "fd00::5";

fn world(change: impl FnOnce(&mut Port, &mut Subnet)) -> Guests {
    let desired = sample::with_served(SUBNET, |port, subnet| {
        subnet.dns.push("fd00::53".parse().unwrap());
        change(port, subnet);
    });
    let mut guests = Guests::default();
    guests.follow(&Arc::new(desired));
    guests
}

fn duid() -> Vec<u8> {
    [&[0, 4][..], sample::uuid(SUBNET).as_bytes()].concat()
}

/// A message of the client with these options besides its own identifier.
fn message(kind: MessageType, options: Vec<DhcpOption>) -> Message {
    let mut message = Message::new_with_id(kind, [1, 2, 3]);
    message.opts_mut().insert(DhcpOption::ClientId(CLIENT.to_vec()));
    options.into_iter().for_each(|option| message.opts_mut().insert(option));
    message
}

fn association(ips: &[&str]) -> DhcpOption {
    let address = |ip: &&str| {
        DhcpOption::IAAddr(IAAddr {
            addr: ip.parse().unwrap(),
            preferred_life: 0,
            valid_life: 0,
            opts: DhcpOptions::new(),
        })
    };
    let opts = ips.iter().map(address).collect();
    DhcpOption::IANA(IANA { id: 7, t1: 0, t2: 0, opts })
}

fn ours() -> DhcpOption {
    DhcpOption::ServerId(duid())
}

fn ask(guests: &Guests, message: &Message) -> Result<(LeaseKind, Message), Ignored> {
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    let from = ("fe80::ff:fe00:5".parse().unwrap(), 546);
    let Answered { frame, seen } = answer(&guests.get(5).unwrap(), from, &bytes)?;
    let frame = frame.expect("an answer");
    let Content::Udp { payload, from, to } = read(&frame).unwrap().content else { panic!("UDP") };
    assert_eq!((from, to, &frame[..6]), (547, 546, &[2, 0, 0, 0, 0, 5][..]));
    Ok((seen.kind, Message::decode(&mut Decoder::new(payload)).unwrap()))
}

/// The addresses of an answer, each with how long it is valid.
fn leased(answer: &Message) -> Vec<(String, u32)> {
    let Some(DhcpOption::IANA(association)) = answer.opts().get(OptionCode::IANA) else {
        return Vec::new();
    };
    let addresses = association.opts.iter().filter_map(|option| match option {
        DhcpOption::IAAddr(address) => Some((address.addr.to_string(), address.valid_life)),
        _ => None,
    });
    addresses.collect()
}

fn status_of(opts: &DhcpOptions) -> Option<Status> {
    match opts.get(OptionCode::StatusCode) {
        Some(DhcpOption::StatusCode(code)) => Some(code.status),
        _ => None,
    }
}

#[test]
fn a_client_gets_the_addresses_of_its_nic_in_two_steps_or_in_one() {
    let guests = world(|_, _| {});
    let own = vec![(OWN.to_owned(), 86_400)];
    let (kind, advertised) =
        ask(&guests, &message(MessageType::Solicit, vec![association(&[])])).unwrap();
    assert_eq!((kind, advertised.msg_type()), (LeaseKind::Offered, MessageType::Advertise));
    assert_eq!((leased(&advertised), advertised.xid()), (own.clone(), [1, 2, 3]));
    let Some(DhcpOption::ServerId(server)) = advertised.opts().get(OptionCode::ServerId) else {
        panic!("a server")
    };
    assert_eq!(server, &duid(), "the same on every host");
    let request = message(MessageType::Request, vec![association(&[OWN]), ours()]);
    let (kind, granted) = ask(&guests, &request).unwrap();
    assert_eq!((kind, granted.msg_type()), (LeaseKind::Leased, MessageType::Reply));
    assert_eq!(leased(&granted), own);
    let Some(DhcpOption::IANA(times)) = granted.opts().get(OptionCode::IANA) else { panic!("one") };
    assert_eq!((times.id, times.t1, times.t2), (7, 43_200, 69_120));

    let rapid = vec![association(&[]), DhcpOption::RapidCommit];
    let (kind, granted) = ask(&guests, &message(MessageType::Solicit, rapid)).unwrap();
    assert_eq!((kind, granted.msg_type()), (LeaseKind::Leased, MessageType::Reply));
    assert!(granted.opts().get(OptionCode::RapidCommit).is_some());
    assert_eq!(leased(&granted), own);
}

#[test]
fn an_address_that_is_no_longer_the_nics_is_over() {
    let guests = world(|_, _| {});
    for (kind, options) in [
        (MessageType::Renew, vec![association(&["fd00::9", OWN]), ours()]),
        (MessageType::Rebind, vec![association(&["fd00::9", OWN])]),
    ] {
        let (_, answer) = ask(&guests, &message(kind, options)).unwrap();
        let mut told = leased(&answer);
        told.sort();
        assert_eq!(told, [(OWN.to_owned(), 86_400), ("fd00::9".to_owned(), 0)]);
    }
    for (ips, expected) in [(&[OWN][..], Status::Success), (&[OWN, "fd00::9"], Status::NotOnLink)] {
        let confirm = message(MessageType::Confirm, vec![association(ips)]);
        let (_, answer) = ask(&guests, &confirm).unwrap();
        assert_eq!(status_of(answer.opts()), Some(expected));
    }
    let confirm = message(MessageType::Confirm, vec![association(&[])]);
    assert_eq!(ask(&guests, &confirm).unwrap_err(), Ignored::Malformed);
}

#[test]
fn prefixes_and_addresses_for_a_while_are_refused_and_more_associations_are_empty() {
    let guests = world(|_, _| {});
    let second = DhcpOption::IANA(IANA { id: 8, t1: 0, t2: 0, opts: DhcpOptions::new() });
    let prefix = DhcpOption::IAPD(IAPD { id: 1, t1: 0, t2: 0, opts: DhcpOptions::new() });
    let brief = DhcpOption::IATA(IATA { id: 2, opts: DhcpOptions::new() });
    let options = vec![association(&[]), second, prefix, brief];
    let (_, answer) = ask(&guests, &message(MessageType::Solicit, options)).unwrap();
    let of = |option: &DhcpOption| match option {
        DhcpOption::IANA(of) => Some((of.id, status_of(&of.opts))),
        DhcpOption::IAPD(of) => Some((of.id, status_of(&of.opts))),
        DhcpOption::IATA(of) => Some((of.id, status_of(&of.opts))),
        _ => None,
    };
    let mut told: Vec<_> = answer.opts().iter().filter_map(of).collect();
    told.sort_by_key(|(id, _)| *id);
    let (none, no_prefix) = (Some(Status::NoAddrsAvail), Some(Status::NoPrefixAvail));
    assert_eq!(told, [(1, no_prefix), (2, none), (7, None), (8, none)]);
}

#[test]
fn a_client_is_told_what_it_asks_for() {
    let guests = world(|port, subnet| {
        let dhcp = subnet.dhcp.as_mut().unwrap();
        dhcp.time_servers = vec!["fd00::7".parse().unwrap()];
        let extra = |code, data: &[u8]| Extra { code, data: Bytes(data.to_vec()), is_v6: true };
        dhcp.options = vec![extra(59, b"tftp://net"), extra(1, b"no")];
        port.told.as_mut().unwrap().options = vec![extra(59, b"tftp://nic")];
    });
    let wanted = [DNS, SEARCH, FQDN, NTP, 59].map(OptionCode::from).to_vec();
    let oro = DhcpOption::ORO(dhcproto::v6::ORO { opts: wanted });
    let asked = message(MessageType::InformationRequest, vec![oro]);
    let (kind, answer) = ask(&guests, &asked).unwrap();
    assert_eq!(kind, LeaseKind::Informed);
    let Some(DhcpOption::DomainNameServers(servers)) =
        answer.opts().get(OptionCode::DomainNameServers)
    else {
        panic!("servers")
    };
    assert_eq!(servers, &["fd00::53".parse::<Ipv6Addr>().unwrap()]);
    let Some(DhcpOption::DomainSearchList(names)) = answer.opts().get(OptionCode::DomainSearchList)
    else {
        panic!("names")
    };
    assert_eq!(names[0].to_string(), "example.org.");
    assert_eq!(raw(&answer, FQDN).unwrap(), b"\x01\x04vm-5\x07example\x03org\0");
    assert_eq!(raw(&answer, 59).unwrap(), b"tftp://nic");
    assert_eq!(raw(&answer, REFRESH).unwrap(), 86_400_u32.to_be_bytes());
    assert!(answer.opts().get(OptionCode::NtpServer).is_some());
    assert!(leased(&answer).is_empty());

    let nothing = message(MessageType::Solicit, vec![association(&[])]);
    let (_, answer) = ask(&guests, &nothing).unwrap();
    assert!(answer.opts().get(OptionCode::DomainNameServers).is_none(), "not asked for");
}

#[test]
fn where_guests_make_their_addresses_the_server_gives_none() {
    let guests = world(|_, subnet| subnet.ranges[1].mode = Some(AddressMode::Stateless));
    let (kind, answer) =
        ask(&guests, &message(MessageType::Solicit, vec![association(&[])])).unwrap();
    assert_eq!((kind, leased(&answer)), (LeaseKind::Informed, Vec::new()));
}

#[test]
fn what_is_for_others_or_makes_no_sense_is_not_answered() {
    let guests = world(|_, _| {});
    let others = DhcpOption::ServerId(vec![0, 4, 1]);
    let refused = |message: Message| ask(&guests, &message).unwrap_err();
    let one = || association(&[OWN]);
    let request = |server| message(MessageType::Request, vec![one(), server]);
    assert_eq!(refused(request(others.clone())), Ignored::OtherServer);
    let renew = message(MessageType::Renew, vec![one()]);
    assert_eq!(refused(renew), Ignored::OtherServer);
    assert_eq!(refused(message(MessageType::Solicit, vec![one(), others])), Ignored::Malformed);
    assert_eq!(refused(message(MessageType::Reply, vec![one(), ours()])), Ignored::Malformed);
    assert_eq!(refused(message(MessageType::InformationRequest, vec![one()])), Ignored::Malformed);
    let mut nobody = message(MessageType::Solicit, vec![one()]);
    nobody.opts_mut().remove(OptionCode::ClientId);
    assert_eq!(refused(nobody), Ignored::Malformed);
    let release = message(MessageType::Release, vec![one(), ours()]);
    let (kind, answer) = ask(&guests, &release).unwrap();
    assert_eq!((kind, status_of(answer.opts())), (LeaseKind::Released, Some(Status::Success)));
    let decline = message(MessageType::Decline, vec![one(), ours()]);
    assert_eq!(ask(&guests, &decline).unwrap().0, LeaseKind::Declined);
}
