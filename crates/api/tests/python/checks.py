"""A check for Schemathesis. ZStack answers 503 to whatever is refused, so its own check for server
errors means nothing here: what counts is that nobody sees an error of ours."""

import schemathesis

# What netloom says of itself (crates/model/src/error.rs: Internal).
OURS = "SYS.1000"


@schemathesis.check
def no_error_of_ours(ctx, response, case):
    if response.status_code < 500:
        return
    assert response.status_code == 503, f"status {response.status_code}"
    code = response.json()["error"]["code"]
    assert code != OURS, f"an error of the server's own: {response.text}"
