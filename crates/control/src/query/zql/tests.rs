//! What statements find and cost, and what is refused.

use serde_json::{Value, json};

use super::{answers, syntax};
use crate::{
    inventory::Observed,
    invisible,
    query::{
        Bounds, LOOKS_MAX, SHOWN_MAX, Scope,
        fixture::{Cloud, account, board},
    },
};

const CLOUD: Cloud = Cloud { nics: 400, nics_per_network: 100 };

/// The answers, and how many rows were looked at.
fn looked(text: &str, scope: Scope) -> (model::Result<Vec<Value>>, u64) {
    let (snapshot, board) = (CLOUD.store().snapshot(), board());
    let view = Observed::new(&snapshot, &board);
    let found = answers(text, scope, (&view, Bounds { looks: LOOKS_MAX, shown: SHOWN_MAX }));
    (found, view.looks())
}

fn ask(text: &str) -> Vec<Value> {
    looked(text, Scope::Everything).0.unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The names of what a statement finds, in their order.
fn names(text: &str) -> Vec<String> {
    let found = ask(text).remove(0);
    let rows = found["inventories"].as_array().unwrap().iter();
    rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn and_binds_tighter_than_or_and_parentheses_bind_tightest() {
    for (conditions, expected) in [
        ("name = 'vm-1'", "vm-1"),
        ("name = 'vm-1' or name = \"vm-2\"", "vm-1 vm-2"),
        ("name = 'vm-1' or name = 'vm-2' and name != 'vm-2'", "vm-1"),
        ("(name = 'vm-1' or name = 'vm-2') and name != 'vm-1'", "vm-2"),
        ("name in ('vm-3', 'vm-4') and name not in ('vm-4')", "vm-3"),
        (
            "name like 'vm-19%' and name not like '%9'",
            "vm-190 vm-191 vm-192 vm-193 vm-194 vm-195 vm-196 vm-197 vm-198",
        ),
        (
            "vmNics.ip = '10.0.0.1' and (name = 'vm-0' or vmNics.l3Network.name = 'l3-1')",
            "vm-0 vm-50",
        ),
        ("name >= 'vm-98' AND name is not null and description is null", "vm-98"),
    ] {
        let text = format!("query vminstance where {conditions} order by name asc");
        let mut wanted: Vec<&str> = expected.split(' ').collect();
        wanted.sort_unstable();
        let found = names(&text);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, wanted, "{text}");
    }
}

#[test]
fn a_sub_query_gives_the_values_of_a_list() {
    let text = "query l3network.name where uuid in (query vmnic.l3NetworkUuid where \
                vmInstanceUuid in (query vminstance.uuid where name = 'vm-50')) order by name asc";
    assert_eq!(names(text), ["l3-1"]);
    let text = "query l3network.name where uuid not in \
                (query vmnic.l3NetworkUuid where vmInstance.name = 'vm-50') order by name asc";
    assert_eq!(names(text), ["l3-0", "l3-2", "l3-3"]);
    assert_eq!(
        names("query zone.name where uuid in (query zone.uuid where name = 'none')"),
        [""; 0]
    );
}

#[test]
fn statements_count_sum_group_page_and_have_names() {
    let found = ask(
        "count vmnic; query vminstance.name return with (total) order by name desc limit 1 offset 1 \
         named as 'page'; query distinct(vmnic.l3NetworkUuid); count vmnic group by l3NetworkUuid;",
    );
    assert_eq!(found[0], json!({"total": 400}));
    assert_eq!(found[1], json!({"inventories": [{"name": "vm-98"}], "total": 200, "name": "page"}));
    assert_eq!(found[2]["inventories"].as_array().unwrap().len(), 4);
    assert_eq!(found[3], json!({"total": 4}));
    let sum = ask("sum vmnic.deviceId by l3NetworkUuid").remove(0);
    let rows = sum["inventories"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["deviceId"] == 50 && row["l3NetworkUuid"].is_string()));
}

#[test]
fn each_way_of_an_or_is_found_by_its_index() {
    for (text, most) in [
        ("count vminstance where name = 'vm-1' or name = 'vm-2'", 10),
        (
            "count vmnic where mac = 'fa:4c:00:00:00:07' or (l3Network.name = 'l3-1' and mac = 'fa:4c:00:00:00:08')",
            20,
        ),
        ("count vminstance where name = 'vm-1' or vmNics.ip = '10.0.0.1'", 60),
        (
            "count vminstance where uuid in (query vmnic.vmInstanceUuid where mac = 'fa:4c:00:00:00:07')",
            10,
        ),
    ] {
        let (found, looks) = looked(text, Scope::Everything);
        assert!(found.unwrap()[0]["total"].as_u64() > Some(0), "{text}");
        assert!(looks <= most, "{text}: {looks} rows");
    }
}

