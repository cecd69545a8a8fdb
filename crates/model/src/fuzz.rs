//! What is read from databases and texts, for property tests and fuzzing: whatever is there, nothing
//! panics, and what is understood is written as it was read.

use damage::Target;
use serde_json::{Value, value::RawValue};

use crate::{Kind, Mac, Record, Timestamp, id::parse_uuid, member_query::MemberQuery, spans};

/// All of them.
pub const TARGETS: &[Target] = &[RECORD, TEXT];

/// A row of a database, in the form of each release.
pub const RECORD: Target = Target { name: "model_record", read: record, samples: records };

/// A value that is written as text.
pub const TEXT: Target = Target { name: "model_text", read: text, samples: texts };

fn record(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(row) = RawValue::from_string(text.clone().into_owned()) else { return false };
    let read = Record::decode(&row);
    if let Ok(mut row) = serde_json::from_str::<Value>(&text) {
        // What an earlier release has written is no less odd.
        let kind: Option<Kind> =
            row.get("kind").and_then(|kind| serde_json::from_value(kind.clone()).ok());
        for version in 1..=kind.map_or(0, |kind| kind.def().version()) {
            row["version"] = version.into();
            let old = serde_json::value::to_raw_value(&row);
            let _ = old.and_then(|old| Record::decode(&old));
        }
    }
    let Ok(read) = read else { return false };
    // Claims and index are derived when a start reads it.
    let _ = (read.claims(), read.index(), read.home(), read.whole());
    let again = read.encode().and_then(|row| Record::decode(&row));
    assert_eq!(again.ok(), Some(read));
    true
}

/// What the present release makes of an earlier one's database.
fn records() -> Vec<Vec<u8>> {
    let rows = include_str!("../../control/tests/databases/0.1.0.rows").lines();
    rows.filter(|row| !row.starts_with("{\"counter\"")).map(|row| row.as_bytes().to_vec()).collect()
}

fn text(bytes: &[u8]) -> bool {
    let text = &*String::from_utf8_lossy(bytes);
    let (time, mac) = (text.parse::<Timestamp>(), text.parse::<Mac>());
    if let Ok(mac) = mac {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
    if let Ok(time) = time {
        let _ = time.plus_seconds(i64::MAX).to_string();
    }
    let http = Timestamp::of_http(text).map(|time| time.to_string());
    time.is_ok() || mac.is_ok() || http.is_some() || parse_uuid(text).is_some() || lists(text)
}

/// Lists of rules of security groups, and queries for members.
fn lists(text: &str) -> bool {
    let ports = spans::ports(text);
    if let Ok(ports) = &ports {
        assert_eq!(spans::ports(&spans::show_ports(ports)).as_ref(), Ok(ports));
    }
    let addresses = [4, 6].map(|version| {
        let spans = spans::addresses(text, version).ok()?;
        assert_eq!(spans::addresses(&spans::show_addresses(&spans), version).as_ref(), Ok(&spans));
        Some(())
    });
    let query = text.parse::<MemberQuery>();
    if let Ok(query) = &query {
        assert_eq!(query.to_string().parse().as_ref(), Ok(query));
    }
    ports.is_ok() || query.is_ok() || addresses.iter().any(Option::is_some)
}

fn texts() -> Vec<Vec<u8>> {
    let all = [
        "Nov 14, 2017 10:20:57 PM",
        "2017-11-14 22:20:57",
        "Tue, 14 Nov 2017 22:20:57 GMT",
        "Tue, 14 Nov 2017 23:20:57 +0100",
        "02:00:00:00:00:01",
        "0123456789abcdef0123456789abcdef",
        "01234567-89ab-cdef-0123-456789abcdef",
        "22,80-90",
        "role=web AND account=shop",
        "tag='a b' AND env!=\"x\" OR account=0123456789abcdef0123456789abcdef",
        "10.0.0.0/8,10.1.2.3-10.1.2.9,192.0.2.1",
        "fd00::/64,fe80::1-fe80::9",
    ];
    all.map(|text| text.as_bytes().to_vec()).to_vec()
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_bytes_make_a_parser_panic() {
        damage::check(super::TARGETS);
    }
}
