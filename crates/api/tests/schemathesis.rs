//! Schemathesis (a package from PyPI) over `/openapi.json` against a running door: whatever fits the
//! document, and what nearly does, is answered with a body as the document says, and by no error of
//! the server's own.
//!
//! `scripts/setup test` brings the package; nothing is fetched here. `NETLOOM_CASES` is the number of
//! cases for each operation, of which `make soak` sends many.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::process::Command;

use netloom_api::Limits;
use support::Running;

/// Cases for each operation in a usual run.
const CASES: &str = "2";

const CHECKS: &str = "no_error_of_ours,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";

#[test]
fn whatever_is_sent_is_answered_as_the_document_says() {
    let Some(python) = support::python() else { return };
    let running = Running::start(Limits::default());
    let session = running.log_in().session().unwrap().to_owned();
    let set = |name, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let (cases, seed) = (set("NETLOOM_CASES", CASES), set("NETLOOM_SEED", "1"));
    let directory = tempfile::tempdir().unwrap();
    let ran = Command::new(python.with_file_name("schemathesis"))
        .current_dir(directory.path())
        .args(["run", &format!("http://{}/openapi.json", running.address)])
        .args(["--header", &format!("Authorization: OAuth {session}")])
        .env("SCHEMATHESIS_HOOKS", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/checks.py"))
        // Answers are those of jobs, too.
        .args(["--header", "Prefer: wait=5"])
        // One worker: of two threads that parse Python at once, one may fail in CPython 3.11
        // (python/cpython#106905), which Hypothesis does.
        .args(["--checks", CHECKS, "--phases", "fuzzing", "--mode", "all", "--workers", "1"])
        .args(["--max-examples", &cases, "--seed", &seed, "--no-shrink", "--continue-on-failure"])
        .args(["--suppress-health-check", "all", "--no-color", "--warnings", "off"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{told}\n{}", String::from_utf8_lossy(&ran.stderr));
}
