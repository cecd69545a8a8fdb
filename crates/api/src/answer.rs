//! Answers as ZStack gives them: results, jobs, errors.

use axum::{
    Extension, Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use model::{Error, Id, resource::job::Job};
use serde_json::{Value, json};

use crate::metrics::Refused;

/// `200` with the result.
pub(crate) fn ok(result: Value) -> Response {
    Json(result).into_response()
}

/// `202` with the job's place. Clients cut it at the literal `/zstack/v1/api-jobs`.
pub(crate) fn accepted(base: &str, job: Id<Job>, timeout_seconds: i64) -> Response {
    let location = format!("{base}/zstack/v1/api-jobs/{job}");
    let body = json!({"location": location, "apiTimeout": timeout_seconds.saturating_mul(1000)});
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(body)).into_response()
}

/// `202`: the job is not decided yet. ZStack says `{}`; here it says what it waits for, if anything.
pub(crate) fn processing(reasons: &[String]) -> Response {
    let body = match reasons {
        [] => json!({}),
        reasons => json!({"waitsFor": reasons}),
    };
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

/// `503` with ZStack's error structure: how it reports every business error.
pub(crate) fn failed(error: &Error) -> Response {
    if let Some(cause) = &error.cause {
        tracing::warn!(%error, cause, "call failed");
    }
    let body = Json(json!({"error": error.describe()}));
    let refused = Extension(Refused(error.code.as_str()));
    (StatusCode::SERVICE_UNAVAILABLE, refused, body).into_response()
}

/// The same error for a caller who knows HTTP: with the status that its code stands for.
pub(crate) fn refused(error: &Error) -> Response {
    let mut answer = failed(error);
    if let Ok(status) = StatusCode::from_u16(error.code.http_status()) {
        *answer.status_mut() = status;
    }
    answer
}

/// A protocol error: plain text, as ZStack gives it.
pub(crate) fn protocol(status: StatusCode, text: impl Into<String>) -> Response {
    (status, text.into()).into_response()
}
