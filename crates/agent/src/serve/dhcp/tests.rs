//! What clients of DHCP are told.

use std::sync::Arc;

use dhcproto::{Decodable as _, Decoder, v4};
use wire::{
    object::{Port, Prefix, Subnet},
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
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

/// The sample's port 5, with its L3 network, both changed.
fn world(change: impl FnOnce(&mut Port, &mut Subnet)) -> Guests {
    let mut guests = Guests::default();
    guests.follow(&Arc::new(sample::with_served(SUBNET, change)));
    guests
}

/// A message of the client of port 5 with these options.
fn message(kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 1, 2, 3, 4];
    bytes.resize(28, 0);
    bytes.extend(MAC);
    bytes.resize(236, 0);
    bytes.extend([99, 130, 83, 99, TYPE, 1, kind]);
    for (code, data) in options {
        bytes.extend([*code, u8::try_from(data.len()).unwrap()]);
        bytes.extend(*data);
    }
    bytes.push(END);
    bytes
}

fn with_address(mut message: Vec<u8>, at: usize, ip: [u8; 4]) -> Vec<u8> {
    message[at..at + 4].copy_from_slice(&ip);
    message
}

/// Offsets of addresses in a message.
const CIADDR: usize = 12;
const GIADDR: usize = 24;

/// An answer that was read again: the frame, the message, its options.
struct Told {
    frame: Vec<u8>,
    message: v4::Message,
    payload: Vec<u8>,
}

impl Told {
    fn option(&self, code: u8) -> Option<Vec<u8>> {
        let message = borrowed::Message::new(&self.payload).unwrap();
        let mut options = message.opts();
        options.find(|option| u8::from(option.code()) == code).map(|option| option.data().to_vec())
    }

    fn codes(&self) -> Vec<u8> {
        let message = borrowed::Message::new(&self.payload).unwrap();
        message.opts().map(|option| option.code().into()).collect()
    }

    fn to(&self) -> ([u8; 6], [u8; 4]) {
        (*self.frame.first_chunk().unwrap(), *self.frame[30..].first_chunk().unwrap())
    }
}

fn told(guests: &Guests, message: &[u8]) -> Told {
    let answered = answer(&guests.get(5).unwrap(), message).ok().unwrap();
    let frame = answered.frame.expect("an answer");
    let Content::Udp { payload, .. } = read(&frame).unwrap().content else { panic!("UDP") };
    let payload = payload.to_vec();
    let message = v4::Message::decode(&mut Decoder::new(&payload)).unwrap();
    Told { frame, message, payload }
}

fn refused(guests: &Guests, message: &[u8]) -> Ignored {
    answer(&guests.get(5).unwrap(), message).err().expect("no answer")
}

fn kind(told: &Told) -> u8 {
    told.option(TYPE).unwrap()[0]
}

#[test]
fn a_client_that_asks_for_nothing_in_particular_is_told_all() {
    let guests = world(|port, subnet| {
        let route = |ip: [u8; 4], bits| Route {
            prefix: Prefix { ip: ip.into(), bits },
            via: [10, 0, 0, 9].into(),
        };
        subnet.routes = vec![route([172, 16, 0, 0], 12), route([192, 168, 7, 0], 24)];
        let dhcp = subnet.dhcp.as_mut().unwrap();
        dhcp.time_servers = vec![[10, 0, 0, 7].into()];
        dhcp.search = vec!["example.net".to_owned()];
        port.told.as_mut().unwrap().options =
            vec![DhcpOption { code: 150, data: Bytes(vec![10, 0, 0, 8]), is_v6: false }];
    });
    let offer = told(&guests, &message(DISCOVER, &[]));
    assert_eq!(offer.message.yiaddr(), Ipv4Addr::new(10, 0, 0, 5));
    assert_eq!((offer.message.xid(), offer.message.chaddr()), (0x0102_0304, &MAC[..]));
    let expected: [(u8, &[u8]); 20] = [
        (TYPE, &[OFFER]),
        (SERVER_ID, &[10, 0, 0, 2]),
        (LEASE, &86_400_u32.to_be_bytes()),
        (RENEWAL, &43_200_u32.to_be_bytes()),
        (REBINDING, &75_600_u32.to_be_bytes()),
        (MASK, &[255, 255, 255, 0]),
        (BROADCAST, &[10, 0, 0, 255]),
        (ROUTER, &[10, 0, 0, 1]),
        (DNS, &[10, 0, 0, 53]),
        (HOSTNAME, b"vm-5"),
        (DOMAIN, b"example.org"),
        (MTU, &[5, 170]),
        (NTP, &[10, 0, 0, 7]),
        (SEARCH, b"\x07example\x03org\0\x07example\x03net\0"),
        (ROUTES, &[12, 172, 16, 10, 0, 0, 9, 24, 192, 168, 7, 10, 0, 0, 9, 0, 10, 0, 0, 1]),
        (
            ROUTES_OF_WINDOWS,
            &[12, 172, 16, 10, 0, 0, 9, 24, 192, 168, 7, 10, 0, 0, 9, 0, 10, 0, 0, 1],
        ),
        (150, &[10, 0, 0, 8]),
        (CLIENT_ID, &[]),
        (RELAY, &[]),
        (66, &[]),
    ];
    for (code, data) in expected {
        let found = offer.option(code).unwrap_or_default();
        assert_eq!(found, data, "option {code}");
    }
    assert_eq!(offer.codes()[0], TYPE);
}