#[test]
fn nobody_sees_more_by_it() {
    let (mine, _) = looked("count vmnic", Scope::SeenBy(account(0)));
    let (hidden, _) = looked(
        "count vminstance where uuid in (query vmnic.vmInstanceUuid) or zone.name like '%'",
        Scope::SeenBy(account(0)),
    );
    let (all, _) = looked("count vminstance", Scope::SeenBy(account(0)));
    assert!(mine.unwrap()[0]["total"].as_u64() < Some(400));
    assert!(hidden.unwrap()[0]["total"].as_u64() <= all.unwrap()[0]["total"].as_u64());
}

#[test]
fn all_statements_of_a_text_share_one_bound() {
    let (snapshot, board) = (CLOUD.store().snapshot(), board());
    let view = Observed::new(&snapshot, &board);
    let bounds = Bounds { looks: 300, shown: SHOWN_MAX };
    let one = "count vminstance where description is null";
    answers(one, Scope::Everything, (&view, bounds)).unwrap();
    let error = answers(one, Scope::Everything, (&view, bounds)).unwrap_err();
    assert!(error.message.contains("looks at more than 300"), "{error}");
}

#[test]
fn many_conditions_on_one_row_count_as_looks() {
    let few = "count vminstance where description is null or state is null";
    let many = format!("{few}{}", " or description = 'x'".repeat(80));
    let (few, many) = (looked(few, Scope::Everything).1, looked(&many, Scope::Everything).1);
    assert!(many > 2 * few, "{few} and {many} looks for 200 rows");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, says) in [
        ("", "at character 1"),
        ("drop vminstance", "query, count or sum"),
        ("query", "a resource"),
        ("query colour", "no resource colour"),
        ("query vminstance where", "a field"),
        ("query vminstance where name", "an operator"),
        ("query vminstance where name = ", "a text in quotes"),
        ("query vminstance where name = 'a' and", "at character"),
        ("query vminstance where (name = 'a'", "closing parenthesis"),
        ("query vminstance where name = 'a", "a text in quotes"),
        ("query vminstance where colour = 'a'", "no field colour"),
        ("query vminstance where name = (query zone.name)", "goes with in"),
        ("query vminstance where name in (query zone)", "one field"),
        ("query vminstance.colour", "no field colour"),
        ("query vminstance limit x", "a whole number"),
        ("query vminstance limit 99999999999999999999999", "too large"),
        ("query vminstance limit 99999", "more than 10000"),
        ("query vminstance order by name, uuid", "one field"),
        ("query vminstance return with (colour)", "not known"),
        ("query vminstance filter by a{b}", "the end of the statement"),
        ("sum vmnic.deviceId", "groups"),
        ("query vminstance query zone", "the end of the statement"),
    ] {
        let error = looked(text, Scope::Everything).0.expect_err(text);
        assert!(error.to_string().contains(says), "{text}: {error}");
        assert!(error.hint.is_some(), "{text}");
    }
}

#[test]
fn white_space_of_all_kinds_parts_words_and_texts_have_nothing_that_is_not_seen() {
    let lines = "query\n\tvminstance\r\n\u{a0}where\u{3000}name =\u{2028}'vm-1'\n;\ncount zone\n";
    assert_eq!(ask(lines)[0]["inventories"][0]["name"], "vm-1");
    for hidden in ['\n', '\t', '\u{200b}', '\u{202e}'] {
        for quote in ['\'', '"'] {
            let text = format!("query vminstance where name = {quote}vm-1{hidden}{quote}");
            let error = looked(&text, Scope::Everything).0.expect_err(&text);
            assert!(error.message.contains("can all be seen"), "{error}");
            assert!(invisible::first(&error.message).is_none(), "{error}");
        }
    }
    looked("query vminst\u{200b}ance", Scope::Everything).0.unwrap_err();
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |depth: usize| {
        format!("query zone where {}name = 'a'{}", "(".repeat(depth), ")".repeat(depth))
    };
    syntax::parse(&nested(32)).unwrap();
    let error = syntax::parse(&nested(33)).unwrap_err();
    assert!(error.message.contains("32 levels"), "{error}");
    syntax::parse(&nested(30_000)).unwrap_err();
    let subs =
        "query zone where uuid in (".to_owned() + &"query zone.uuid where uuid in (".repeat(2_000);
    syntax::parse(&subs).unwrap_err();
    let many = |count: usize| "count zone;".repeat(count);
    syntax::parse(&many(syntax::STATEMENTS_MAX)).unwrap();
    syntax::parse(&many(syntax::STATEMENTS_MAX + 1)).unwrap_err();
}
