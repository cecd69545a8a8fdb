//! Doctor: the question whether what is allocated is what is referenced.

use derive::Message;
use serde::Deserialize;

/// Says whether everything that is allocated is referenced and the reverse, and names what is not.
/// It looks at everything that there is: seconds in a large cloud.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/doctor", answer = "now", access = "admin")]
pub struct GetDoctorReport {}