#[test]
fn who_asks_for_options_gets_those_and_what_everybody_needs() {
    let guests = world(|_, _| {});
    let offer = told(&guests, &message(DISCOVER, &[(WANTED, &[ROUTER, 200, HOSTNAME])]));
    let mut codes = offer.codes();
    codes.sort_unstable();
    let mut expected = [&ALWAYS[..], &[ROUTER, HOSTNAME]].concat();
    expected.sort_unstable();
    assert_eq!(codes, expected);
}

#[test]
fn a_nic_that_is_not_the_default_one_gets_no_router_no_names_and_the_routes() {
    let guests = world(|port, subnet| {
        port.told.as_mut().unwrap().is_default = false;
        subnet.routes = vec![Route {
            prefix: Prefix { ip: [172, 16, 0, 0].into(), bits: 12 },
            via: [10, 0, 0, 9].into(),
        }];
    });
    let offer = told(&guests, &message(DISCOVER, &[]));
    for code in [ROUTER, DNS, HOSTNAME, DOMAIN, SEARCH] {
        assert_eq!(offer.option(code), None, "option {code}");
    }
    assert_eq!(offer.option(ROUTES).unwrap(), [12, 172, 16, 10, 0, 0, 9]);
}

#[test]
fn an_extra_option_of_the_nic_goes_before_that_of_the_network_and_ours() {
    let extra = |code, data: &[u8], is_v6| DhcpOption { code, data: Bytes(data.to_vec()), is_v6 };
    let guests = world(|port, subnet| {
        subnet.dhcp.as_mut().unwrap().options = vec![
            extra(66, b"10.0.0.7", false),
            extra(67, b"net", false),
            extra(26, &[5, 0], false),
        ];
        port.told.as_mut().unwrap().options = vec![
            extra(67, b"nic", false),
            extra(3, &[1; 16], true),
            extra(TYPE.into(), &[9], false),
            extra(LEASE.into(), &[0; 4], false),
            extra(1_000, &[0], false),
            extra(200, &[7; 300], false),
        ];
    });
    let size = 1_400_u16.to_be_bytes();
    let offer = told(&guests, &message(DISCOVER, &[(SIZE, &size)]));
    assert_eq!(offer.option(66).unwrap(), b"10.0.0.7");
    assert_eq!(offer.option(67).unwrap(), b"nic");
    assert_eq!(
        (offer.message.siaddr(), offer.message.fname()),
        ([10, 0, 0, 7].into(), Some(&b"nic\0"[..]))
    );
    assert_eq!(offer.option(MTU).unwrap(), [5, 0]);
    assert_eq!(offer.option(200).unwrap(), [7; 300], "in two parts (RFC 3396)");
    assert_eq!((kind(&offer), offer.option(ROUTER).unwrap()), (OFFER, vec![10, 0, 0, 1]));
    assert_eq!(offer.option(LEASE).unwrap(), 86_400_u32.to_be_bytes());
}

#[test]
fn what_does_not_fit_is_left_out_and_what_matters_is_not() {
    let guests = world(|port, _| {
        port.told.as_mut().unwrap().options =
            vec![DhcpOption { code: 200, data: Bytes(vec![7; 600]), is_v6: false }];
    });
    let offer = told(&guests, &message(DISCOVER, &[(WANTED, &[200, ROUTER, DNS])]));
    assert!(offer.payload.len() + HEADERS_BYTES <= LEAST_PACKET, "{}", offer.payload.len());
    assert_eq!(offer.option(200), None);
    assert!([ROUTER, DNS, MASK, LEASE, RENEWAL].iter().all(|code| offer.option(*code).is_some()));
    let size = 1_400_u16.to_be_bytes();
    let large = told(&guests, &message(DISCOVER, &[(WANTED, &[200]), (SIZE, &size)]));
    assert_eq!(large.option(200).unwrap().len(), 600);
}

