//! The stream of what changes: who is told what, from where on, and what becomes of slow readers.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    time::{Duration, Instant},
};

use client::Client;
use model::{
    Id, Kind, Meta, Record, Resource, Timestamp,
    resource::{
        account::{ADMIN, Account},
        zone::{EnableState, Zone, ZoneType},
    },
};
use netloom_api::Limits;
use serde_json::{Map, Value, json};
use store::{Engine, Store, Tx};
use support::{PATIENCE, Running};
use uuid::Uuid;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// An event: its name, its id, its data.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    name: String,
    id: Option<u64>,
    data: Value,
}

/// A stream as a client reads it.
struct Following(BufReader<Box<dyn Read>>);

impl Following {
    fn new(running: &Running, session: &str, query: &str, last: Option<u64>) -> Self {
        let (status, body) = ask(running, session, query, last);
        assert_eq!(status, 200);
        Self(BufReader::new(body))
    }

    /// The next event, beats included; `None` at an orderly end.
    fn next(&mut self) -> Option<Told> {
        let mut told = Told::default();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => told.name = name.to_owned(),
                Some(("id", id)) => told.id = Some(id.parse().unwrap()),
                Some(("data", data)) => told.data = serde_json::from_str(data).unwrap(),
                None if line.trim_end().is_empty() => return Some(told),
                _ => panic!("not a line of an event: {line}"),
            }
        }
    }

    /// The next one that is no beat.
    fn event(&mut self) -> Told {
        std::iter::from_fn(|| self.next()).find(|told| !told.name.is_empty()).unwrap()
    }

    /// What has changed next: of each change what it is, the type and the uuid.
    fn changes(&mut self) -> Vec<(String, String, Uuid)> {
        let told = self.event();
        assert_eq!(told.name, "changes", "{told:?}");
        let changes = told.data["changes"].as_array().unwrap();
        let word = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
        let uuid = |change: &Value| model::id::parse_uuid(change["uuid"].as_str().unwrap());
        let of = |it| (word(it, "change"), word(it, "resourceType"), uuid(it).unwrap());
        changes.iter().map(of).collect()
    }
}

fn ask(running: &Running, session: &str, query: &str, last: Option<u64>) -> (u16, Box<dyn Read>) {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent: ureq::Agent = config.build().into();
    let mut request = ureq::http::Request::builder()
        .uri(format!("http://{}/zstack/v1/events{query}", running.address))
        .header("authorization", format!("OAuth {session}"));
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let answer = agent.run(request.body(()).unwrap()).unwrap();
    (answer.status().as_u16(), Box::new(answer.into_body().into_reader()))
}

fn text((status, mut body): (u16, Box<dyn Read>)) -> (u16, String) {
    let mut text = String::new();
    body.read_to_string(&mut text).unwrap();
    (status, text)
}

fn session(client: &Client) -> String {
    client.session().unwrap().to_owned()
}

/// An account that is no administrator, and its client.
fn tenant(running: &Running, admin: &Client, name: &str) -> (Id<Account>, Client) {
    let digest = control::account::client_digest("correct horse");
    let fields = object(json!({"name": name, "password": digest}));
    let made = admin.call("CreateAccount", fields, &[]).unwrap();
    let mut client = Client::new(&format!("http://{}", running.address));
    client.log_in(name, "correct horse").unwrap();
    (made["inventory"]["uuid"].as_str().unwrap().parse().unwrap(), client)
}

/// A zone that somebody owns, straight into the store.
fn zone(number: u128, owner: Id<Account>) -> Record {
    let zone = Zone {
        uuid: Id::new(Uuid::from_u128(number)),
        name: format!("z{number}"),
        description: None,
        state: EnableState::Enabled,
        zone_type: ZoneType::Zstack,
        is_default: false,
    };
    let now = Timestamp(1_510_698_057_000);
    Record::new(zone, Meta { owner: Some(owner), created: now, changed: now })
}

/// Puts rows in one transaction; gives the revision.
fn put(running: &Running, rows: Vec<Record>) -> u64 {
    let put = move |tx: &mut Tx<Record>| {
        rows.iter().for_each(|row| tx.put(row.clone()).unwrap());
        Ok(())
    };
    running.store.transact(put).unwrap().revision
}

