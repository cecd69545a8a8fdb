//! What the resolver of an L3 network says: names and addresses of its instances by itself, with
//! authority; about all else others are asked, if there are any. Pure.
//!
//! Its zones are the network's domain and, of the reverse ones, those of its ranges. An instance is
//! known by its name alone too; a name without a dot that no instance has is never asked about
//! elsewhere: it would leak, and mean something else there (as dnsmasq's `domain-needed`).
//!
//! Source: RFC 1034, RFC 2308 (negative answers), RFC 6891 (EDNS), RFC 8482 (ANY).

use std::{collections::BTreeSet, net::IpAddr};

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, HINFO, PTR, SOA},
    },
};
use wire::object::Subnet;

use crate::directory::{Directory, contains, is_of};

/// How long an answer is good for, in seconds: a NIC may get another address or name.
const TTL_SECONDS: u32 = 30;
/// The same of an answer that there is nothing.
const NEGATIVE_SECONDS: u32 = 5;
/// What is not fragmented anywhere (<https://www.dnsflagday.net/2020/>), in bytes.
pub(crate) const PAYLOAD: u16 = 1232;
/// What every client takes (RFC 1035, 4.2.1), in bytes.
const PAYLOAD_LEAST: u16 = 512;

/// What is to be done about a query.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// This is the answer.
    Answer(Message),
    /// Others are to be asked; the answer is to be made of this one, which has no records yet.
    Forward(Query, Message),
    /// It is no query.
    Drop,
}

/// Decides what is to be done about what a guest has sent to the resolver of `subnet`.
pub(crate) fn decide(directory: &Directory, subnet: &Subnet, bytes: &[u8]) -> Decision {
    let Ok(request) = Message::from_vec(bytes) else { return malformed(bytes) };
    if request.metadata.message_type != MessageType::Query {
        return Decision::Drop;
    }
    let forwarders = subnet.resolver.as_ref().map(|resolver| !resolver.forwarders.is_empty());
    let has_forwarders = forwarders.unwrap_or_default();
    let mut answer = skeleton(&request);
    answer.metadata.recursion_available = has_forwarders;
    if request.metadata.op_code != OpCode::Query {
        return failed(answer, ResponseCode::NotImp);
    }
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return failed(answer, ResponseCode::BADVERS);
    }
    let [query] = &request.queries[..] else { return failed(answer, ResponseCode::FormErr) };
    let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    if query.query_class() != DNSClass::IN || is_transfer {
        return failed(answer, ResponseCode::Refused);
    }
    match own(directory, subnet, query) {
        Some(Own::Found(records)) => {
            answer.metadata.authoritative = true;
            answer.add_answers(records);
        }
        Some(Own::Missing(code, zone)) => {
            answer.metadata.authoritative = true;
            answer.metadata.response_code = code;
            answer.add_authorities(zone.as_ref().and_then(soa));
        }
        None if query.query_type() == RecordType::ANY => {
            answer.add_answers([minimal(query.name())]);
        }
        None if has_forwarders && request.metadata.recursion_desired => {
            return Decision::Forward(query.clone(), answer);
        }
        None => return failed(answer, ResponseCode::Refused),
    }
    Decision::Answer(answer)
}

/// What is not a message: whoever sent it is told so, if it at least looks like a query.
fn malformed(bytes: &[u8]) -> Decision {
    let Some([high, low, flags, ..]) = bytes.get(..12) else { return Decision::Drop };
    if flags & 0x80 != 0 {
        return Decision::Drop;
    }
    let id = u16::from_be_bytes([*high, *low]);
    Decision::Answer(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
}

/// The answer without anything in it.
fn skeleton(request: &Message) -> Message {
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata = Metadata::response_from_request(&request.metadata);
    answer.add_queries(request.queries.iter().cloned());
    if let Some(asked) = &request.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        answer.set_edns(edns);
    }
    answer
}

fn failed(mut answer: Message, code: ResponseCode) -> Decision {
    answer.metadata.response_code = code;
    Decision::Answer(answer)
}

