//! `netloom trace` and `netloom why-dropped`: what would become of a packet, what was dropped, and which
//! rule decided.

use std::net::IpAddr;

use clap::Args;
use client::Client;
use model::{Kind, id::parse_uuid};
use serde_json::{Map, Value, json};

use crate::{
    Connection, Error, names,
    output::{self, Format, Manner},
    table::{self, Screen, harmless},
};

/// Most NICs that an answer about an ambiguous instance lists.
const SHOWN_MAX: usize = 10;

/// What `trace` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  netloom trace --from web-1 --to db-1 --proto tcp --port 3306\n  \
    netloom trace --from 10.0.0.11 --to 10.0.0.12 --proto icmp\n\n\
    Nothing is sent: each host on the way is asked what it would do."
)]
pub struct Trace {
    /// The NIC that sends: its uuid, its address, or the name of an instance that has one NIC.
    #[arg(long, value_name = "NIC")]
    from: String,
    /// Where to: an address, an instance's name, or the uuid of a NIC or an instance.
    #[arg(long, value_name = "ADDRESS|VM|NIC")]
    to: String,
    /// tcp, udp, icmp, or the number of another protocol.
    #[arg(long, value_name = "PROTOCOL")]
    proto: String,
    /// The port of the destination, of tcp and udp.
    #[arg(long)]
    port: Option<u16>,
    /// The port of the source; any if absent.
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// The type of icmp; an echo request if absent.
    #[arg(long, value_name = "TYPE")]
    icmp_type: Option<u8>,
    /// Its code.
    #[arg(long, value_name = "CODE")]
    icmp_code: Option<u8>,
    /// The source address, if it is not the NIC's own.
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
}

/// What `why-dropped` takes.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netloom why-dropped web-1")]
pub struct WhyDropped {
    /// The NIC: its uuid, its address, or the name of an instance that has one NIC.
    nic: String,
    /// So many of the newest at most.
    #[arg(long)]
    limit: Option<u32>,
}

pub(crate) fn trace(trace: &Trace, connection: &Connection, manner: &Manner) -> Result<(), Error> {
    let told = connection.with(|client| {
        let mut params = Map::from_iter([
            ("vmNicUuid".to_owned(), json!(nic(client, &trace.from)?)),
            ("to".to_owned(), json!(target(client, &trace.to)?)),
            ("protocol".to_owned(), json!(trace.proto)),
        ]);
        let more = [
            ("port", trace.port.map(Value::from)),
            ("sourcePort", trace.source_port.map(Value::from)),
            ("icmpType", trace.icmp_type.map(Value::from)),
            ("icmpCode", trace.icmp_code.map(Value::from)),
            ("source", trace.source.map(|ip| ip.to_string().into())),
        ];
        let given = more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        params.extend(given);
        Ok(client.call("GetVmNicTrace", params, &[])?)
    })?;
    show(&told, manner, trace_text)
}

pub(crate) fn why_dropped(
    why: &WhyDropped,
    connection: &Connection,
    manner: &Manner,
) -> Result<(), Error> {
    let told = connection.with(|client| {
        let nic = ("vmNicUuid".to_owned(), json!(nic(client, &why.nic)?));
        let limit = why.limit.map(|limit| ("limit".to_owned(), json!(limit)));
        let params = [nic].into_iter().chain(limit).collect();
        Ok(client.call("GetVmNicDrops", params, &[])?)
    })?;
    show(&told, manner, drops_text)
}

fn show(told: &Value, manner: &Manner, text: fn(&Value, Screen) -> String) -> Result<(), Error> {
    let is_table = matches!(manner.output, None | Some(Format::Table | Format::Wide));
    match is_table && manner.out.is_none() {
        true => crate::print(&text(told, output::screen())),
        false => manner.show_answer(told),
    }
}

