//! Spans for an OpenTelemetry collector, where `--otlp-endpoint` names one.
//!
//! They are sent from a thread of their own, out of a queue that has an end: whoever makes a span
//! never waits, and what a collector does not take in time is lost. Spans are made under
//! [`TARGET`] and nowhere else, besides those that log lines have around them. Without a collector
//! this target is off: each place that makes one is asked once and costs a load from then on.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use clap::Args;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tracing_opentelemetry::OpenTelemetryLayer;
use ureq::{Agent, http::Uri};

use crate::Failure;

/// Where OTLP over HTTP has its traces
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>).
const PATH: &str = "/v1/traces";
/// How long a collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long spans wait for others to go with.
const DELAY: Duration = Duration::from_secs(1);
/// Spans that may wait; the newest are lost beyond that.
const QUEUE_MAX: usize = 4096;
/// How long the end of a process waits for its last spans.
const LAST: Duration = Duration::from_secs(1);

/// What decides whether there are spans.
#[derive(Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Send traces to this OpenTelemetry collector, by OTLP over HTTP: http://192.0.2.9:4318.
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    otlp_endpoint: Option<String>,
}

/// A collector's address, to which nothing has been added.
fn endpoint(text: &str) -> Result<String, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match (uri.scheme_str(), uri.host(), uri.path()) {
        // Whoever wants TLS has a collector on the machine, or a proxy.
        (Some("http"), Some(_), "/") => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("must be http://HOST:PORT, such as http://127.0.0.1:4318".to_owned()),
    }
}

/// What sends the spans; the last ones go when it is dropped.
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// What `arguments` ask for, in the name of a service such as `netloom-server`.
    pub(crate) fn new(arguments: &Arguments, service: &str) -> Result<Option<Self>, Failure> {
        let Some(endpoint) = &arguments.otlp_endpoint else { return Ok(None) };
        let exporter = SpanExporter::builder().with_http();
        let exporter = exporter.with_http_client(Collector::new());
        let exporter = exporter.with_endpoint(format!("{endpoint}{PATH}")).with_timeout(TIMEOUT);
        let batches = BatchConfigBuilder::default();
        let batches = batches.with_max_queue_size(QUEUE_MAX).with_scheduled_delay(DELAY).build();
        let processor = BatchSpanProcessor::builder(exporter.build()?).with_batch_config(batches);
        let resource = Resource::builder_empty().with_service_name(service.to_owned()).build();
        let provider = SdkTracerProvider::builder().with_resource(resource);
        Ok(Some(Self(provider.with_span_processor(processor.build()).build())))
    }

    /// What makes spans of `tracing`'s.
    pub(crate) fn layer<S>(&self) -> OpenTelemetryLayer<S, opentelemetry_sdk::trace::SdkTracer>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        let layer = tracing_opentelemetry::layer().with_tracer(self.0.tracer("netloom"));
        // Log lines have their own way, and threads mean nothing here.
        layer.with_threads(false).with_location(false)
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // A collector that does not answer has been told of, and nothing else is lost.
        let _ = self.0.shutdown_with_timeout(LAST);
    }
}

/// Sends batches, from the one thread that has them.
#[derive(Debug)]
struct Collector {
    agent: Agent,
    /// Whether the last batch did not arrive.
    is_down: AtomicBool,
}

impl Collector {
    fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        Self { agent: config.into(), is_down: AtomicBool::new(false) }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.agent.run(request.map(|body| body.to_vec()))?;
        let (head, mut body) = answer.into_parts();
        Ok(Response::from_parts(head, body.read_to_vec()?.into()))
    }

    /// Says once that the collector does not answer, and once that it does again.
    fn note(&self, sent: &Result<Response<Bytes>, HttpError>) {
        let problem = match sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        let was_down = self.is_down.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !was_down => {
                tracing::warn!(problem, "spans are lost: the collector does not take them");
            }
            None if was_down => tracing::info!("the collector takes spans again"),
            _ => {}
        }
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        // The processor's thread has nothing else to do while it waits.
        Box::pin(async move {
            let sent = self.send(request);
            self.note(&sent);
            sent
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_scheme_host_and_port() {
        assert_eq!(endpoint("http://[::1]:4318/").as_deref(), Ok("http://[::1]:4318"));
        for odd in ["", "127.0.0.1:4318", "https://a:4318", "http://a/v1/traces", "http:///"] {
            assert!(endpoint(odd).is_err(), "{odd}");
        }
    }
}
