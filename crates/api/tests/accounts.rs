//! Passwords over REST: changed, guessed, and what becomes of sessions.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::{
    io::{Read, Write},
    time::Instant,
};

use client::{Client, Error};
use model::resource::account::ADMIN;
use netloom_api::Limits;
use serde_json::{Map, Value, json};
use support::{PASSWORD, PATIENCE, Running};

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn update(client: &Client, mut fields: Value) -> Result<Value, Error> {
    fields["uuid"] = ADMIN.simple().to_string().into();
    client.call("UpdateAccount", object(fields), &[])
}

fn client(running: &Running) -> Client {
    Client::new(&format!("http://{}", running.address))
}

fn blamed(result: Result<Value, Error>) -> String {
    match result.unwrap_err() {
        Error::Refused { field: Some(field), hint: Some(_), .. } => field,
        other => panic!("names no field, or no hint: {other}"),
    }
}

#[test]
fn a_new_password_counts_at_once_and_ends_the_other_sessions() {
    let running = Running::start(Limits::default());
    let (own, other) = (running.log_in(), running.log_in());
    let old = control::account::client_digest(PASSWORD);
    let new = control::account::client_digest("battery staple");
    let shown = update(&own, json!({"description": "the operators"})).unwrap();
    assert_eq!(shown["inventory"]["description"], "the operators");
    other.query("/zones", &[]).unwrap();
    let shown = update(&own, json!({"password": new, "oldPassword": old})).unwrap();
    assert_eq!(shown["inventory"]["name"], "admin");
    assert!(!shown.to_string().contains("argon2"), "{shown}");
    own.query("/zones", &[]).unwrap();
    let refused = other.query("/zones", &[]).unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "ID.1001"), "{refused}");
    assert!(client(&running).log_in("admin", PASSWORD).is_err());
    client(&running).log_in("admin", "battery staple").unwrap();
}

#[test]
fn what_is_no_digest_or_not_the_present_password_changes_nothing() {
    let running = Running::start(Limits::default());
    let (own, other) = (running.log_in(), running.log_in());
    let new = control::account::client_digest("battery staple");
    assert_eq!(blamed(update(&own, json!({"password": "battery staple"}))), "password");
    assert_eq!(blamed(update(&own, json!({"password": ""}))), "password");
    let wrong = json!({"password": new, "oldPassword": new});
    assert_eq!(blamed(update(&own, wrong)), "oldPassword");
    assert_eq!(blamed(update(&own, json!({"password": new, "name": "root"}))), "name");
    other.query("/zones", &[]).unwrap();
    running.log_in();
}

