//! Enrolment: makes a key, and trades the operator's token for a certificate.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use wire::{r#gen::link_client::LinkClient, message::EnrolRequest};

use crate::{
    Config, Error,
    backoff::Backoff,
    identity::{Bundle, Identity, Known, endpoint},
};

/// How long an attempt may take.
const ENROL_WAIT: Duration = Duration::from_secs(15);

/// Why an attempt failed.
enum Failure {
    /// Try again: the server was not reached, or did not answer.
    Later(String),
    /// The server said no.
    Refused(String),
    /// Trying again is of no use.
    Broken(Error),
}

/// The agent's identity: the one on disk, or a new one if there is none or the operator gave a new
/// enrolment. `None` when told to stop first.
pub(crate) async fn obtain(
    config: &Config,
    stop: &CancellationToken,
) -> Result<Option<Identity>, Error> {
    let Known { identity, bundle } = tokio::task::block_in_place(|| Known::read(config))?;
    let Some(bundle) = bundle else { return Ok(identity) };
    let key = tokio::task::block_in_place(|| bundle.key(&config.data))?;
    let mut backoff = Backoff::default();
    loop {
        let Some(tried) = stop.run_until_cancelled(enrol(&bundle, &key)).await else {
            return Ok(None);
        };
        match (tried, &identity) {
            (Ok(fresh), _) => {
                tokio::task::block_in_place(|| fresh.save(&config.data))?;
                tracing::info!(host = %fresh.host.simple(), "enrolled");
                return Ok(Some(fresh));
            }
            (Err(Failure::Refused(reason)), Some(_)) => {
                tracing::warn!(reason, "the new enrolment was refused; the old identity stays");
                return Ok(identity);
            }
            (Err(Failure::Refused(reason)), None) => return Err(Error::Refused(reason)),
            (Err(Failure::Broken(error)), _) => return Err(error),
            (Err(Failure::Later(reason)), _) => {
                tracing::warn!(server = bundle.server, reason, "not enrolled yet; trying again");
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(backoff.next())).await.is_none() {
            return Ok(None);
        }
    }
}

async fn enrol(bundle: &Bundle, key: &KeyPair) -> Result<Identity, Failure> {
    let request = CertificateParams::default()
        .serialize_request(key)
        .map_err(|error| Failure::Broken(error.into()))?;
    let request = EnrolRequest {
        host: bundle.host,
        token: bundle.token.clone(),
        csr: request.der().to_vec(),
    };
    let asked = async {
        let connected = async {
            let (endpoint, tls) = endpoint(&bundle.server, &bundle.ca)?;
            endpoint.tls_config(tls)?.connect().await
        };
        let channel = connected.await.map_err(|error| Failure::Later(chain(&error)))?;
        let answer = LinkClient::new(channel).enrol(wire::r#gen::EnrolRequest::from(request)).await;
        answer.map_err(|status| match status.code() {
            Code::PermissionDenied | Code::InvalidArgument => {
                Failure::Refused(status.message().to_owned())
            }
            _ => Failure::Later(status.to_string()),
        })
    };
    let late = || Failure::Later(format!("no answer within {} s", ENROL_WAIT.as_secs()));
    let answer = timeout(ENROL_WAIT, asked).await.map_err(|_| late())??;
    Ok(Identity {
        server: bundle.server.clone(),
        host: bundle.host,
        ca: bundle.ca.clone(),
        certificate: answer.into_inner().certificate,
        key: key.serialize_pem(),
        token_sha256: bundle.token_sha256(),
    })
}

/// An error with all that lies behind it: tonic's own text is "transport error".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
