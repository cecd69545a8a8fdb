//! Logins, of accounts and of their users, and what the audit tells of them.

use std::{net::IpAddr, sync::Arc};

use model::{
    Code, Error, Kind, Message, Resource, Timestamp,
    resource::{audit::Audit, user::User},
    status::Board,
};
use netloom_control::{
    Caller, Enrolment, Gate, JobId, Jobs, RefusedCall,
    account::{client_digest, hash},
};
use serde_json::{Value, json};
use store::Read;
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, request, tenant};

fn gate(cloud: &Cloud) -> Arc<Gate> {
    let (_board, reports) = watch::channel(Board::default());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    Arc::new(Gate::new(jobs, enrolment))
}

/// A stranger at the `number`-th address.
fn stranger(number: u8) -> Caller {
    Caller::Stranger { source: IpAddr::from([192, 0, 2, number]) }
}

async fn answer(
    gate: &Arc<Gate>,
    caller: Caller,
    name: &str,
    params: Value,
) -> Result<Value, Error> {
    gate.answer(gate.command(caller, vec![request(name, params)])?).await
}

fn rows(cloud: &Cloud) -> Vec<Audit> {
    let snapshot = cloud.snapshot();
    snapshot.list(Kind::Audit).map(|row| Audit::of(&row).cloned().unwrap()).collect()
}

fn outcomes(cloud: &Cloud) -> Vec<(String, String)> {
    rows(cloud).into_iter().map(|row| (row.message, row.outcome)).collect()
}

/// Gives `admin` the password "p".
fn with_password(cloud: &Cloud) {
    let digest = hash(&client_digest("p")).unwrap();
    netloom_control::account::reset_admin(&cloud.store, &digest, Timestamp(0)).unwrap();
}

#[tokio::test]
async fn a_login_is_in_the_audit_whether_it_succeeds_or_not() {
    let cloud = Cloud::empty();
    with_password(&cloud);
    let gate = gate(&cloud);
    let admin = ADMINISTRATOR.account().unwrap().to_string();
    for (name, password) in [("admin", "p"), ("admin", "wrong"), ("nobody", "p")] {
        let fields = json!({"accountName": name, "password": client_digest(password)});
        let opened = answer(&gate, stranger(1), "LogInByAccount", fields).await;
        assert_eq!(opened.is_ok(), (name, password) == ("admin", "p"));
    }
    let mut told: Vec<_> = rows(&cloud)
        .into_iter()
        .map(|row| {
            assert_eq!(
                (row.message.as_str(), row.source.as_str()),
                ("LogInByAccount", "192.0.2.1")
            );
            assert!(!row.fields.contains(&client_digest("p")), "{}", row.fields);
            (row.outcome, row.account_uuid, row.fields)
        })
        .collect();
    told.sort();
    let row = |outcome: &str, account: &str, name: &str| {
        (outcome.to_owned(), account.to_owned(), json!({"name": name}).to_string())
    };
    let failed = [row("ID.1000", "", "nobody"), row("ID.1000", &admin, "admin")];
    assert_eq!(told[..2], failed);
    assert_eq!(told[2], row("SUCCESS", &admin, "admin"));
}

/// Whoever guesses cannot fill the disk, nor push the rows of others out.
#[tokio::test]
async fn of_many_logins_that_fail_only_some_have_a_row_which_tells_of_the_others() {
    let cloud = Cloud::empty();
    with_password(&cloud);
    let gate = gate(&cloud);
    let wrong = || json!({"accountName": "admin", "password": client_digest("wrong")});
    // A source has to wait after some failures; so these come from several.
    for _ in 0..5 {
        for near in 1..=5 {
            answer(&gate, stranger(near), "LogInByAccount", wrong()).await.unwrap_err();
        }
    }
    assert_eq!(rows(&cloud).len(), 25, "few enough for each of them");
    for near in 10..=70 {
        answer(&gate, stranger(near), "LogInByAccount", wrong()).await.unwrap_err();
    }
    assert_eq!(rows(&cloud).len(), 60);
    let right = json!({"accountName": "admin", "password": client_digest("p")});
    answer(&gate, stranger(99), "LogInByAccount", right).await.unwrap();
    assert_eq!(rows(&cloud).len(), 61, "one that succeeds has its row all the same");
}