/// A login as a proxy would pass it on: its status, and all that came.
fn pass_on(running: &Running, forwarded_for: &str, password: &str) -> (String, String) {
    let digest = control::account::client_digest(password);
    let body = json!({"logInByAccount": {"accountName": "admin", "password": digest}}).to_string();
    let head = format!(
        "PUT /v1/accounts/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         X-Forwarded-For: {forwarded_for}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = running.open(&head);
    stream.write_all(body.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (text.split(' ').nth(1).unwrap().to_owned(), text)
}

#[test]
fn whoever_guesses_is_refused_and_nobody_else_is() {
    let limits = Limits { believe_forwarded_for: true, ..Limits::default() };
    let running = Running::start(limits);
    let guesser = "10.9.9.9, 192.0.2.1";
    let refused = (0..8).find_map(|_| {
        let (_, text) = pass_on(&running, guesser, "wrong");
        text.contains("NL.1007").then_some(text)
    });
    let refused = refused.expect("guesses go on");
    assert!(refused.contains("try again in") && refused.contains("192.0.2.1"), "{refused}");
    let (status, text) = pass_on(&running, guesser, PASSWORD);
    assert_eq!(status, "503", "a right guess does not show either: {text}");
    assert_eq!(pass_on(&running, "192.0.2.1, 192.0.2.7", PASSWORD).0, "200");
    running.log_in();
}

#[test]
fn invented_sources_do_not_help_unless_a_proxy_is_believed() {
    let running = Running::start(Limits::default());
    let refused =
        (0..8).any(|n| pass_on(&running, &format!("192.0.2.{n}"), "wrong").1.contains("NL.1007"));
    assert!(refused, "guesses go on");
    // On loopback the wait is short, because others share it.
    let started = Instant::now();
    while client(&running).log_in("admin", PASSWORD).is_err() {
        assert!(started.elapsed() < PATIENCE, "kept out");
    }
}

/// A client of a new account with this name.
fn tenant(running: &Running, name: &str) -> Client {
    let digest = control::account::client_digest(PASSWORD);
    let account = json!({"name": name, "password": digest});
    let made = running.log_in().call("CreateAccount", object(account), &[]).unwrap();
    assert_eq!(made["inventory"]["type"], "Normal");
    assert!(!made.to_string().contains(&digest) && !made.to_string().contains("argon2"), "{made}");
    let mut client = client(running);
    client.log_in(name, PASSWORD).unwrap();
    client
}

#[test]
fn an_account_is_made_sees_itself_alone_and_is_gone_with_its_sessions() {
    let running = Running::start(Limits::default());
    let (admin, red) = (running.log_in(), tenant(&running, "red"));
    tenant(&running, "blue");
    let seen = red.query("/accounts", &[]).unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0]["name"], "red");
    let quotas = red.query("/accounts/quotas", &["name=l3.num".into()]).unwrap();
    assert_eq!(quotas[0]["value"], 20, "{quotas:?}");
    let digest = control::account::client_digest(PASSWORD);
    let again = json!({"name": "red", "password": digest});
    assert_eq!(blamed(admin.call("CreateAccount", object(again), &[])), "name");
    let plain = json!({"name": "green", "password": PASSWORD});
    assert_eq!(blamed(admin.call("CreateAccount", object(plain), &[])), "password");
    let uuid = seen[0]["uuid"].clone();
    admin.call("DeleteAccount", object(json!({"uuid": uuid})), &[]).unwrap();
    let refused = red.query("/accounts", &[]).unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "ID.1001"), "{refused}");
    assert!(client(&running).log_in("red", PASSWORD).is_err());
}

#[test]
fn a_name_that_is_taken_does_not_tell_by_whom() {
    let running = Running::start(Limits::default());
    let red = tenant(&running, "red");
    let uuid = red.query("/accounts", &[]).unwrap()[0]["uuid"].clone();
    let digest = control::account::client_digest(PASSWORD);
    let rename = json!({"uuid": uuid, "name": "admin", "oldPassword": digest});
    let refused = red.call("UpdateAccount", object(rename), &[]).unwrap_err();
    assert!(!refused.to_string().contains(&ADMIN.simple().to_string()), "{refused}");
    assert!(refused.to_string().contains("is taken"), "{refused}");
}

#[test]
fn an_account_is_told_what_it_may_send() {
    let running = Running::start(Limits::default());
    let red = tenant(&running, "red");
    let names = json!({"apiNames": ["CreateZone", "APICreateL3NetworkMsg", "QueryZone"]});
    let told = red.call("CheckApiPermission", object(names), &[]).unwrap();
    let expected =
        json!({"CreateZone": "Deny", "APICreateL3NetworkMsg": "Allow", "QueryZone": "Allow"});
    assert_eq!(told["inventory"], expected);
    let unknown = json!({"apiNames": ["CreateNothing"]});
    assert_eq!(blamed(red.call("CheckApiPermission", object(unknown), &[])), "apiNames");
    let refused = red.call("CreateAccount", object(json!({"name": "x", "password": "y"})), &[]);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "ID.1002"), "{refused}");
}

