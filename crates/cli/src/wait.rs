//! `netloom wait`: for a job, or until a resource is as it should be.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use clap::Args;
use client::{Client, Job, PATIENCE};

use crate::{
    Connection, Error, act, names, near,
    noun::{Noun, nouns},
    output::Manner,
    work,
};

/// How often a resource is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What `wait` takes.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  netloom wait 0f3c...                     a job, by its uuid\n  \
    netloom wait host h1 status=Connected     until h1 is connected\n  \
    netloom wait vm red-1 state=Running --timeout 60"
)]
pub struct Wait {
    /// A job's uuid; or a noun, a name, and conditions.
    #[arg(required = true, value_name = "WORD")]
    words: Vec<String>,
    /// So many seconds at most.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

pub(crate) fn run(wait: &Wait, connection: &Connection, manner: &Manner) -> Result<(), Error> {
    let manner = Manner { timeout: wait.timeout.or(manner.timeout), ..manner.clone() };
    match &wait.words[..] {
        [job] if model::id::parse_uuid(job).is_some() => connection.with(|client| {
            let job = Job { message: "the call".to_owned(), uuid: job.clone() };
            manner.show_answer(&work::wait(client, &job, &manner)?)
        }),
        [noun, name, conditions @ ..] if !conditions.is_empty() => {
            let all = nouns();
            let found = all.iter().find(|one| one.word == *noun || one.also.contains(&&**noun));
            let found = found.ok_or_else(|| {
                let meant = near::hint(noun, all.iter().map(|one| one.word.as_str()));
                Error::Usage(format!("there is no noun \"{noun}\"{meant}"))
            })?;
            let patience = manner.timeout.map_or(PATIENCE, Duration::from_secs);
            connection.with(|client| until(client, found, (name, conditions), patience))
        }
        _ => Err(Error::Usage("wait for a job's uuid, or: NOUN NAME FIELD=VALUE".into())),
    }
}

/// Looks at a resource until it meets the conditions.
fn until(
    client: &Client,
    noun: &Noun,
    (name, conditions): (&str, &[String]),
    patience: Duration,
) -> Result<(), Error> {
    let start = Instant::now();
    let uuid = names::uuid(client, noun, name)?;
    let mut pairs = act::conditions(client, noun, conditions)?;
    pairs.push(("q".to_owned(), format!("uuid={uuid}")));
    pairs.push(("fields".to_owned(), "uuid".to_owned()));
    let (_nobody, end) = mpsc::channel::<()>();
    loop {
        let answer = client.query_pairs(noun.face.path, &pairs)?;
        if answer["inventories"].as_array().is_some_and(|found| !found.is_empty()) {
            return Ok(());
        }
        if start.elapsed() >= patience {
            let (wanted, seconds) = (conditions.join(" "), patience.as_secs());
            let word = &noun.word;
            return Err(Error::Late(format!(
                "{word} {name} does not have {wanted} after {seconds} s; see: netloom {word} show {name}"
            )));
        }
        let _ = end.recv_timeout(LOOK_AGAIN);
    }
}