/// The uuid of the one NIC that a word means.
fn nic(client: &Client, word: &str) -> Result<String, Error> {
    if let Some(uuid) = parse_uuid(word) {
        return Ok(uuid.simple().to_string());
    }
    let condition = match word.parse::<IpAddr>() {
        Ok(ip) => format!("usedIps.ip={ip}"),
        Err(_) => {
            let instance = names::uuid_of(client, Kind::VmInstance, word)?;
            format!("vmInstanceUuid={instance}")
        }
    };
    let pairs = [
        ("q".to_owned(), condition),
        ("fields".to_owned(), "uuid,ip".to_owned()),
        ("limit".to_owned(), (SHOWN_MAX + 1).to_string()),
    ];
    let answer = client.query_pairs(Kind::VmNic.def().path(), &pairs)?;
    let found = answer["inventories"].as_array().map(Vec::as_slice).unwrap_or_default();
    match found {
        [] => Err(Error::Name(format!("there is no NIC of {word}"))),
        [one] => Ok(text(&one["uuid"])),
        several => {
            let more = if several.len() > SHOWN_MAX { ", ..." } else { "" };
            let shown = several.iter().take(SHOWN_MAX);
            let shown: Vec<String> =
                shown.map(|nic| format!("{} ({})", text(&nic["uuid"]), text(&nic["ip"]))).collect();
            let shown = shown.join(", ");
            Err(Error::Name(format!(
                "{word} has several NICs: {shown}{more}; give one of these uuids"
            )))
        }
    }
}

/// Where to: what the server takes, or the uuid of an instance of this name.
fn target(client: &Client, word: &str) -> Result<String, Error> {
    match word.parse::<IpAddr>().is_ok() || parse_uuid(word).is_some() {
        true => Ok(word.to_owned()),
        false => names::uuid_of(client, Kind::VmInstance, word),
    }
}

/// A trace, for people.
fn trace_text(told: &Value, screen: Screen) -> String {
    let mut lines = Vec::new();
    let mut say = |title: &str, text: String| {
        if !text.is_empty() {
            lines.push(harmless(&format!("{title:<12} {text}")));
        }
    };
    say("from", text(&told["from"]["words"]));
    say("to", text(&told["to"]["words"]));
    say("packet", packet(&told["packet"]));
    let reason = told["reason"].as_str().map(|reason| format!(" ({reason})"));
    let verdict = format!("{}{}", text(&told["verdict"]), reason.unwrap_or_default());
    say("verdict", format!("{verdict}: {}", text(&told["words"])));
    say("decided by", text(&told["decidedBy"]["words"]));
    for decided in told["decisions"].as_array().into_iter().flatten() {
        if decided["words"] != told["decidedBy"]["words"] {
            say("also", text(&decided["words"]));
        }
    }
    for doubt in told["inconclusive"].as_array().into_iter().flatten() {
        say("inconclusive", text(doubt));
    }
    let steps = told["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !steps.is_empty() {
        let head = ["HOP", "HOST", "STAGE", "FOUND", "OBJECT"].map(str::to_owned);
        let rows: Vec<Vec<String>> = steps.iter().map(step).collect();
        lines.push(String::new());
        lines.push(table::draw(&head, &rows, screen));
    }
    lines.join("\n")
}

fn step(step: &Value) -> Vec<String> {
    let hop = step["hop"].to_string();
    let host = text(&step["host"]);
    vec![hop, host, text(&step["stage"]), text(&step["text"]), text(&step["object"]["words"])]
}

/// A packet, in a line.
fn packet(packet: &Value) -> String {
    let protocol = match packet["protocol"].as_u64() {
        Some(1) => "ICMP".to_owned(),
        Some(6) => "TCP".to_owned(),
        Some(17) => "UDP".to_owned(),
        Some(58) => "ICMPv6".to_owned(),
        _ => format!("protocol {}", packet["protocol"]),
    };
    let ends = format!("{} > {}", text(&packet["source"]), text(&packet["destination"]));
    let number = |key: &str, before: &str| {
        packet[key].as_u64().map(|number| format!(" {before} {number}")).unwrap_or_default()
    };
    let more = [
        number("sourcePort", "from port"),
        number("port", "port"),
        number("icmpType", "type"),
        number("icmpCode", "code"),
    ];
    format!("{protocol} {ends}{}", more.concat())
}