#[test]
fn a_session_is_renewed_by_a_call_of_its_own_alone() {
    let running = Running::start(Limits::default());
    let (admin, red) = (running.log_in(), tenant(&running, "red"));
    let own = admin.session().unwrap().to_owned();
    let renew = |client: &Client| {
        let fields = json!({"sessionUuid": own, "duration": 86400});
        client.call("RenewSession", object(fields), &[])
    };
    assert_eq!(blamed(renew(&red)), "sessionUuid");
    let renewed = renew(&admin).unwrap();
    assert_eq!(renewed["inventory"]["uuid"], own);
    // The door's clock stands at Nov 14, 2017, 22:20:57.
    assert_eq!(renewed["inventory"]["expiredDate"], "Nov 15, 2017 10:20:57 PM");
}

#[test]
fn settings_of_sessions_and_jobs_take_effect() {
    let running = Running::start(Limits::default());
    let admin = running.log_in();
    let set = |category: &str, name: &str, value: &str| {
        let fields = json!({"category": category, "name": name, "value": value});
        admin.call("UpdateGlobalConfig", object(fields), &[]).unwrap()
    };
    let shown = set("identity", "session.timeout", "60");
    assert_eq!(shown["inventory"]["defaultValue"], "7200");
    set("identity", "session.maxConcurrent", "2");
    set("rest", "api.timeout", "77");
    let (first, second) = (running.log_in(), running.log_in());
    first.query("/zones", &[]).unwrap();
    second.query("/zones", &[]).unwrap();
    assert!(admin.query("/zones", &[]).is_err(), "two sessions at most");
    let own = json!({"sessionUuid": second.session().unwrap()});
    let renewed = second.call("RenewSession", object(own), &[]).unwrap();
    assert_eq!(renewed["inventory"]["expiredDate"], "Nov 14, 2017 10:21:57 PM");
    let body = json!({"params": {"name": "zone"}}).to_string();
    let head = format!(
        "POST /v1/zones HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: OAuth {}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        second.session().unwrap(),
        body.len()
    );
    let mut answer = String::new();
    running.open(&head).read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"apiTimeout\":77000"), "{answer}");
}

/// The status line of a signed request for the zones.
fn signed(running: &Running, key: &Value, path: &str, date: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use hmac::{Hmac, KeyInit, Mac};
    let secret = key["AccessKeySecret"].as_str().unwrap();
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("GET\n{date}\n/v1/zones").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let id = key["AccessKeyID"].as_str().unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nDate: {date}\r\n\
         Authorization: ZStack {id}:{signature}\r\n\r\n"
    );
    let mut answer = String::new();
    running.open(&head).read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_signed_call_is_its_accounts_while_its_date_and_its_key_are_good() {
    const NOW: &str = "Tue, 14 Nov 2017 22:20:57 GMT";
    let running = Running::start(Limits::default());
    let (admin, red) = (running.log_in(), tenant(&running, "red"));
    admin.call("CreateZone", object(json!({"name": "zone"})), &[]).unwrap();
    let made = admin.call("CreateAccessKey", Map::new(), &[]).unwrap()["inventory"].clone();
    for path in ["/v1/zones", "/zstack/v1/zones", "/v1/zones?limit=5"] {
        let answer = signed(&running, &made, path, NOW);
        assert!(answer.contains("200 OK") && answer.contains("\"zone\""), "{answer}");
    }
    let of_another_path = signed(&running, &made, "/v1/clusters", NOW);
    assert!(of_another_path.contains("ID.1000"), "{of_another_path}");
    for (date, status) in [
        ("Tue, 14 Nov 2017 22:36:00 GMT", "403"),
        ("Tue, 14 Nov 2017 22:05:00 GMT", "403"),
        ("Tue, 14 Nov 2017 22:30:00 GMT", "200"),
        ("yesterday", "400"),
    ] {
        let answer = signed(&running, &made, "/v1/zones", date);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{date}: {answer}");
    }
    let own = red.call("CreateAccessKey", Map::new(), &[]).unwrap()["inventory"].clone();
    let answer = signed(&running, &own, "/v1/zones", NOW);
    assert!(answer.contains("200 OK") && !answer.contains("\"zone\""), "{answer}");
    let shown = admin.query("/accesskeys", &[]).unwrap();
    assert_eq!(shown.len(), 2);
    assert!(shown.iter().all(|key| key.get("secret").is_none()), "{shown:?}");
    assert_eq!(red.query("/accesskeys", &[]).unwrap().len(), 1);
    let others = json!({"accountUuid": ADMIN.simple().to_string()});
    assert_eq!(blamed(red.call("CreateAccessKey", object(others), &[])), "accountUuid");
    let uuid = json!({"uuid": made["uuid"]});
    red.call("DeleteAccessKey", object(uuid.clone()), &[]).unwrap();
    assert!(signed(&running, &made, "/v1/zones", NOW).contains("200 OK"), "it is not red's");
    admin.call("DeleteAccessKey", object(uuid), &[]).unwrap();
    let answer = signed(&running, &made, "/v1/zones", NOW);
    assert!(answer.contains("ID.1000"), "{answer}");
}

