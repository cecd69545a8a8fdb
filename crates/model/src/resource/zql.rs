//! ZQL: ZStack's query language, a message of no resource.

use derive::Message;
use serde::Deserialize;

/// Longest text of one message, in characters: a sub-query in place of a list of uuids keeps it short.
pub const ZQL_MAX: usize = 65_536;

/// Answers statements of ZStack's query language, such as
/// `query vminstance.name where vmNics.ip = '10.0.0.1' or name like 'a%' order by name asc limit 5`.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/zql", answer = "now")]
pub struct ZQLQuery {
    /// The statements, separated by `;`.
    #[field(max_len = 65_536)]
    pub zql: String,
}
