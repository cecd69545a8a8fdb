//! Calls realisers of L2 networks, which administrators have registered. As webhooks are: to an address
//! that was looked up once, without redirects or a proxy, and within a time.

use std::{io::Read, time::Duration};

use axum::http::{
    Request, StatusCode,
    header::{CONTENT_TYPE, HOST},
};
use control::{
    realiser::{Call, Refusal},
    webhook::Reach,
};
use ureq::Agent;

use crate::webhook::{Target, agent};

/// How long a realiser may take. One that needs longer answers 202, and is called again.
const TIMEOUT: Duration = Duration::from_secs(10);

/// As much of an answer is read, in bytes: people read the reason in it.
const ANSWER_MAX: u64 = 1024;

/// What calls realisers.
#[derive(Clone, Debug)]
pub struct RealiserCaller(Agent);

impl Default for RealiserCaller {
    fn default() -> Self {
        Self(agent(TIMEOUT))
    }
}

impl RealiserCaller {
    /// Calls a realiser, once. It takes some seconds at most, besides asking for the address.
    ///
    /// # Errors
    /// Why it has not done what it was to.
    pub fn call(&self, call: &Call) -> Result<(), Refusal> {
        let target = Target::read(&call.url).map_err(|why| Refusal { why, is_final: true })?;
        let address = target
            .resolve(&Reach::Everywhere)
            .map_err(|failed| Refusal { why: failed.why, is_final: false })?;
        let request = Request::post(format!("http://{address}{}", target.path))
            .header(HOST, &target.authority)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header("x-netloom-signature", format!("sha256={}", call.signature))
            .body(call.body.as_str())
            .map_err(|cause| Refusal { why: cause.to_string(), is_final: true })?;
        let again = |why| Refusal { why, is_final: false };
        let mut answer =
            self.0.run(request).map_err(|cause| again(format!("{address}: {cause}")))?;
        let status = answer.status();
        if status.is_success() && status != StatusCode::ACCEPTED {
            return Ok(());
        }
        let mut text = Vec::new();
        // What could be read of it is better than nothing.
        let _ = answer.body_mut().as_reader().take(ANSWER_MAX).read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        let is_later =
            [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
        let is_final = status.is_client_error() && !is_later.contains(&status);
        Err(Refusal { why: format!("it answered {status} {}", text.trim()), is_final })
    }
}
