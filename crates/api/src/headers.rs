//! What the headers of a request say: who calls, and how it wants to be answered.

use axum::http::{HeaderMap, Method, StatusCode, header};
use control::{JobId, webhook::Reach};
use model::{Id, Timestamp};
use uuid::Uuid;

use crate::webhook;

/// How a caller says who it is.
pub(crate) enum Credential<'a> {
    /// `Authorization: OAuth <session>`.
    Session(&'a str),
    /// `Authorization: ZStack <access key>:<signature>`.
    Key(&'a str, &'a str),
}

/// What a caller shows.
pub(crate) fn credential(headers: &HeaderMap) -> std::result::Result<Credential<'_>, &'static str> {
    let header = headers.get(header::AUTHORIZATION).ok_or("the Authorization header is missing")?;
    let text = header.to_str().unwrap_or_default();
    if let Some(session) = text.strip_prefix("OAuth ") {
        return Ok(Credential::Session(session.trim()));
    }
    let key = text.strip_prefix("ZStack ").and_then(|key| key.trim().split_once(':'));
    key.map(|(id, signature)| Credential::Key(id, signature))
        .ok_or("Authorization must be: OAuth <session uuid>, or ZStack <access key id>:<signature>")
}

/// How far the date of a signed request and the server's clock may be apart, in seconds: a signature
/// that somebody has seen is of use for no longer.
const SKEW_SECONDS: i64 = 900;

/// The text that is signed with an access key: method, date and path, a line each.
///
/// # Errors
/// The status and text of the answer to a request without a date of these minutes.
pub(crate) fn signed_text(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    now: Timestamp,
) -> std::result::Result<String, (StatusCode, &'static str)> {
    let date = headers.get(header::DATE).and_then(|date| date.to_str().ok()).unwrap_or_default();
    let Some(at) = Timestamp::of_http(date) else {
        let text = "a signed request needs a Date header, such as Tue, 14 Nov 2017 22:20:57 GMT";
        return Err((StatusCode::BAD_REQUEST, text));
    };
    if at < now.plus_seconds(-SKEW_SECONDS) || at > now.plus_seconds(SKEW_SECONDS) {
        let text =
            "requestTimeTooSkewed: the Date header is over 15 minutes from the server's time";
        return Err((StatusCode::FORBIDDEN, text));
    }
    let path = path.strip_prefix("/zstack").unwrap_or(path);
    Ok(format!("{method}\n{date}\n{path}"))
}

/// The caller's own job uuid, for repeating a call safely.
pub(crate) fn job(headers: &HeaderMap) -> std::result::Result<JobId, &'static str> {
    match headers.get("x-job-uuid") {
        None => Ok(JobId { uuid: Id::new(Uuid::new_v4()), is_chosen: false }),
        Some(text) => {
            let uuid = text.to_str().ok().and_then(model::id::parse_uuid);
            let job = uuid.map(|uuid| JobId { uuid: Id::new(uuid), is_chosen: true });
            job.ok_or("X-Job-UUID must be a uuid: 32 hex digits, with or without dashes")
        }
    }
}

/// Where the caller wants the result to be sent, if anywhere. A receiver that it may not name is
/// refused as far as its address stands there.
///
/// # Errors
/// A text for `400`.
pub(crate) fn webhook(
    headers: &HeaderMap,
    reach: &Reach,
) -> std::result::Result<Option<String>, String> {
    let Some(given) = headers.get("x-web-hook") else { return Ok(None) };
    let url = given.to_str().map_err(|_| "X-Web-Hook is no URL".to_owned())?.trim();
    webhook::check(url, reach).map(|()| Some(url.to_owned()))
}

/// Longest time that a job may be told to wait for hosts, in seconds: a day.
const TIMEOUT_SECONDS_MAX: i64 = 86_400;
/// Longest time that a request may be told to wait for its job, in seconds.
const PATIENCE_SECONDS_MAX: u64 = 3600;

