"""For each alert: what Prometheus saw, and whether it fires. A sample each 30 seconds, as promtool writes series."""

from __future__ import annotations

from dataclasses import dataclass, field

_SCALING = "aixcoder_operator_autoscaling_"
_FAST = {"namespace": "team", "name": "fast"}


@dataclass(frozen=True, slots=True)
class Case:
    """`series`: series with its labels → its samples. `at`: minutes. `fires`: labels of the alert, None where not."""

    alert: str
    series: dict[str, str]
    at: int
    fires: dict[str, str] | None = field(default=None)


def _series(metric: str, /, **labels: str) -> str:
    return metric + "{" + ",".join(f'{label}="{value}"' for label, value in labels.items()) + "}"


def _scaling(gauge: str, pod: str = "operator-a", **labels: str) -> str:
    return _series(_SCALING + gauge, **_FAST, **labels, pod=pod)


def _loaded(pod: str, **labels: str) -> str:
    return _series("aixcoder_load_percent", **{**_FAST, **labels}, pod=pod)


def _gateway(name: str, pod: str = "gateway-a", **labels: str) -> str:
    return _series(f"aixcoder_gateway_{name}", namespace="platform", pod=pod, **labels)


def _ended(outcome: str) -> str:
    return _gateway("requests_total", model="tiny", outcome=outcome)


def _leader(pod: str) -> str:
    return _series("aixcoder_operator_leader", namespace="platform", pod=pod)


def _waited(over: str, all_: str) -> dict[str, str]:
    """In each half minute so many begin, of which so many had waited longer."""
    return {
        _gateway("waited_seconds_bucket", model="tiny", le="0.2"): f"0+{over}x60",
        _gateway("waited_seconds_count", model="tiny"): f"0+{all_}x60",
    }


def _bursts(count: str, seconds: str, cold_start: int = 60) -> dict[str, str]:
    return {
        _scaling("burst_to_ready_seconds_count"): count,
        _scaling("burst_to_ready_seconds_sum"): seconds,
        _scaling("cold_start_seconds"): f"{cold_start}x400",
    }


def _wished(wish: str, desired: str) -> dict[str, str]:
    return {_scaling("wish"): wish, _scaling("desired"): desired}


_WAITING = _scaling("queued")
_TINY = {"model": "tiny"}
_PLATFORM = {"namespace": "platform"}

