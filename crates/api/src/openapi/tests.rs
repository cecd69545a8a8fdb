//! The document that is served, and what it says.

use std::fs;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");

#[test]
fn the_document_is_the_one_that_was_looked_at() {
    let text = format!("{:#}\n", document());
    if std::env::var("NETLOOM_RENEW").is_ok_and(|value| value == "1") {
        fs::write(GOLDEN, &text).unwrap();
    }
    let golden = fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(golden == text, "{GOLDEN} is old: run this test with NETLOOM_RENEW=1 and look at it");
}

#[test]
fn every_message_and_every_face_is_in_it_once() {
    let document = document();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().values());
    let summaries: Vec<&str> =
        operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let ids: Vec<&str> = summaries.iter().flat_map(|id| id.split('_')).collect();
    for def in messages() {
        assert_eq!(ids.iter().filter(|id| **id == def.name).count(), 1, "{}", def.name);
    }
    for (_, face) in faces() {
        let name = format!("Query{}", face.name);
        assert_eq!(summaries.iter().filter(|id| **id == name).count(), 1, "{name}");
    }
}

#[test]
fn the_parameters_of_a_path_are_those_in_its_name() {
    for (path, methods) in document()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let declared = operation["parameters"].as_array().unwrap().iter();
            let declared = declared.filter(|parameter| parameter["in"] == "path");
            let declared: Vec<_> = declared.filter_map(|one| one["name"].as_str()).collect();
            let named: Vec<_> = variables(path).collect();
            assert_eq!(declared, named, "{method} {path}");
        }
    }
}

#[test]
fn a_type_is_a_word_or_a_list_of_words() {
    fn walk(at: &Value) {
        match at {
            Value::Object(members) => {
                if let Some(Value::Array(types)) = members.get("type") {
                    assert!(types.iter().all(Value::is_string), "{at}");
                }
                members.values().for_each(walk);
            }
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    walk(&document());
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(at: &Value, root: &Value) {
        match at {
            Value::Object(members) => {
                if let Some(Value::String(to)) = members.get("$ref") {
                    assert!(root.pointer(&to[1..]).is_some(), "{to}");
                }
                members.values().for_each(|value| walk(value, root));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, root)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}
