//! The rules of a router's packet filter, which never change: they ask the sets and maps of
//! [`crate::sets`].
//!
//! Nothing goes through but what one of three things allows, asked anew for each packet: a VIP that
//! leads to a guest (`pairs`), a guest that leaves as its EIP (`leaving`), guests that are hidden behind a
//! public address (`hidden`). So what is taken away ends with the next packet, also in connections that
//! are under way, which the kernel would go on translating. What leaves by a public NIC has one of the
//! router's own addresses there, or is dropped: what was not translated, for whatever reason, stays inside.
//!
//! Source: nft(8), libnftables-json(5).

use nftables::{
    expr::{
        CT, CTDir, Expression, Map, Meta, MetaKey, NamedExpression, Payload, PayloadField, SetItem,
    },
    schema::{Chain, NfCmd, NfListObject, NfObject, Rule, Table},
    stmt::{
        Accept, Counter, Drop, JumpTarget, Limit, Match, NAT, NATFamily, Operator, Return,
        Statement,
    },
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use crate::sets::{
    EIP_GUESTS, EIP_IN, EIP_OUT, ENTRIES, FORWARD, FORWARD_PORT, Form, GUESTS, HIDDEN, HIDDEN_BY,
    HIDDEN_GUESTS, HIDE, LEAVING, MANAGEMENTS, OWN, PAIRS, PUBLICS, RANGE, RANGE_PORT, REPLACED,
    name,
};

/// The one table of a router.
pub const TABLE: &str = "netloom";

/// Where the router's agent listens on management NICs, as ZStack's does.
pub const AGENT_PORT: u16 = 7272;

const DNS_PORT: u16 = 53;

/// Echo requests of all sources that the router answers in a second.
const ECHOES_PER_SECOND: u32 = 100;

/// Counters of drops, each with what it counts.
pub const COUNTERS: [(&str, &str); 4] = [
    ("invalid", "belongs to no connection, or the table of connections is full"),
    ("refused", "nothing lets it through"),
    ("untranslated", "would have left by a public NIC with an address that is not the router's"),
    ("closed", "for the router itself, where nothing listens"),
];

/// Priorities of hooks, as nft(8) names them: `dstnat`, `filter`, `srcnat`; the last comes after all.
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;
const LAST: i32 = 300;

type Expr = Expression<'static>;
type Stmt = Statement<'static>;

/// The table itself.
#[must_use]
pub fn table() -> NfListObject<'static> {
    NfListObject::Table(Table { family: NfFamily::INet, name: TABLE.into(), handle: None })
}

/// What comes after table and sets: counters, chains, and their rules.
#[must_use]
pub fn chains() -> Vec<NfObject<'static>> {
    let counter = |(name, _): &(&'static str, &str)| {
        add(NfListObject::Counter(nftables::schema::Counter {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: (*name).into(),
            handle: None,
            packets: None,
            bytes: None,
        }))
    };
    let mut objects: Vec<_> = COUNTERS.iter().map(counter).collect();
    let mut chain = |chain: Chain<'static>, rules: Vec<Vec<Stmt>>| {
        let name = chain.name.clone();
        objects.push(add(NfListObject::Chain(chain)));
        objects.extend(rules.into_iter().map(|expr| {
            add(NfListObject::Rule(Rule {
                family: NfFamily::INet,
                table: TABLE.into(),
                chain: name.clone(),
                expr: expr.into(),
                ..Rule::default()
            }))
        }));
    };
    let (nat, filter) = (NfChainType::NAT, NfChainType::Filter);
    let (pass, drop) = (NfChainPolicy::Accept, NfChainPolicy::Drop);
    chain(base("arrive", nat, NfHook::Prerouting, (DSTNAT, pass)), arrive());
    chain(base("leave", nat, NfHook::Postrouting, (SRCNAT, pass)), leave());
    chain(regular("opens"), opens());
    chain(base("through", filter, NfHook::Forward, (FILTER, drop)), through());
    chain(base("last", filter, NfHook::Postrouting, (LAST, pass)), last());
    chain(base("own", filter, NfHook::Input, (FILTER, drop)), own());
    objects
}