CASES: dict[str, Case] = {
    "requests wait for a replica that is not there": Case("AixcoderNoReplica", {_WAITING: "3x40"}, 6, _FAST),
    "for one that loads": Case("AixcoderNoReplica", {_WAITING: "3x40", _loaded("fast-a"): "40x40"}, 6, _FAST),
    "clients lose patience and come again": Case("AixcoderNoReplica", {_WAITING: "3 0 0 " * 14}, 6, _FAST),
    "another deployment's replica is no help": Case(
        "AixcoderNoReplica", {_WAITING: "3x40", _loaded("slow-a", name="slow"): "100x40"}, 6, _FAST
    ),
    "one is ready": Case("AixcoderNoReplica", {_WAITING: "3x40", _loaded("fast-a"): "100x40"}, 6),
    "woken within four minutes": Case("AixcoderNoReplica", {_WAITING: "3x40", _loaded("fast-a"): "0x7 100x30"}, 6),
    "they have waited for three minutes": Case("AixcoderNoReplica", {_WAITING: "3x40"}, 3),
    "nothing waits": Case("AixcoderNoReplica", {_WAITING: "0x40"}, 6),
    "no gateway hears a replica": Case(
        "AixcoderNoReplicaHeard",
        {
            _gateway("replicas_heard"): "0x40",
            _gateway("replicas_heard", "gateway-b"): "0x40",
            _gateway("requests_in_flight"): "0 2 0 " * 14,
        },
        6,
        _PLATFORM,
    ),
    "one gateway hears one": Case(
        "AixcoderNoReplicaHeard",
        {
            _gateway("replicas_heard"): "0x40",
            _gateway("replicas_heard", "gateway-b"): "1x40",
            _gateway("requests_in_flight"): "2x40",
        },
        6,
    ),
    "no gateway has heard one for three minutes": Case(
        "AixcoderNoReplicaHeard", {_gateway("replicas_heard"): "0x40", _gateway("requests_in_flight"): "2x40"}, 3
    ),
    "no replica, and nobody asks": Case(
        "AixcoderNoReplicaHeard", {_gateway("replicas_heard"): "0x40", _gateway("requests_in_flight"): "0x40"}, 6
    ),
    "bounded all the time": Case("AixcoderAtMaxReplicas", _wished("10x60", "8x60"), 16, _FAST),
    "bounded two seconds of three": Case("AixcoderAtMaxReplicas", _wished("10 10 3 " * 20, "8x60"), 16, _FAST),
    "bounded across a change of leader": Case(
        "AixcoderAtMaxReplicas",
        {
            _scaling("wish"): "10x14 stale",
            _scaling("desired"): "8x14 stale",
            _scaling("wish", "operator-b"): "_x15 10x40",
            _scaling("desired", "operator-b"): "_x15 8x40",
        },
        16,
        _FAST,
    ),
    "bounded for five minutes": Case("AixcoderAtMaxReplicas", _wished("2x20 10x10 2x60", "2x20 8x40"), 20),
    "at its most, and that is enough": Case("AixcoderAtMaxReplicas", _wished("8x60", "8x60"), 16),
    "first seen five minutes ago": Case("AixcoderAtMaxReplicas", _wished("_x20 10x40", "_x20 8x40"), 15),
    "three of five": Case(
        "AixcoderWishUnmet",
        {
            _scaling("desired"): "5x60",
            **{_loaded(f"fast-{pod}"): "100x60" for pod in "abc"},
            _loaded("fast-d"): "10x60",
        },
        11,
        _FAST,
    ),
    "none of five": Case("AixcoderWishUnmet", {_scaling("desired"): "5x60"}, 11, _FAST),
    "met after eight minutes": Case(
        "AixcoderWishUnmet", {_scaling("desired"): "1x60", _loaded("fast-a"): "50x15 100x40"}, 11
    ),
    "more than wished, while one leaves": Case(
        "AixcoderWishUnmet",
        {_scaling("desired"): "1x60", _loaded("fast-a"): "100x60", _loaded("fast-b"): "100x60"},
        11,
    ),
    "unmet for eight minutes": Case("AixcoderWishUnmet", {_scaling("desired"): "1x60"}, 8),
    "zero is wished": Case("AixcoderWishUnmet", {_scaling("desired"): "0x60"}, 11),
    "a gateway is silent": Case("AixcoderGatewayUnheard", {_scaling("gateways_unheard"): "1x40"}, 6, {}),
    "a gateway is silent for three minutes": Case("AixcoderGatewayUnheard", {_scaling("gateways_unheard"): "1x40"}, 3),
    "a gateway is restarted": Case("AixcoderGatewayUnheard", {_scaling("gateways_unheard"): "1x4 0x40"}, 6),
    "three of a hundred wait too long": Case("AixcoderWaitsOverTarget", _waited("97", "100"), 16, _TINY),
    "one of two hundred": Case("AixcoderWaitsOverTarget", _waited("199", "200"), 16),
    "hardly any requests": Case("AixcoderWaitsOverTarget", _waited("0", "1"), 16),
    "a burst took five minutes": Case("AixcoderScaleUpSlow", _bursts("0x10 1x120", "0x10 300x120"), 30, _FAST),
    "a burst took a hundred seconds": Case("AixcoderScaleUpSlow", _bursts("0x10 1x120", "0x10 100x120"), 30),
    "a slow one two hours ago": Case("AixcoderScaleUpSlow", _bursts("0x10 1x400", "0x10 300x400"), 130),
    "five minutes are what a start takes": Case(
        "AixcoderScaleUpSlow", _bursts("0x10 1x120", "0x10 300x120", cold_start=200), 30
    ),
    "both stand by": Case(
        "AixcoderNoLeader", {_leader("operator-a"): "0x40", _leader("operator-b"): "0x40"}, 3, _PLATFORM
    ),
    "no operator is scraped": Case("AixcoderNoLeader", {_gateway("replicas_heard"): "1x40"}, 3, {}),
    "nobody has led for a minute": Case("AixcoderNoLeader", {_leader("operator-a"): "0x40"}, 1),
    "a new leader after a minute": Case(
        "AixcoderNoLeader", {_leader("operator-a"): "1 0x40", _leader("operator-b"): "0 0 0 1x40"}, 3
    ),
    "one leads, one stands by": Case(
        "AixcoderNoLeader", {_leader("operator-a"): "1x40", _leader("operator-b"): "0x40"}, 3
    ),
    "one of fifty breaks off": Case(
        "AixcoderUpstreamErrors", {_ended("upstream_error"): "0+1x60", _ended("completed"): "0+49x60"}, 16, _TINY
    ),
    "those who left do not dilute it": Case(
        "AixcoderUpstreamErrors",
        {
            _ended("upstream_error"): "0+1x60",
            _ended("completed"): "0+49x60",
            _ended("client_gone_decode"): "0+400x60",
        },
        16,
        _TINY,
    ),
    "one of two hundred breaks off": Case(
        "AixcoderUpstreamErrors", {_ended("upstream_error"): "0+1x60", _ended("completed"): "0+199x60"}, 16
    ),
    "four in all": Case(
        "AixcoderUpstreamErrors", {_ended("upstream_error"): "0 1 2 3 4x60", _ended("completed"): "0+1x60"}, 16
    ),
}