/// How many bytes an answer by UDP may have, to a guest whose packets have so many.
pub(crate) fn payload_max(request: &[u8], mtu_bytes: u32) -> usize {
    /// Bytes of the headers of IPv6 and UDP.
    const HEADERS: u32 = 48;
    let asked =
        Message::from_vec(request).ok().and_then(|message| Some(message.edns?.max_payload()));
    let asked = asked.unwrap_or_default().clamp(PAYLOAD_LEAST, PAYLOAD);
    usize::from(asked).min(usize::try_from(mtu_bytes.saturating_sub(HEADERS)).unwrap_or_default())
}

/// The answer's bytes; where it is longer than this, the client is told to ask by TCP. `None` if
/// not even that fits.
pub(crate) fn encode(answer: &Message, bytes_max: usize) -> Option<Vec<u8>> {
    let fits = |bytes: &Vec<u8>| bytes.len() <= bytes_max;
    let whole = answer.to_vec().ok().filter(fits);
    whole.or_else(|| answer.truncate().to_vec().ok().filter(fits))
}

/// What the network's own zones say.
enum Own {
    Found(Vec<Record>),
    /// Not that type, or no such name; in which zone.
    Missing(ResponseCode, Option<Name>),
}

/// `None` if the name is in none of its zones.
fn own(directory: &Directory, subnet: &Subnet, query: &Query) -> Option<Own> {
    let name = query.name();
    if let Ok(net) = name.parse_arpa_name() {
        return reverse(directory, subnet, query, (net.addr(), net.prefix_len()));
    }
    let text = relative(name);
    if let Some(domain) = subnet.domain.as_deref().and_then(absolute) {
        if domain == name.to_lowercase() {
            return Some(apex(&domain, query));
        }
        if domain.zone_of(name) {
            let labels = usize::from(name.num_labels().saturating_sub(domain.num_labels()));
            let host = text.splitn(labels + 1, '.').take(labels).collect::<Vec<_>>().join(".");
            let found = directory.addresses_of(subnet, &host);
            return Some(addresses(query, found, Some(domain)));
        }
    }
    if name.num_labels() != 1 {
        return None;
    }
    let found = directory.addresses_of(subnet, &text);
    // Somebody who asks about a top level domain as such has its name in mind.
    let of_top = [RecordType::NS, RecordType::SOA, RecordType::DS, RecordType::DNSKEY];
    match found.is_none() && (of_top.contains(&query.query_type()) || text == "localhost") {
        true => None,
        false => Some(addresses(query, found, None)),
    }
}

/// A name in small letters, without the dot at its end.
fn relative(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

fn absolute(domain: &str) -> Option<Name> {
    let mut name = Name::from_ascii(domain).ok().filter(|name| !name.is_root())?;
    name.set_fqdn(true);
    Some(name.to_lowercase())
}

fn apex(zone: &Name, query: &Query) -> Own {
    match query.query_type() {
        RecordType::SOA => Own::Found(soa(zone).into_iter().collect()),
        RecordType::ANY => Own::Found(vec![minimal(query.name())]),
        _ => Own::Missing(ResponseCode::NoError, Some(zone.clone())),
    }
}

fn addresses(query: &Query, found: Option<BTreeSet<IpAddr>>, zone: Option<Name>) -> Own {
    let Some(found) = found else { return Own::Missing(ResponseCode::NXDomain, zone) };
    let wanted = query.query_type();
    if wanted == RecordType::ANY {
        return Own::Found(vec![minimal(query.name())]);
    }
    let data = found.into_iter().filter_map(|ip| match (ip, wanted) {
        (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(v4))),
        (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(v6))),
        _ => None,
    });
    let records: Vec<_> =
        data.map(|data| Record::from_rdata(query.name().clone(), TTL_SECONDS, data)).collect();
    match records.is_empty() {
        true => Own::Missing(ResponseCode::NoError, zone),
        false => Own::Found(records),
    }
}

