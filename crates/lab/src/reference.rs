//! References in topology files, `$host.<name>.ip` and `$underlay.cidr`, also inside longer texts.

use std::collections::BTreeMap;

use serde_json::Value;

/// What can be referred to, for errors.
const KNOWN: &str =
    "there are $host.<name>.ip and $underlay.cidr; resources are called by their names";

/// Fills in every reference in the texts of `value`. `$$` stands for a dollar sign.
///
/// # Errors
/// The first reference that leads nowhere, as text.
pub(crate) fn fill(value: Value, known: &BTreeMap<String, String>) -> Result<Value, String> {
    match value {
        Value::String(text) => fill_text(&text, known).map(Value::String),
        Value::Array(items) => items.into_iter().map(|item| fill(item, known)).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            fields.map(|(key, item)| Ok((key, fill(item, known)?))).collect()
        }
        other => Ok(other),
    }
}

fn fill_text(text: &str, known: &BTreeMap<String, String>) -> Result<String, String> {
    let mut pieces = text.split('$');
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    while let Some(piece) = pieces.next() {
        if piece.is_empty() {
            let Some(literal) = pieces.next() else { return Err(dangling(text)) };
            filled.push('$');
            filled.push_str(literal);
            continue;
        }
        let end = piece.find(|c: char| !is_of_name(c)).unwrap_or(piece.len());
        // A dot ends a sentence as well as it joins the parts of a name.
        let name = piece[..end].trim_end_matches('.');
        if name.is_empty() {
            return Err(dangling(text));
        }
        let Some(value) = known.get(name) else {
            return Err(format!("${name}: nothing of this name is known; {KNOWN}"));
        };
        filled.push_str(value);
        filled.push_str(&piece[name.len()..]);
    }
    Ok(filled)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn dangling(text: &str) -> String {
    format!("{text:?}: a $ without a name; $$ stands for a dollar sign")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let known = [("red-l3", "aa"), ("underlay.cidr", "1.2.3.0/24")];
        let known = known.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        match (fill_text(text, &known), expected) {
            (Ok(filled), Ok(expected)) => assert_eq!(filled, expected),
            (Err(problem), Err(part)) => assert!(problem.contains(part), "{problem}"),
            (seen, expected) => panic!("{text}: {seen:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn references_are_filled_in_also_inside_texts() {
        check("$red-l3", Ok("aa"));
        check("staticIp::$red-l3::10.0.0.11", Ok("staticIp::aa::10.0.0.11"));
        check("cidr::{$underlay.cidr}", Ok("cidr::{1.2.3.0/24}"));
        check("$red-l3$red-l3.", Ok("aaaa."));
        check("none", Ok("none"));
        check("$$red-l3 and $$", Ok("$red-l3 and $"));
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_refused() {
        check("$red", Err("$red: nothing of this name"));
        check("a $ b", Err("without a name"));
        check("a $", Err("without a name"));
    }
}
