//! Enrolment: trades a host's one-time token for a client certificate, once.
//!
//! The token is bound to the agent's key and the certificate recorded in one transaction. If the
//! answer is lost on the way, the agent asks again with the same key, which nobody else has, and
//! gets another certificate instead. A refusal does not say why: an unknown, a used and an expired
//! token get the same answer.

use model::{
    Code, Error, Id, Kind, Meta, Record, Resource, Result, Timestamp,
    resource::host::HostCredential,
};
use store::{Read, Tx};
use uuid::Uuid;
use wire::message::{EnrolRequest, RenewRequest};

use crate::{
    Link,
    pki::{AgentCertificate, RENEWED_AFTER_SECONDS, sha256_hex},
};

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 256;

/// Checks the token, signs the request and records the certificate. Gives the certificate, PEM.
///
/// # Errors
/// [`Code::EnrolmentRefused`] for a token that is unknown, used or expired;
/// [`Code::InvalidArgument`] for a request that cannot be signed; the store's.
pub(crate) async fn enrol(link: &Link, request: EnrolRequest) -> Result<String> {
    let EnrolRequest { host, token, csr } = request;
    let now = (link.clock)();
    if token.len() > TOKEN_BYTES_MAX {
        return Err(refused(host));
    }
    let token = sha256_hex(token.as_bytes());
    // Nobody without a token makes the server sign anything.
    open_credential(&link.store.snapshot(), host, &token, now)?;
    let AgentCertificate { pem, sha256, key_sha256 } =
        link.pki.agent(host, &csr, now).map_err(|error| unsignable(host, &error))?;
    let record = move |tx: &mut Tx<Record>| {
        let (credential, meta) = open_credential(tx, host, &token, now)?;
        if credential.token_key_sha256.as_ref().is_some_and(|used| *used != key_sha256) {
            return Err(refused(host));
        }
        let credential = HostCredential {
            certificate_sha256: Some(sha256.clone()),
            certificate_issued: Some(now),
            renewed_sha256: None,
            token_key_sha256: Some(key_sha256.clone()),
            ..credential
        };
        let record = Record::new(credential, Meta { changed: now, ..meta });
        tx.put(record).map_err(|taken| Error::new(Code::Internal, taken.to_string()))
    };
    link.store.transact_async(record).await?;
    tracing::info!(host = %host.simple(), "host enrolled");
    Ok(pem)
}

/// Signs another certificate for a host whose certificate this is, if that is due. The old one stays
/// good until the new one is used: an answer that is lost costs nothing.
///
/// # Errors
/// [`Code::AccessDenied`] for another certificate than the host's; [`Code::InvalidArgument`] for a
/// request that cannot be signed; the store's.
pub(crate) async fn renew(
    link: &Link,
    request: RenewRequest,
    presented: String,
) -> Result<Option<String>> {
    let RenewRequest { host, csr } = request;
    let now = (link.clock)();
    let (credential, meta) = own_credential(&link.store.snapshot(), host, &presented)?;
    let issued = credential.certificate_issued.unwrap_or(meta.changed);
    if now < issued.plus_seconds(RENEWED_AFTER_SECONDS) {
        return Ok(None);
    }
    let AgentCertificate { pem, sha256, .. } =
        link.pki.agent(host, &csr, now).map_err(|error| unsignable(host, &error))?;
    let record = move |tx: &mut Tx<Record>| {
        let (credential, meta) = own_credential(tx, host, &presented)?;
        let renewed_sha256 = Some(sha256.clone());
        let record = Record::new(HostCredential { renewed_sha256, ..credential }, meta);
        tx.put(record).map_err(|taken| Error::new(Code::Internal, taken.to_string()))
    };
    link.store.transact_async(record).await?;
    tracing::info!(host = %host.simple(), "certificate renewed");
    Ok(Some(pem))
}

/// A host has used its later certificate: the old one is good no more.
///
/// # Errors
/// The store's.
pub(crate) async fn replace(link: &Link, host: Uuid, presented: String) -> Result<()> {
    let now = (link.clock)();
    let record = move |tx: &mut Tx<Record>| {
        let (credential, meta) = own_credential(tx, host, &presented)?;
        let credential = HostCredential {
            certificate_sha256: Some(presented.clone()),
            certificate_issued: Some(now),
            renewed_sha256: None,
            ..credential
        };
        let record = Record::new(credential, Meta { changed: now, ..meta });
        tx.put(record).map_err(|taken| Error::new(Code::Internal, taken.to_string()))
    };
    link.store.transact_async(record).await.map(|_| ())
}

/// The credential of a host, if this is its certificate or its later one.
fn own_credential(
    read: &impl Read<Record>,
    host: Uuid,
    presented: &str,
) -> Result<(HostCredential, Meta)> {
    let record = read.get(Kind::Host, host).and(read.get(Kind::HostCredential, host));
    let credential = record.as_deref().and_then(HostCredential::of);
    let own = credential.filter(|own| {
        let good = [&own.certificate_sha256, &own.renewed_sha256];
        good.into_iter().flatten().any(|sha256| sha256 == presented)
    });
    let refused = || {
        let host: Id<model::resource::host::Host> = Id::new(host);
        Error::new(Code::AccessDenied, format!("this certificate is not that of host {host}"))
    };
    let meta = record.as_deref().map(|record| record.meta).unwrap_or_default();
    Ok((own.cloned().ok_or_else(refused)?, meta))
}

/// The host's credential, if this token opens it.
fn open_credential(
    read: &impl Read<Record>,
    host: Uuid,
    token_sha256: &str,
    now: Timestamp,
) -> Result<(HostCredential, Meta)> {
    let record = read.get(Kind::Host, host).and(read.get(Kind::HostCredential, host));
    let Some(record) = record else { return Err(refused(host)) };
    let Some(credential) = HostCredential::of(&record) else { return Err(refused(host)) };
    let known = credential.token_sha256.as_deref().is_some_and(|open| same(open, token_sha256));
    if known && now < credential.token_expires {
        Ok((credential.clone(), record.meta))
    } else {
        Err(refused(host))
    }
}

/// Compares in constant time, so that the time does not tell where the difference is.
fn same(left: &str, right: &str) -> bool {
    let differences = left.bytes().zip(right.bytes()).fold(0, |all, (l, r)| all | (l ^ r));
    left.len() == right.len() && differences == 0
}

fn refused(host: Uuid) -> Error {
    let host: Id<model::resource::host::Host> = Id::new(host);
    let text = format!("the enrolment token for host {host} is unknown, used or expired");
    let hint = "make a new one with CreateHostEnrolment and start the agent with its bundle";
    Error::new(Code::EnrolmentRefused, text).hint(hint)
}

fn unsignable(host: Uuid, error: &rcgen::Error) -> Error {
    let text = format!("host {}: cannot sign the certificate request: {error}", host.simple());
    Error::new(Code::InvalidArgument, text).on_field("csr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_same_only_if_every_byte_is() {
        assert!(same("ab12", "ab12"));
        for other in ["ab13", "bb12", "ab1", "ab123", ""] {
            assert!(!same("ab12", other), "{other}");
        }
    }
}