/// What has this address, which stands for a whole network if it has fewer bits.
fn reverse(
    directory: &Directory,
    subnet: &Subnet,
    query: &Query,
    (ip, bits): (IpAddr, u8),
) -> Option<Own> {
    let step = if ip.is_ipv4() { 8 } else { 4 };
    let all = if ip.is_ipv4() { 32 } else { 128 };
    // Names in these zones end where a label does.
    let ranges = subnet.ranges.iter().filter(|range| range.prefix.ip.is_ipv4() == ip.is_ipv4());
    let ranges = ranges.map(|range| (&range.prefix, range.prefix.bits - range.prefix.bits % step));
    let mut zones: Vec<_> = ranges.collect();
    zones.sort_by_key(|(_, zone_bits)| std::cmp::Reverse(*zone_bits));
    let of_zone =
        |zone_bits: u8| query.name().trim_to(usize::from(2 + zone_bits / step)).to_lowercase();
    if bits == all {
        let (_, zone_bits) = *zones.iter().find(|(prefix, _)| contains(prefix, ip))?;
        let zone = Some(of_zone(zone_bits));
        let names = directory.names_of(subnet, ip);
        if names.is_empty() || !is_of(subnet, ip) {
            return Some(Own::Missing(ResponseCode::NXDomain, zone));
        }
        return Some(match query.query_type() {
            RecordType::ANY => Own::Found(vec![minimal(query.name())]),
            RecordType::PTR => Own::Found(pointers(subnet, query, names)),
            _ => Own::Missing(ResponseCode::NoError, zone),
        });
    }
    let (_, zone_bits) = *zones.iter().find(|(prefix, zone_bits)| {
        let of_name = wire::object::Prefix { ip: prefix.ip, bits: bits.min(*zone_bits) };
        *zone_bits <= bits && contains(&of_name, ip)
    })?;
    let zone = of_zone(zone_bits);
    Some(match bits == zone_bits {
        true => apex(&zone, query),
        // There is something below, maybe.
        false => Own::Missing(ResponseCode::NoError, Some(zone)),
    })
}

fn pointers(subnet: &Subnet, query: &Query, names: BTreeSet<&str>) -> Vec<Record> {
    let domain = subnet.domain.as_deref().and_then(absolute);
    let whole = names.into_iter().filter_map(|name| {
        let mut name = Name::from_ascii(name).ok()?;
        if let Some(domain) = &domain {
            name.set_fqdn(false);
            name = name.append_domain(domain).ok()?;
        }
        name.set_fqdn(true);
        Some(Record::from_rdata(query.name().clone(), TTL_SECONDS, RData::PTR(PTR(name))))
    });
    whole.collect()
}

/// RFC 8482, 4.2.
fn minimal(name: &Name) -> Record {
    let data = HINFO::new("RFC8482".to_owned(), String::new());
    Record::from_rdata(name.clone(), TTL_SECONDS, RData::HINFO(data))
}

fn soa(zone: &Name) -> Option<Record> {
    let contact = zone.prepend_label("hostmaster").ok()?;
    let (serial, refresh, retry, expire) = (1, 3600, 600, 86400);
    let data = SOA::new(zone.clone(), contact, serial, refresh, retry, expire, NEGATIVE_SECONDS);
    Some(Record::from_rdata(zone.clone(), NEGATIVE_SECONDS, RData::SOA(data)))
}

/// Whether any bytes are a query, for [`fuzz`](crate::fuzz).
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn is_understood(bytes: &[u8]) -> bool {
    let (directory, subnet) = crate::sample::network();
    match decide(&directory, &subnet, bytes) {
        Decision::Drop => false,
        Decision::Answer(answer) | Decision::Forward(_, answer) => {
            for bytes_max in [usize::from(PAYLOAD_LEAST), usize::from(u16::MAX)] {
                let encoded = encode(&answer, bytes_max);
                assert!(encoded.is_some_and(|bytes| bytes.len() <= bytes_max), "fits or is cut");
            }
            answer.metadata.response_code != ResponseCode::FormErr
        }
    }
}

/// Queries, for [`fuzz`](crate::fuzz).
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn samples() -> Vec<Vec<u8>> {
    let asked = [
        ("red-1.example.internal.", RecordType::A),
        ("red-1.", RecordType::AAAA),
        ("example.internal.", RecordType::SOA),
        ("5.0.0.10.in-addr.arpa.", RecordType::PTR),
        ("0.10.in-addr.arpa.", RecordType::ANY),
        ("www.example.org.", RecordType::TXT),
    ];
    let encoded = asked.into_iter().filter_map(|(name, kind)| {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).ok()?, kind));
        message.set_edns(Edns::new());
        message.to_vec().ok()
    });
    encoded.collect()
}

#[cfg(test)]
mod tests;