#[test]
fn an_account_has_few_access_keys() {
    let running = Running::start(Limits::default());
    let red = tenant(&running, "red");
    for _ in 0..10 {
        red.call("CreateAccessKey", Map::new(), &[]).unwrap();
    }
    let refused = red.call("CreateAccessKey", Map::new(), &[]).unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "SYS.1006"), "{refused}");
}

#[test]
fn each_way_to_log_in_opens_a_session_or_says_what_does() {
    let running = Running::start(Limits::default());
    let digest = control::account::client_digest(PASSWORD);
    let client = client(&running);
    let fields = json!({"username": "admin", "password": digest, "loginType": "account"});
    let opened = client.call("LogIn", object(fields.clone()), &[]).unwrap();
    assert_eq!(opened["inventory"]["accountUuid"], ADMIN.simple().to_string());
    let mut other = fields;
    other["loginType"] = "ldap".into();
    assert_eq!(blamed(client.call("LogIn", object(other), &[])), "loginType");
    let user = json!({"userName": "u", "accountName": "admin", "password": digest});
    let refused = client.call("LogInByUser", object(user.clone()), &[]).unwrap_err();
    assert!(matches!(refused, Error::Refused { ref code, .. } if code == "ID.1000"), "{refused}");
    let made = json!({"name": "u", "password": digest});
    running.log_in().call("CreateUser", object(made), &[]).unwrap();
    let opened = client.call("LogInByUser", object(user), &[]).unwrap();
    assert_eq!(opened["inventory"]["accountUuid"], ADMIN.simple().to_string());
    assert_eq!(opened["inventory"]["userType"], "User");
}

#[test]
fn what_was_refused_and_who_logged_in_is_in_the_audit() {
    let running = Running::start(Limits::default());
    let (admin, red) = (running.log_in(), tenant(&running, "red"));
    red.call("CreateZone", object(json!({"name": "z"})), &[]).unwrap_err();
    admin.call("CreateZone", object(json!({"name": " "})), &[]).unwrap_err();
    admin.call("CreateAccount", object(json!({"name": "x", "password": "y"})), &[]).unwrap_err();
    client(&running).log_in("red", "wrong").unwrap_err();
    let rows = admin.query("/audits", &[]).unwrap();
    let count = |message: &str, outcome: &str| {
        let is_it = |row: &&Value| row["message"] == message && row["outcome"] == outcome;
        rows.iter().filter(is_it).count()
    };
    assert_eq!(count("CreateZone", "ID.1002"), 1, "{rows:?}");
    assert_eq!(count("CreateZone", "SYS.1007"), 1, "{rows:?}");
    assert_eq!(count("CreateAccount", "SYS.1007"), 1, "{rows:?}");
    assert_eq!(count("LogInByAccount", "ID.1000"), 1, "{rows:?}");
    assert!(count("LogInByAccount", "SUCCESS") >= 2, "{rows:?}");
    red.query("/audits", &[]).map(|seen| assert!(seen.is_empty())).unwrap();
}