#[tokio::test]
async fn what_is_refused_before_it_runs_is_in_the_audit_of_known_accounts_alone() {
    let cloud = Cloud::empty();
    let gate = gate(&cloud);
    let tenant = tenant(&cloud, 7);
    let refused = |caller, name: &str| gate.command(caller, vec![request(name, json!({}))]);
    let create = &model::resource::zone::CreateZone::DEF;
    let error = refused(tenant, "CreateZone").err().unwrap();
    gate.note_refusal(&tenant, create, &error).await;
    let error = refused(stranger(1), "CreateZone").err().unwrap();
    gate.note_refusal(&stranger(1), create, &error).await;
    let error = refused(ADMINISTRATOR, "CreateZone").err().unwrap();
    let message = Some(create);
    let call = RefusedCall { error, message, webhook: None };
    let job = JobId { uuid: model::Id::new(Uuid::from_u128(1)), is_chosen: false };
    gate.jobs.refuse(&ADMINISTRATOR, job, call).await.unwrap();
    let reads = &model::resource::config::GetGlobalConfigOptions::DEF;
    let error = refused(tenant, "GetGlobalConfigOptions").err().unwrap();
    gate.note_refusal(&tenant, reads, &error).await;
    let told: Vec<_> =
        rows(&cloud).into_iter().map(|row| (row.account_uuid, row.message, row.outcome)).collect();
    let row = |caller: Caller, code: &str| {
        (caller.account().unwrap().to_string(), "CreateZone".to_owned(), code.to_owned())
    };
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.contains(&row(tenant, "ID.1002")), "{told:?}");
    assert!(told.contains(&row(ADMINISTRATOR, "SYS.1007")), "{told:?}");
}

fn user(cloud: &Cloud) -> String {
    let row = cloud.snapshot().list(Kind::User).next().unwrap();
    row.uuid().simple().to_string()
}

#[tokio::test]
async fn a_user_acts_for_its_account_until_it_has_another_password_or_is_gone() {
    let cloud = Cloud::empty();
    let gate = gate(&cloud);
    let red = tenant(&cloud, 7);
    let (source, account) = (red.source(), red.account().unwrap());
    let fields = json!({"name": "u", "password": client_digest("p")});
    let made = answer(&gate, red, "CreateUser", fields.clone()).await.unwrap();
    assert!(!made.to_string().contains("argon2"), "{made}");
    let again = answer(&gate, red, "CreateUser", fields.clone()).await.unwrap_err();
    assert_eq!(again.code, Code::Duplicate);
    let blue = tenant(&cloud, 8);
    answer(&gate, blue, "CreateUser", fields).await.expect("a name is unique in its account alone");
    let of_red = made["inventory"]["uuid"].clone();
    let log_in = async |password: &str, how: Value| {
        let mut fields = json!({"userName": "u", "password": client_digest(password)});
        fields.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
        answer(&gate, stranger(1), "LogInByUser", fields).await
    };
    let by_name = json!({"accountName": "tenant 7"});
    let opened = log_in("p", by_name.clone()).await.unwrap();
    let session = &opened["inventory"];
    assert_eq!((&session["accountUuid"], &session["userUuid"]), (&json!(account), &of_red));
    assert_eq!(session["userType"], "User");
    let caller = |session: &Value| gate.caller(session["uuid"].as_str().unwrap(), source);
    assert_eq!(caller(session).unwrap().account(), Some(account));
    log_in("p", json!({"accountUuid": account})).await.unwrap();
    for (password, how) in [
        ("wrong", by_name.clone()),
        ("p", json!({"accountName": "admin"})),
        ("p", json!({"accountName": "nobody"})),
    ] {
        assert_eq!(log_in(password, how).await.unwrap_err().code, Code::AuthenticationFailed);
    }
    for odd in [json!({}), json!({"accountName": "tenant 7", "accountUuid": account})] {
        assert_eq!(log_in("p", odd).await.unwrap_err().code, Code::InvalidArgument);
    }
    let change = json!({"uuid": of_red, "password": client_digest("new"), "description": "d"});
    let error = answer(&gate, blue, "UpdateUser", change.clone()).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    answer(&gate, red, "UpdateUser", change).await.unwrap();
    assert_eq!(caller(session).unwrap_err().code, Code::InvalidSession);
    assert!(log_in("p", by_name.clone()).await.is_err());
    let anew = log_in("new", by_name).await.unwrap();
    assert!(caller(&anew["inventory"]).is_ok());
    cloud.send(red, vec![request("DeleteUser", json!({"uuid": of_red}))]).unwrap();
    assert_eq!(caller(&anew["inventory"]).unwrap_err().code, Code::InvalidSession);
    assert!(outcomes(&cloud).contains(&("LogInByUser".to_owned(), "SUCCESS".to_owned())));
    cloud.call("DeleteAccount", json!({"uuid": blue.account().unwrap()})).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::User), 0, "users go with their account");
}

