//! The client's half of the load over HTTP: one connection that stays open, and on it one request after
//! the other.
//!
//! Not the crate `client`, which is made for people and scripts: for each request it looks its server
//! up on a thread of its own. Both ends share two CPUs here, so whatever the client takes, the server
//! lacks.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Range,
};

use client::Client;
use model::declare::FieldsIn;
use serde_json::{Value, json};

use crate::{Failure, serve::PATIENCE};

/// Most headers of an answer.
const HEADERS_MAX: usize = 32;
/// How much is read at once.
const READ_BYTES: usize = 64 << 10;
/// The answer of a job that is done, or of a query.
const OK: u16 = 200;

/// A session's connection.
pub(crate) struct Connection {
    stream: TcpStream,
    /// The headers that all requests have.
    headers: String,
    /// What has been read of an answer.
    read: Vec<u8>,
}

/// A request without its headers.
pub(crate) struct Request {
    line: String,
    body: String,
}

impl Request {
    /// A message whose fields are in its body.
    pub(crate) fn of_message(name: &str, fields: &Value) -> Result<Self, Failure> {
        let def = client::message(name)?;
        let FieldsIn::Below(key) = def.fields_in else {
            return Err(format!("{name} has no body").into());
        };
        let body = json!({key: fields}).to_string();
        Ok(Self { line: format!("POST /zstack/v1{} HTTP/1.1", def.path), body })
    }

    /// A query with this query string.
    pub(crate) fn of_query(path: &str, query: &str) -> Self {
        Self { line: format!("GET /zstack/v1{path}?{query} HTTP/1.1"), body: String::new() }
    }
}

impl Connection {
    /// Connects, with the session of a client that has logged in.
    pub(crate) fn new(server: SocketAddr, client: &Client) -> Result<Self, Failure> {
        let session = client.session().ok_or("the server gave no session")?;
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // The headers of the crate `client`: an answer is the job's result, and has no schema.
        let headers = format!(
            "\r\nhost: {server}\r\nauthorization: OAuth {session}\r\n\
             content-type: application/json\r\nprefer: wait=2, handling=strict\r\n\
             x-json-schema: false\r\ncontent-length: "
        );
        Ok(Self { stream, headers, read: Vec::new() })
    }

    /// Sends a request and reads the whole answer: its body.
    ///
    /// # Errors
    /// An answer other than 200 among them.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<&[u8], Failure> {
        let Request { line, body } = request;
        let text = format!("{line}{}{}\r\n\r\n{body}", self.headers, body.len());
        self.stream.write_all(text.as_bytes())?;
        self.read.clear();
        let body = loop {
            self.read_more()?;
            if let Some(found) = body_of(&self.read)? {
                break found;
            }
        };
        while self.read.len() < body.end {
            self.read_more()?;
        }
        self.read.get(body).ok_or_else(|| "an answer without its end".into())
    }

    fn read_more(&mut self) -> Result<(), Failure> {
        let before = self.read.len();
        self.read.resize(before + READ_BYTES, 0);
        let bytes = self.stream.read(&mut self.read[before..])?;
        self.read.truncate(before + bytes);
        match bytes {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }
}

/// Where the body of an answer is, or will be; `None` until its head is there.
fn body_of(answer: &[u8]) -> Result<Option<Range<usize>>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(answer)? else { return Ok(None) };
    if head.code != Some(OK) {
        return Err(String::from_utf8_lossy(answer).into());
    }
    let mut headers = head.headers.iter();
    let length = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok());
    let length: usize = length.ok_or("an answer without a length")?.parse()?;
    Ok(Some(start..start + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_where_the_head_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(body_of(answer).unwrap(), Some(38..40));
        assert_eq!(body_of(&answer[..20]).unwrap(), None);
    }

    #[test]
    fn whatever_is_no_result_is_told() {
        let refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nbad";
        assert!(body_of(refused).unwrap_err().to_string().ends_with("bad"));
        // What is only accepted is not done.
        assert!(body_of(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}").is_err());
        assert!(body_of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