fn delete(running: &Running, number: u128) {
    let uuid = Uuid::from_u128(number);
    let delete = move |tx: &mut Tx<Record>| {
        tx.delete(Kind::Zone, uuid);
        Ok(())
    };
    running.store.transact(delete).unwrap();
}

fn change(what: &str, number: u128) -> (String, String, Uuid) {
    (what.to_owned(), "ZoneVO".to_owned(), Uuid::from_u128(number))
}

const ROOT: Id<Account> = Id::new(ADMIN);

#[test]
fn a_client_that_comes_back_is_told_what_it_missed_once_and_in_order() {
    let running = Running::start(Limits::default());
    let admin = running.log_in();
    let mut first = Following::new(&running, &session(&admin), "", None);
    let start = first.event();
    assert_eq!((start.name.as_str(), start.id), ("start", start.data["revision"].as_u64()));
    put(&running, vec![zone(1, ROOT)]);
    let told = first.event();
    assert_eq!(told.data["changes"][0]["inventory"]["name"], "z1", "{told:?}");
    assert_eq!(told.id, told.data["revision"].as_u64());
    drop(first);
    put(&running, vec![zone(2, ROOT), zone(3, ROOT)]);
    delete(&running, 2);
    let query = format!("?after={}", told.id.unwrap());
    // A browser's client asks for the same address again, and says what it has seen since.
    for (query, last) in [(query.as_str(), None), ("?after=1", told.id)] {
        let mut again = Following::new(&running, &session(&admin), query, last);
        assert_eq!(again.event().id, told.id);
        assert_eq!(again.changes(), [change("created", 2), change("created", 3)]);
        assert_eq!(again.changes(), [change("deleted", 2)]);
    }
    let mut again = Following::new(&running, &session(&admin), "", None);
    assert_eq!(again.event().name, "start");
    put(&running, vec![zone(4, ROOT)]);
    assert_eq!(again.changes(), [change("created", 4)]);
}

#[test]
fn an_account_is_told_of_what_it_sees_and_of_nothing_else() {
    let running = Running::start(Limits::default());
    let admin = running.log_in();
    let (red, client) = tenant(&running, &admin, "red");
    let (blue, _) = tenant(&running, &admin, "blue");
    let mut own = Following::new(&running, &session(&client), "", None);
    let mut all = Following::new(&running, &session(&admin), "?resourceType=ZoneVO", None);
    assert_eq!((own.event().name, all.event().name), ("start".to_owned(), "start".to_owned()));
    put(&running, vec![zone(1, ROOT), zone(2, red), zone(3, blue)]);
    put(&running, vec![zone(1, red), zone(2, blue)]);
    delete(&running, 2);
    delete(&running, 3);
    put(&running, vec![zone(4, red)]);
    assert_eq!(own.changes(), [change("created", 2)]);
    assert_eq!(own.changes(), [change("created", 1), change("deleted", 2)]);
    assert_eq!(own.changes(), [change("created", 4)], "nothing of what was not its own");
    assert_eq!(all.changes().len(), 3);
    assert_eq!(all.changes(), [change("updated", 1), change("updated", 2)]);
    assert_eq!(
        [all.changes(), all.changes()].concat(),
        [change("deleted", 2), change("deleted", 3)]
    );
    // What came before is told by the same rules, as far as it is still there.
    let mut later = Following::new(&running, &session(&client), "?after=0", None);
    assert_eq!(later.event().id, Some(0));
    let told: Vec<_> = std::iter::repeat_with(|| later.changes())
        .flatten()
        .filter(|(_, of, _)| of == "ZoneVO")
        .take(4)
        .collect();
    let expected = [("created", 2), ("created", 1), ("deleted", 2), ("created", 4)];
    assert_eq!(told, expected.map(|(what, number)| change(what, number)));
}

