"""What can go wrong with a request, in no client's shape: a dialect writes it in its own.

A problem that is shown as a constant has the same words every time: editors show each distinct text as a new pop-up.
"""

from __future__ import annotations


class Problem(Exception):
    """A request that ends in an error: HTTP `status`, a stable `code`, and one sentence for a person.

    `param` names the field of the client's body that is to blame. `retry_after` (seconds) goes with load that is shed
    or a service that is not there: such an answer also asks SDKs not to retry by themselves.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after


def invalid(message: str, param: str | None = None) -> Problem:
    """What the client sent cannot be served as it is."""
    return Problem(400, "invalid_request", message, param=param)


def unauthorized() -> Problem:
    """No API key, or one that is not known."""
    return Problem(401, "invalid_api_key", "Send a valid API key: `Authorization: Bearer axk_<id>_<secret>`.")


def unknown_model() -> Problem:
    """Several deployments, and none has the name asked for."""
    return Problem(
        404,
        "model_not_found",
        "No deployment serves the model that was asked for; GET /v1/models lists those that exist.",
        param="model",
    )


def model_not_allowed() -> Problem:
    """The key may not use the model."""
    return Problem(
        403,
        "model_not_allowed",
        "This API key may not use the model that was asked for; GET /v1/models lists those that it may.",
        param="model",
    )


def unknown_path() -> Problem:
    """No such page."""
    return Problem(404, "not_found", "There is no such path here; completions are asked for at POST /v1/completions.")


def wrong_method() -> Problem:
    """The page exists, but not for this method."""
    return Problem(405, "method_not_allowed", "This path does not take this method.")


def body_too_large(limit: int) -> Problem:
    """The body has more than `limit` bytes."""
    return Problem(413, "body_too_large", f"The body is larger than {limit // 2**20} MiB; send less context.")


def internal() -> Problem:
    """A defect of the gateway: its log has the traceback."""
    return Problem(500, "internal_error", "The gateway failed; its log says why.")


def replica_lost() -> Problem:
    """A replica went away with the request, twice or after part of the answer was out."""
    return Problem(502, "replica_lost", "The replica went away before the answer was complete; ask again.")


def replica_failed() -> Problem:
    """A replica answered with an error of its own."""
    return Problem(502, "replica_failed", "The replica failed to answer; its log says why.")


def replica_silent() -> Problem:
    """A replica took the request and said nothing for too long."""
    return Problem(504, "replica_silent", "The replica did not answer in time.")


def no_replica() -> Problem:
    """No replica is ready to take the request."""
    return Problem(503, "no_replica", "No replica of this model is ready; try again later.", retry_after=5)


def not_synced() -> Problem:
    """The gateway has just started and has not read the cluster yet."""
    return Problem(503, "not_synced", "The gateway does not know its replicas yet; try again later.", retry_after=1)


def draining() -> Problem:
    """The gateway was told to end; another one answers."""
    return Problem(503, "draining", "The gateway is leaving; connect again.", retry_after=1)


def overloaded(seconds: int) -> Problem:
    """Everything is busy, and will be for longer than the client waits."""
    return Problem(503, "overloaded", "All replicas are busy; try again later.", retry_after=max(min(seconds, 60), 1))


def over_limit(seconds: int) -> Problem:
    """The key has as much under way as it may, or had it in the last minute."""
    return Problem(
        429, "over_limit", "This API key is over its limit; try again later.", retry_after=max(min(seconds, 60), 1)
    )


def poison() -> Problem:
    """The request was in flight when replicas died, more than once."""
    return Problem(
        422, "suspected_poison", "Replicas failed while they answered this very request; it is refused for ten minutes."
    )


def superseded() -> Problem:
    """The same editor's next request took its place in the queue; a dialect answers with an empty completion."""
    return Problem(200, "superseded", "A newer request of the same editor took the place of this one.")