fn add(object: NfListObject<'static>) -> NfObject<'static> {
    NfObject::CmdObject(NfCmd::Add(object))
}

fn regular(name: &'static str) -> Chain<'static> {
    let (family, table) = (NfFamily::INet, TABLE.into());
    Chain { family, table, name: name.into(), ..Chain::default() }
}

fn base(
    name: &'static str,
    kind: NfChainType,
    hook: NfHook,
    (priority, policy): (i32, NfChainPolicy),
) -> Chain<'static> {
    Chain {
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(policy),
        ..regular(name)
    }
}

/// IPv4, then IPv6.
const FAMILIES: [bool; 2] = [true, false];

fn each_family(rules: impl Fn(Family) -> Vec<Vec<Stmt>>) -> Vec<Vec<Stmt>> {
    FAMILIES.into_iter().flat_map(|is_ipv4| rules(Family { is_ipv4 })).collect()
}

/// Destinations: VIPs become guests.
fn arrive() -> Vec<Vec<Stmt>> {
    let mut rules =
        vec![vec![is_not(meta(MetaKey::Iifname), at(&ENTRIES)), Statement::Return(None::<Return>)]];
    rules.extend(each_family(|family| {
        let service = || {
            let protocol = meta(MetaKey::L4proto);
            concat([family.destination(), protocol, header("th", "dport")])
        };
        let service_from = || {
            let protocol = meta(MetaKey::L4proto);
            concat([family.source(), family.destination(), protocol, header("th", "dport")])
        };
        let to = |key: &dyn Fn() -> Expr, addresses: &Form, ports: Option<&Form>| {
            let port = ports.map(|ports| found(key(), family.of(ports)));
            let nat = family.nat(found(key(), family.of(addresses)), port);
            vec![with_ports(), Statement::DNAT(Some(nat))]
        };
        let eip = family.nat(found(family.destination(), family.of(&EIP_IN)), None);
        vec![
            vec![Statement::DNAT(Some(eip))],
            to(&service, &FORWARD, Some(&FORWARD_PORT)),
            to(&service_from, &RANGE, Some(&RANGE_PORT)),
            to(&service_from, &RANGE, None),
        ]
    }));
    rules
}

/// Sources. A guest that comes to a VIP from inside gets the router's address, so that the answer
/// comes back this way, also its own.
fn leave() -> Vec<Vec<Stmt>> {
    let masquerade = || Statement::Masquerade(None);
    let mut rules = vec![vec![
        is(meta(MetaKey::Iifname), at(&GUESTS)),
        is(meta(MetaKey::Oifname), at(&GUESTS)),
        has_status("dnat"),
        masquerade(),
    ]];
    rules.extend(each_family(|family| {
        let public = || is(meta(MetaKey::Oifname), at(&PUBLICS));
        let eip = family.nat(found(family.source(), family.of(&EIP_OUT)), None);
        let behind = concat([meta(MetaKey::Iifname), family.source()]);
        let hide = family.nat(found(behind, family.of(&HIDE)), None);
        vec![
            vec![has_status("dnat"), is(family.pair(), family.of(&REPLACED)), masquerade()],
            vec![public(), Statement::SNAT(Some(eip))],
            vec![public(), Statement::SNAT(Some(hide))],
        ]
    }));
    rules
}

/// What goes through.
fn through() -> Vec<Vec<Stmt>> {
    let mut rules = vec![
        vec![has_state("invalid"), counted("invalid"), dropped()],
        vec![has_state("new"), Statement::Jump(JumpTarget { target: "opens".into() })],
    ];
    rules.extend(each_family(|family| {
        let original = family.tracked("saddr", CTDir::Original);
        let reply = || family.tracked("daddr", CTDir::Reply);
        vec![
            vec![has_status("dnat"), is(family.pair(), family.of(&PAIRS)), accepted()],
            vec![is(concat([original.clone(), reply()]), family.of(&LEAVING)), accepted()],
            vec![
                is(original, family.of(&HIDDEN_GUESTS)),
                is(reply(), family.of(&HIDDEN_BY)),
                accepted(),
            ],
        ]
    }));
    rules.push(vec![counted("refused"), dropped()]);
    rules
}

/// What opens a connection through the router. It has its destination by now, and not yet its source.
fn opens() -> Vec<Vec<Stmt>> {
    let mut rules = each_family(|family| {
        let public = || is(meta(MetaKey::Oifname), at(&PUBLICS));
        let behind = concat([meta(MetaKey::Iifname), family.source()]);
        vec![
            vec![has_status("dnat"), is(family.pair(), family.of(&PAIRS)), accepted()],
            vec![public(), is(family.source(), family.of(&EIP_GUESTS)), accepted()],
            vec![public(), is(behind, family.of(&HIDDEN)), accepted()],
        ]
    });
    rules.push(vec![counted("refused"), dropped()]);
    rules
}

/// What leaves, after all translation. Neighbours and routers of IPv6 are found by link-local addresses.
fn last() -> Vec<Vec<Stmt>> {
    let public = || is(meta(MetaKey::Oifname), at(&PUBLICS));
    let mut rules = vec![vec![
        is(header("ip6", "saddr"), prefix("fe80::", 10)),
        is(header("ip6", "hoplimit"), Expression::Number(255)),
        accepted(),
    ]];
    rules.extend(each_family(|family| {
        vec![vec![
            public(),
            is_not(family.source(), family.of(&OWN)),
            counted("untranslated"),
            dropped(),
        ]]
    }));
    rules
}

/// What is for the router itself.
fn own() -> Vec<Vec<Stmt>> {
    let limit = || {
        Statement::Limit(Limit {
            rate: ECHOES_PER_SECOND,
            rate_unit: None,
            per: Some("second".into()),
            burst: None,
            burst_unit: None,
            inv: None,
        })
    };
    let by = |form: &Form| is(meta(MetaKey::Iifname), at(form));
    let neighbours = ["nd-neighbor-solicit", "nd-neighbor-advert"].map(word).to_vec();
    let port = |protocol, port: u16| is(header(protocol, "dport"), Expression::Number(port.into()));
    vec![
        vec![is(meta(MetaKey::Iifname), word("lo")), accepted()],
        vec![has_state("invalid"), counted("invalid"), dropped()],
        vec![has_state("established"), accepted()],
        vec![has_state("related"), accepted()],
        vec![is(header("icmp", "type"), word("echo-request")), limit(), accepted()],
        vec![is(header("icmpv6", "type"), word("echo-request")), limit(), accepted()],
        vec![is(header("icmpv6", "type"), one_of(neighbours)), accepted()],
        vec![by(&GUESTS), with_ports(), port("th", DNS_PORT), accepted()],
        vec![by(&MANAGEMENTS), port("tcp", AGENT_PORT), accepted()],
        vec![counted("closed"), dropped()],
    ]
}

/// What differs between IPv4 and IPv6.
#[derive(Clone, Copy)]
struct Family {
    is_ipv4: bool,
}

impl Family {
    fn protocol(self) -> &'static str {
        if self.is_ipv4 { "ip" } else { "ip6" }
    }

    fn source(self) -> Expr {
        header(self.protocol(), "saddr")
    }

    fn destination(self) -> Expr {
        header(self.protocol(), "daddr")
    }

    /// A set of this family.
    fn of(self, form: &Form) -> Expr {
        Expression::String(format!("@{}", name(form, self.is_ipv4)).into())
    }

    /// An address of the connection, as its first packet or the answer to it had it.
    fn tracked(self, field: &str, direction: CTDir) -> Expr {
        Expression::Named(NamedExpression::CT(CT {
            key: format!("{} {field}", self.protocol()).into(),
            family: None,
            dir: Some(direction),
        }))
    }

    /// Where a connection was to go at first, and where it goes.
    fn pair(self) -> Expr {
        let (vip, guest) =
            (self.tracked("daddr", CTDir::Original), self.tracked("saddr", CTDir::Reply));
        concat([vip, guest])
    }

    fn nat(self, address: Expr, port: Option<Expr>) -> NAT<'static> {
        let family = if self.is_ipv4 { NATFamily::IP } else { NATFamily::IP6 };
        NAT { addr: Some(address), family: Some(family), port, flags: None }
    }
}