#[test]
fn a_request_is_granted_for_the_address_that_the_nic_has_and_for_no_other_one() {
    let guests = world(|_, _| {});
    let (own, other, us) = ([10, 0, 0, 5], [10, 0, 0, 9], [10, 0, 0, 2]);
    let plain = message(REQUEST, &[]);
    for (name, asked, expected) in [
        ("selecting", message(REQUEST, &[(REQUESTED, &own), (SERVER_ID, &us)]), ACK),
        ("selecting another's", message(REQUEST, &[(REQUESTED, &other), (SERVER_ID, &us)]), NAK),
        ("after a reboot", message(REQUEST, &[(REQUESTED, &own)]), ACK),
        ("after a reboot elsewhere", message(REQUEST, &[(REQUESTED, &other)]), NAK),
        ("renewing", with_address(plain.clone(), CIADDR, own), ACK),
        ("renewing what it had", with_address(plain.clone(), CIADDR, other), NAK),
        ("of nothing", plain, NAK),
    ] {
        let told = told(&guests, &asked);
        assert_eq!(kind(&told), expected, "{name}");
        let leased = if expected == ACK { own } else { [0; 4] };
        assert_eq!(told.message.yiaddr().octets(), leased, "{name}");
        assert_eq!(told.option(LEASE).is_some(), expected == ACK, "{name}");
        if expected == NAK {
            assert_eq!(told.to(), ([0xff; 6], [255; 4]), "{name}");
            assert_eq!(told.codes(), [TYPE, SERVER_ID], "{name}");
        }
    }
    let elsewhere = message(REQUEST, &[(REQUESTED, &own), (SERVER_ID, &other)]);
    assert_eq!(refused(&guests, &elsewhere), Ignored::OtherServer);
}

#[test]
fn an_answer_goes_where_the_client_hears_it() {
    let guests = world(|_, _| {});
    let own = [10, 0, 0, 5];
    let discover = message(DISCOVER, &[]);
    let mut deaf = discover.clone();
    deaf[10] = 0x80;
    assert_eq!(told(&guests, &discover).to(), (MAC, own));
    assert_eq!(told(&guests, &deaf).to(), ([0xff; 6], [255; 4]));
    assert!(told(&guests, &deaf).message.flags().broadcast());
    let renewing = with_address(message(REQUEST, &[]), CIADDR, own);
    assert_eq!(told(&guests, &renewing).to(), (MAC, own));
    let circuit: &[u8] = &[1, 2, 0, 7];
    let relayed = message(DISCOVER, &[(RELAY, circuit), (CLIENT_ID, b"\x01id")]);
    let relayed = with_address(relayed, GIADDR, [10, 0, 0, 30]);
    let told = told(&guests, &relayed);
    assert_eq!(told.to(), (MAC, [10, 0, 0, 30]));
    assert_eq!(told.frame[36..38], [0, 67], "relays listen at the port of servers");
    assert_eq!(
        (told.option(RELAY).unwrap(), told.option(CLIENT_ID).unwrap()),
        (circuit.to_vec(), b"\x01id".to_vec())
    );
    assert_eq!(told.codes().last(), Some(&RELAY));
}

#[test]
fn who_informs_itself_gets_no_lease() {
    let guests = world(|_, _| {});
    let inform = with_address(message(INFORM, &[]), CIADDR, [10, 0, 0, 5]);
    let told = told(&guests, &inform);
    assert_eq!((kind(&told), told.message.yiaddr()), (ACK, Ipv4Addr::UNSPECIFIED));
    assert_eq!((told.option(LEASE), told.option(RENEWAL)), (None, None));
    assert_eq!(told.option(DNS).unwrap(), [10, 0, 0, 53]);
}

#[test]
fn what_needs_no_answer_is_told_and_what_is_none_of_ours_is_not_answered() {
    let guests = world(|_, _| {});
    let guest = guests.get(5).unwrap();
    let own = [10, 0, 0, 5];
    let decline = message(DECLINE, &[(REQUESTED, &own), (HOSTNAME, b"me"), (CLIENT_ID, b"\x01x")]);
    let declined = answer(&guest, &decline).ok().unwrap();
    assert!(declined.frame.is_none());
    let seen = declined.seen.of(guest.port.uuid, 9);
    assert_eq!((seen.kind, seen.address), (LeaseKind::Declined, Some(own.into())));
    assert_eq!((seen.hostname.as_deref(), &*seen.client_id), (Some("me"), &b"\x01x"[..]));
    let release = with_address(message(RELEASE, &[]), CIADDR, own);
    let released = answer(&guest, &release).ok().unwrap();
    assert_eq!((released.frame, released.seen.kind), (None, LeaseKind::Released));

    let mut stranger = message(DISCOVER, &[]);
    stranger[33] = 6;
    assert_eq!(refused(&guests, &stranger), Ignored::Stranger);
    let mut long = message(DISCOVER, &[]);
    long[2] = 255;
    assert_eq!(refused(&guests, &long), Ignored::Malformed);
    assert_eq!(refused(&guests, &message(OFFER, &[])), Ignored::Malformed);
    assert_eq!(refused(&guests, &message(DISCOVER, &[])[..240]), Ignored::Malformed);
    let without = world(|_, subnet| subnet.dhcp = None);
    assert_eq!(refused(&without, &message(DISCOVER, &[])), Ignored::NoAddress);
}

#[test]
fn a_huge_name_that_is_no_text_is_cut() {
    let guests = world(|_, _| {});
    let name = [0xff; 250];
    let asked = message(DISCOVER, &[(HOSTNAME, &name)]);
    let answered = answer(&guests.get(5).unwrap(), &asked).ok().unwrap();
    assert!(answered.frame.is_some());
    let seen = answered.seen.of(uuid::Uuid::nil(), 0);
    assert!(seen.hostname.unwrap().len() <= wire::leases::CLIENT_TEXT_MAX);
}
