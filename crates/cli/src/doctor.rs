//! `netloom doctor`: whether everything that is allocated is referenced, and the reverse.

use serde_json::{Map, Value};

use crate::{
    Connection, Error,
    output::{Format, Manner},
    table,
};

/// Asks the server.
pub(crate) fn run(connection: &Connection, manner: &Manner) -> Result<(), Error> {
    let ask = |client: &client::Client| Ok(client.call("GetDoctorReport", Map::new(), &[])?);
    tell(&connection.with(ask)?, manner)
}

/// Prints a report, wherever it comes from.
pub(crate) fn tell(report: &Value, manner: &Manner) -> Result<(), Error> {
    match manner.output {
        Some(Format::Json | Format::Yaml) => manner.show_answer(report)?,
        _ => crate::print(&text(report))?,
    }
    match report["total"].as_u64() {
        Some(0) => Ok(()),
        total => Err(Error::Unsound(total.unwrap_or_default())),
    }
}

/// For people.
fn text(report: &Value) -> String {
    let findings = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = findings.iter().map(line).collect();
    let (total, named) = (report["total"].as_u64().unwrap_or_default(), findings.len() as u64);
    if total > named {
        lines.push(format!("and {} more", total - named));
    }
    let (rows, revision) = (&report["rows"], &report["revision"]);
    let looked = format!("looked at {rows} rows, at revision {revision}");
    lines.push(match total {
        0 => format!("{looked}: what is allocated is referenced, both ways"),
        _ => format!("{looked}: {total} findings; report them, with the server's log"),
    });
    lines.join("\n")
}

fn line(finding: &Value) -> String {
    let word = |key: &str| finding[key].as_str().unwrap_or_default();
    let (kind, uuid) = (word("resourceType"), word("resourceUuid"));
    format!("{} {kind} {uuid}: {}", word("rule"), table::harmless(word("text")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_finding_is_a_line_and_what_is_left_out_is_counted() {
        let finding = json!({
            "rule": "Address", "resourceType": "UsedIpVO", "resourceUuid": "u1", "text": "leaks",
        });
        let mut report = json!({"rows": 7, "revision": 9, "total": 3, "findings": [finding]});
        let expected = "\
Address UsedIpVO u1: leaks
and 2 more
looked at 7 rows, at revision 9: 3 findings; report them, with the server's log";
        assert_eq!(text(&report), expected);
        (report["total"], report["findings"]) = (json!(0), json!([]));
        assert!(text(&report).ends_with("both ways"), "{}", text(&report));
    }
}