#[tokio::test]
async fn the_audit_names_the_user_who_has_logged_in_and_what_they_sent() {
    let cloud = Cloud::empty();
    let gate = gate(&cloud);
    let red = tenant(&cloud, 7);
    let fields = json!({"name": "u", "password": client_digest("p")});
    let made = answer(&gate, red, "CreateUser", fields).await.unwrap();
    let fields =
        json!({"userName": "u", "accountName": "tenant 7", "password": client_digest("p")});
    let opened = answer(&gate, stranger(1), "LogInByUser", fields).await.unwrap();
    let session = opened["inventory"]["uuid"].as_str().unwrap();
    let caller = gate.caller(session, red.source()).unwrap();
    let tag = json!({
        "resourceUuid": red.account().unwrap(), "resourceType": "AccountVO", "tag": "by the user",
    });
    cloud.send(caller, vec![request("CreateUserTag", tag.clone())]).unwrap();
    let twice = cloud.send(caller, vec![request("CreateUserTag", json!({"tag": "b"}))]);
    let error = twice.unwrap_err();
    gate.note_refusal(&caller, &model::resource::tag::CreateUserTag::DEF, &error).await;
    cloud.send(red, vec![request("DeleteUser", json!({"uuid": user(&cloud)}))]).unwrap();
    let told: Vec<_> = rows(&cloud)
        .into_iter()
        .map(|row| {
            assert_eq!(row.account_uuid, red.account().unwrap().to_string());
            (row.message, row.user_uuid)
        })
        .collect();
    let by_user = made["inventory"]["uuid"].as_str().map(str::to_owned);
    for message in ["LogInByUser", "CreateUserTag"] {
        assert!(told.contains(&(message.to_owned(), by_user.clone())), "{told:?}");
    }
    assert_eq!(told.iter().filter(|(_, user)| *user == by_user).count(), 3, "{told:?}");
    for message in ["CreateUser", "DeleteUser"] {
        assert!(!told.contains(&(message.to_owned(), by_user.clone())), "{told:?}");
    }
}

#[tokio::test]
async fn an_account_has_few_users() {
    let cloud = Cloud::empty();
    let gate = gate(&cloud);
    let red = tenant(&cloud, 7);
    let fields = json!({"name": "u", "password": client_digest("p")});
    answer(&gate, red, "CreateUser", fields.clone()).await.unwrap();
    let first: User = cloud.get(user(&cloud).parse().unwrap()).unwrap();
    let put = move |tx: &mut store::Tx<model::Record>| {
        for number in 0..99 {
            let user = User {
                uuid: model::Id::new(Uuid::from_u128(number)),
                name: number.to_string(),
                ..first.clone()
            };
            tx.put(model::Record::new(user, model::Meta::default())).unwrap();
        }
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    let mut other = fields;
    other["name"] = "more".into();
    let error = answer(&gate, red, "CreateUser", other).await.unwrap_err();
    assert_eq!(error.code, Code::OperationFailed, "{error}");
}