#[test]
fn what_was_shared_is_told_until_it_is_gone() {
    let running = Running::start(Limits::default());
    let admin = running.log_in();
    let (red, client) = tenant(&running, &admin, "red");
    let made = |name: &str, fields: Value| {
        let answer = admin.call(name, object(fields), &[]).unwrap();
        answer["inventory"]["uuid"].as_str().unwrap().to_owned()
    };
    let zone = made("CreateZone", json!({"name": "z"}));
    let pool = made("CreateL2VxlanNetworkPool", json!({"name": "p", "zoneUuid": zone}));
    let range = json!({"name": "r", "startVni": 1, "endVni": 9, "l2NetworkUuid": pool});
    made("CreateVniRange", range);
    let l2 = made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": pool}));
    let l3 = made("CreateL3Network", json!({"name": "l3", "l2NetworkUuid": l2}));
    let other = made("CreateL3Network", json!({"name": "other", "l2NetworkUuid": l2}));
    let query = "?resourceType=L3NetworkVO&resourceType=SharedResourceVO";
    let call = |name: &str, fields: Value| drop(admin.call(name, object(fields), &[]).unwrap());
    let rename = |name: &str| call("UpdateL3Network", json!({"uuid": l3, "name": name}));
    let sharing = json!({"resourceUuids": [l3], "accountUuids": [red]});
    let words = |told: Vec<(String, String, Uuid)>| {
        told.into_iter().map(|(what, of, _)| format!("{what} {of}")).collect::<Vec<_>>()
    };
    call("ShareResource", json!({"resourceUuids": [other], "accountUuids": [red]}));
    let mut own = Following::new(&running, &session(&client), query, None);
    assert_eq!(own.event().name, "start");
    // What is shared by the time that it is told, is told. So the stream is past what it must not tell.
    let pass = |own: &mut Following, name: &str| {
        call("UpdateL3Network", json!({"uuid": other, "name": name}));
        let told: Vec<_> = own.changes().into_iter().map(|(_, _, uuid)| uuid).collect();
        assert_eq!(told, [other.parse::<Uuid>().unwrap()]);
    };
    rename("unseen");
    pass(&mut own, "once");
    call("ShareResource", sharing.clone());
    assert_eq!(words(own.changes()), ["created SharedResourceVO"]);
    rename("seen");
    assert_eq!(words(own.changes()), ["updated L3NetworkVO"]);
    call("RevokeResourceSharing", sharing.clone());
    assert_eq!(words(own.changes()), ["deleted SharedResourceVO"]);
    rename("unseen again");
    pass(&mut own, "twice");
    call("ShareResource", sharing);
    assert_eq!(words(own.changes()), ["created SharedResourceVO"]);
    call("DeleteL3Network", json!({"uuid": l3}));
    let mut told = words(own.changes());
    told.sort_unstable();
    assert_eq!(told, ["deleted L3NetworkVO", "deleted SharedResourceVO"]);
}

#[test]
fn a_revision_that_is_not_known_any_more_or_not_yet_is_refused_with_what_to_do() {
    let running = Running::start(Limits::default());
    let session = session(&running.log_in());
    let (status, told) = text(ask(&running, &session, "?after=999999", None));
    let newest = running.store.snapshot().revision();
    assert_eq!(status, 410);
    let expected = format!("read everything anew, and follow from revision {newest}");
    assert!(told.contains(&expected), "{told}");
    assert_eq!(text(ask(&running, &session, "?after=x", None)).0, 400);
    assert_eq!(text(ask(&running, "nobody", "", None)).0, 503, "as without a session anywhere");
    let (status, _) = text(ask(&running, &session, "?resourceType=HostCredentialVO", None));
    assert_eq!(status, 400);
}