/// How long the caller lets the job wait for hosts, in seconds; `default` if it does not say.
///
/// # Errors
/// A text for `400`: the header is there and says something else.
pub(crate) fn timeout_seconds(
    headers: &HeaderMap,
    default: i64,
) -> std::result::Result<i64, String> {
    let Some(given) = headers.get("x-api-timeout") else {
        return Ok(default);
    };
    let seconds = given.to_str().ok().and_then(|text| text.trim().parse().ok());
    seconds.filter(|seconds| (1..=TIMEOUT_SECONDS_MAX).contains(seconds)).ok_or_else(|| {
        format!(
            "X-API-Timeout must be a whole number of seconds from 1 to {TIMEOUT_SECONDS_MAX}, \
             or be left out: then it is {default}"
        )
    })
}

/// The same from milliseconds, as the old protocol has it: the nearest that is allowed.
pub(crate) fn seconds_of(milliseconds: i64) -> i64 {
    (milliseconds / 1000).clamp(1, TIMEOUT_SECONDS_MAX)
}

/// What a caller would like (RFC 7240). Preferences of other names are passed over, as the RFC wants
/// it; of several with one name the first counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preferences {
    /// `wait=<seconds>` (§4.3): answer with the job's result if it is done by then. Who says so knows
    /// HTTP: errors have the status that their code stands for, not ZStack's 503.
    pub(crate) wait_seconds: Option<u64>,
    /// `handling=strict` (§4.4): refuse what ZStack passes over, such as unknown fields.
    pub(crate) is_strict: bool,
}

/// Reads the `Prefer` headers.
///
/// # Errors
/// A text for `400`: `wait` is there and is no such number.
pub(crate) fn preferences(headers: &HeaderMap) -> std::result::Result<Preferences, String> {
    let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
    let (mut wait, mut handling) = (None, None);
    for preference in lines.flat_map(|line| line.split(',')) {
        let first = preference.split(';').next().unwrap_or_default();
        let (name, value) = first.split_once('=').unwrap_or((first, ""));
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "wait" => wait = wait.or(Some(value)),
            "handling" => handling = handling.or(Some(value)),
            _ => {}
        }
    }
    let wait_seconds = wait.map(|text| {
        let seconds = text.parse().ok().filter(|seconds| *seconds <= PATIENCE_SECONDS_MAX);
        seconds.ok_or_else(|| {
            format!(
                "Prefer: wait= must be a whole number of seconds from 0 to \
                 {PATIENCE_SECONDS_MAX}, such as Prefer: wait=30"
            )
        })
    });
    let is_strict = handling.is_some_and(|value| value.eq_ignore_ascii_case("strict"));
    Ok(Preferences { wait_seconds: wait_seconds.transpose()?, is_strict })
}

/// Whether an answer names the Java classes of what it shows: `X-JSON-Schema: true` asks for it.
/// `None`: the caller does not say.
pub(crate) fn wants_schema(headers: &HeaderMap) -> Option<bool> {
    let value = headers.get("x-json-schema")?.to_str().ok()?;
    Some(value.trim().eq_ignore_ascii_case("true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds_within_a_day() {
        let check = |value: &str| timeout_seconds(&headers("x-api-timeout", value), 1800).ok();
        assert_eq!(timeout_seconds(&HeaderMap::new(), 7), Ok(7));
        assert_eq!([check("1"), check(" 86400 ")], [Some(1), Some(86_400)]);
        for odd in ["", "0", "-1", "86401", "soon", "1.5", "10s", "99999999999999999999"] {
            assert_eq!(check(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_preference_to_wait_is_read_among_others() {
        let check =
            |value: &str| preferences(&headers("prefer", value)).ok().map(|p| p.wait_seconds);
        for (text, expected) in [
            ("wait=30", Some(30)),
            ("respond-async, wait=0", Some(0)),
            ("Wait = \"7\"; x=1", Some(7)),
            ("return=minimal", None),
            ("wait=1, wait=2", Some(1)),
        ] {
            assert_eq!(check(text), Some(expected), "{text}");
        }
        for odd in ["wait", "wait=", "wait=x", "wait=-1", "wait=3601", "a=b, wait=1.5"] {
            assert_eq!(check(odd), None, "{odd}");
        }
    }

    #[test]
    fn strict_handling_is_asked_for_beside_other_preferences() {
        for (text, expected) in [
            ("handling=strict", true),
            ("wait=5, Handling=\"strict\"", true),
            ("handling=lenient, handling=strict", false),
            ("handling", false),
            ("strict", false),
        ] {
            let read = preferences(&headers("prefer", text)).unwrap();
            assert_eq!(read.is_strict, expected, "{text}");
        }
    }
}
