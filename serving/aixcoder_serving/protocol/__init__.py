"""The messages between the programs: gateway ↔ replica, operator → both, and what the gateway reads of a resource.

Every message is validated where it enters a process.
"""

from aixcoder_serving.protocol.completion import (
    STREAM_MESSAGE,
    CompletionRequest,
    ContextFile,
    Delta,
    Failed,
    Finished,
    FinishReason,
    Likeliest,
    LikelyToken,
    Milliseconds,
    Penalty,
    Refused,
    Sampling,
    Started,
    StreamMessage,
    TokenId,
    TokenLogprobs,
)
from aixcoder_serving.protocol.gateway import (
    DeploymentLoad,
    GatewayLoad,
    LoadBin,
    LoadCounters,
    Route,
    Routes,
)
from aixcoder_serving.protocol.message import (
    PROTOCOL_VERSION,
    REPLICA_PORT,
    Message,
)
from aixcoder_serving.protocol.replica import (
    DEFAULT_MODEL_LENGTH,
    FailureReason,
    LoadReport,
    Phase,
    Readiness,
    ReplicaSettings,
    ReplicaStats,
)
from aixcoder_serving.protocol.resource import (
    CompletionDefaults,
    DeploymentView,
    ResourceView,
    Traffic,
)
from aixcoder_serving.protocol.token import (
    UnusableKey,
    derived_token,
    read_key,
    replica_token,
)

__all__ = [
    "DEFAULT_MODEL_LENGTH",
    "PROTOCOL_VERSION",
    "REPLICA_PORT",
    "STREAM_MESSAGE",
    "CompletionDefaults",
    "CompletionRequest",
    "ContextFile",
    "Delta",
    "DeploymentLoad",
    "DeploymentView",
    "Failed",
    "FailureReason",
    "FinishReason",
    "Finished",
    "GatewayLoad",
    "Likeliest",
    "LikelyToken",
    "LoadBin",
    "LoadCounters",
    "LoadReport",
    "Message",
    "Milliseconds",
    "Penalty",
    "Phase",
    "Readiness",
    "Refused",
    "ReplicaSettings",
    "ReplicaStats",
    "ResourceView",
    "Route",
    "Routes",
    "Sampling",
    "Started",
    "StreamMessage",
    "TokenId",
    "TokenLogprobs",
    "Traffic",
    "UnusableKey",
    "derived_token",
    "read_key",
    "replica_token",
]