/// What was dropped, for people.
fn drops_text(told: &Value, screen: Screen) -> String {
    let since = text(&told["since"]);
    let who = harmless(&text(&told["nic"]["words"]));
    let mut lines = vec![format!("{who}: {} dropped, watched since {since}", told["counted"])];
    if told["lost"].as_u64().is_some_and(|lost| lost > 0) {
        lines.push(format!("{} drops came too fast to be seen, of whatever NIC", told["lost"]));
    }
    let drops = told["drops"].as_array().map(Vec::as_slice).unwrap_or_default();
    if drops.is_empty() {
        lines.push("none of them was seen".to_owned());
        return lines.join("\n");
    }
    let head = ["LAST", "TIMES", "WAY", "REASON", "WHAT", "DECIDED BY"].map(str::to_owned);
    let rows: Vec<Vec<String>> = drops.iter().map(dropped).collect();
    lines.push(table::draw(&head, &rows, screen));
    lines.join("\n")
}

fn dropped(seen: &Value) -> Vec<String> {
    let (rule, group) = (text(&seen["rule"]["words"]), text(&seen["securityGroup"]["words"]));
    let by = match (rule.is_empty(), group.is_empty()) {
        (false, false) => format!("{rule} of {group}"),
        _ => format!("{rule}{group}"),
    };
    let way = if seen["direction"] == "FromNic" { "out" } else { "in" };
    let (date, count) = (text(&seen["date"]), seen["count"].to_string());
    vec![date, count, way.to_owned(), text(&seen["reason"]), text(&seen["what"]), by]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_says_the_verdict_and_who_decided_before_its_steps() {
        let deny =
            "ingress of NIC of instance db: DROP (rule 1: Ingress TCP DROP of security group web)";
        let allow = "egress of NIC of instance a: ACCEPT (no security group counts there)";
        let told = json!({
            "from": {"words": "NIC of instance a"}, "to": {"words": "NIC of instance db"},
            "packet": {"source": "10.0.0.2", "destination": "10.0.0.3", "protocol": 6, "port": 80},
            "verdict": "Dropped", "reason": "policy", "words": "A rule denies it.",
            "decidedBy": {"words": deny}, "decisions": [{"words": allow}, {"words": deny}],
            "inconclusive": ["host h2: it is about to change\u{1b}"],
            "steps": [
                {"hop": 1, "host": "h1", "stage": "guard", "text": "its own", "object": {"words": "NIC of instance a"}},
                {"hop": 2, "host": null, "stage": "policy", "text": "denied", "object": null},
            ],
        });
        let expected = "\
from         NIC of instance a
to           NIC of instance db
packet       TCP 10.0.0.2 > 10.0.0.3 port 80
verdict      Dropped (policy): A rule denies it.
decided by   ingress of NIC of instance db: DROP (rule 1: Ingress TCP DROP of security group web)
also         egress of NIC of instance a: ACCEPT (no security group counts there)
inconclusive host h2: it is about to change\u{fffd}

HOP  HOST  STAGE   FOUND    OBJECT
1    h1    guard   its own  NIC of instance a
2          policy  denied";
        let shown = trace_text(&told, Screen::default());
        let shown: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(shown.join("\n"), expected);
    }

    #[test]
    fn drops_are_told_with_the_rule_that_decided() {
        let mut told = json!({
            "nic": {"words": "NIC of instance db"}, "since": "Nov 27, 2026 11:00:00 AM", "counted": 9,
            "lost": 0,
            "drops": [{
                "date": "Nov 27, 2026 11:00:01 AM", "count": 3, "direction": "ToNic",
                "reason": "policy", "what": "TCP 10.0.0.2:4 > 10.0.0.3:80",
                "rule": {"words": "rule 1"}, "securityGroup": {"words": "security group web"},
            }],
        });
        let expected = "\
NIC of instance db: 9 dropped, watched since Nov 27, 2026 11:00:00 AM
LAST                      TIMES  WAY  REASON  WHAT                          DECIDED BY
Nov 27, 2026 11:00:01 AM  3      in   policy  TCP 10.0.0.2:4 > 10.0.0.3:80  rule 1 of security group web";
        assert_eq!(drops_text(&told, Screen::default()), expected);
        (told["drops"], told["lost"]) = (json!([]), json!(2));
        let text = drops_text(&told, Screen::default());
        assert!(text.ends_with("of whatever NIC\nnone of them was seen"), "{text}");
    }
}