#[test]
fn a_client_that_has_missed_something_is_told_so_and_from_where_to_go_on() {
    let running = Running::start(Limits::default());
    let session = session(&running.log_in());
    let mut behind = Following::new(&running, &session, "", None);
    assert_eq!(behind.event().name, "start");
    // Another server writes, and its log is cut before this one has read it.
    let other: Store<Record> = Store::open(Box::new(running.engine.clone())).unwrap();
    running.engine.delay_log();
    for number in 1..4 {
        let row = zone(number, ROOT);
        let put = move |tx: &mut Tx<Record>| {
            tx.put(row.clone()).unwrap();
            Ok(())
        };
        other.transact(put).unwrap();
    }
    let newest = other.snapshot().revision();
    running.engine.clone().compact(newest).unwrap();
    running.engine.show_log();
    assert_eq!(running.store.follow(), Ok(newest));
    let told = behind.event();
    assert_eq!((told.name.as_str(), &told.data["revision"]), ("gone", &json!(newest)));
    assert_eq!(behind.next(), None, "it is the last");
    let mut again = Following::new(&running, &session, &format!("?after={newest}"), None);
    assert_eq!(again.event().id, Some(newest));
    put(&running, vec![zone(4, ROOT)]);
    assert_eq!(again.changes(), [change("created", 4)]);
}

#[test]
fn a_stream_ends_with_its_session_and_following_is_no_use_of_it() {
    let beat = Duration::from_millis(50);
    let running = Running::start(Limits { beat, ..Limits::default() });
    let admin = running.log_in();
    let (red, client) = tenant(&running, &admin, "red");
    let mut own = Following::new(&running, &session(&client), "", None);
    assert_eq!(own.event().name, "start");
    let uuid = session(&client);
    client.call("LogOut", object(json!({"sessionUuid": uuid})), &[]).unwrap();
    put(&running, vec![zone(1, red)]);
    let rest: Vec<Told> = std::iter::from_fn(|| own.next()).collect();
    let last = rest.last().unwrap();
    assert_eq!(last.name, "closed", "{rest:?}");
    assert!(rest.iter().all(|told| told.name != "changes"), "{rest:?}");
}

#[test]
fn a_stream_shows_that_it_lives_and_up_to_where_there_was_nothing() {
    let beat = Duration::from_millis(20);
    // Far shorter than the stream: it is no connection that waits for a request.
    let wait = Duration::from_millis(100);
    let limits =
        Limits { beat, idle_wait: wait, head_wait: wait, body_wait: wait, ..Limits::default() };
    let running = Running::start(limits);
    let admin = running.log_in();
    let (_, client) = tenant(&running, &admin, "red");
    let mut own = Following::new(&running, &session(&client), "", None);
    assert_eq!(own.event().name, "start");
    let revision = put(&running, vec![zone(1, ROOT)]);
    let mut beats = std::iter::from_fn(|| own.next());
    let reached = beats.find(|told| told.id == Some(revision)).unwrap();
    assert_eq!((reached.name.as_str(), reached.data), ("", Value::Null));
    // For longer than a connection at rest keeps its buffers.
    assert_eq!(beats.take(150).filter(|told| told.id == Some(revision)).count(), 150);
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let unread_wait = Duration::from_millis(700);
    let running = Running::start(Limits { unread_wait, ..Limits::default() });
    let session = session(&running.log_in());
    let head =
        format!("GET /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: OAuth {session}\r\n\r\n");
    let silent = running.open(&head);
    silent.peek(&mut [0]).unwrap();
    let taken = || {
        let mut page = String::new();
        let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        running.open(ask).read_to_string(&mut page).unwrap();
        let line = page.lines().find_map(|it| it.strip_prefix("netloom_seats_taken ")).unwrap();
        line.parse::<f64>().unwrap()
    };
    assert!(taken() >= 2.0, "the stream, and the question");
    // More than sockets hold.
    let large = |number| {
        let row = zone(number, ROOT);
        let zone = Zone::of(&row).unwrap().clone();
        Record::new(Zone { description: Some("x".repeat(100_000)), ..zone }, row.meta)
    };
    put(&running, (0..300).map(large).collect());
    let began = Instant::now();
    while taken() >= 2.0 {
        assert!(began.elapsed() < PATIENCE, "it is still there");
    }
    drop(silent);
}

#[test]
fn a_server_that_stops_ends_its_streams_in_order() {
    let running = Running::start(Limits::default());
    let mut own = Following::new(&running, &session(&running.log_in()), "", None);
    assert_eq!(own.event().name, "start");
    let stopping = std::thread::spawn(move || drop(running));
    assert_eq!(own.next(), None);
    stopping.join().unwrap();
}