fn word(word: &'static str) -> Expr {
    Expression::String(word.into())
}

/// A set that is of no family.
fn at(form: &Form) -> Expr {
    Expression::String(format!("@{}", name(form, true)).into())
}

fn meta(key: MetaKey) -> Expr {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn header(protocol: &'static str, field: &'static str) -> Expr {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn prefix(address: &'static str, len: u32) -> Expr {
    let addr = Box::new(word(address));
    Expression::Named(NamedExpression::Prefix(nftables::expr::Prefix { addr, len }))
}

fn concat<const N: usize>(fields: [Expr; N]) -> Expr {
    Expression::Named(NamedExpression::Concat(fields.into()))
}

fn one_of(all: Vec<Expr>) -> Expr {
    Expression::Named(NamedExpression::Set(all.into_iter().map(SetItem::Element).collect()))
}

/// The value of a key in a map.
fn found(key: Expr, data: Expr) -> Expr {
    Expression::Named(NamedExpression::Map(Box::new(Map { key, data })))
}

fn matches(left: Expr, op: Operator, right: Expr) -> Stmt {
    Statement::Match(Match { left, right, op })
}

fn is(left: Expr, right: Expr) -> Stmt {
    matches(left, Operator::EQ, right)
}

fn is_not(left: Expr, right: Expr) -> Stmt {
    matches(left, Operator::NEQ, right)
}

fn tracking(key: &'static str) -> Expr {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

fn has_state(state: &'static str) -> Stmt {
    matches(tracking("state"), Operator::IN, word(state))
}

fn has_status(status: &'static str) -> Stmt {
    matches(tracking("status"), Operator::IN, word(status))
}

/// It is TCP or UDP.
fn with_ports() -> Stmt {
    is(meta(MetaKey::L4proto), one_of(["tcp", "udp"].map(word).to_vec()))
}

fn counted(counter: &'static str) -> Stmt {
    Statement::Counter(Counter::Named(counter.into()))
}

fn accepted() -> Stmt {
    Statement::Accept(None::<Accept>)
}

fn dropped() -> Stmt {
    Statement::Drop(None::<Drop>)
}
