"""Our policy, fed as the operator feeds it: with the bins of a gateway's `/load`."""

from __future__ import annotations

from aixcoder_operator.scaling.load import Capacity, Load, Second
from aixcoder_operator.scaling.policy import Bounds, Now, Standing, decide
from benchmarks.scaling.fleet import SERVICE, Service
from benchmarks.scaling.run import MAX_REPLICAS, MIN_REPLICAS, Policy, Seen


def ours(
    cold_start_s: float, service: Service = SERVICE, least: int = MIN_REPLICAS, most: int = MAX_REPLICAS
) -> Policy:
    """As it is by default, beginning with `least` replicas of which each does what `service` says."""
    capacity = Capacity(1 / service.prefill_tokens_per_s, service.token_s_per_request, service.slots)
    load = Load(capacity, cold_start_s)
    bounds = Bounds(least, most, target_s=service.target_s)
    standing = Standing(least)

    def policy(seen: Seen) -> int:
        nonlocal standing
        load.add(second(seen))
        now = Now(seen.second, seen.counts.queued, seen.counts.running)
        standing = decide(load, now, bounds, standing).standing
        return standing.desired

    return policy


def second(seen: Seen) -> Second:
    """The bin of the second before this one."""
    counts, before = seen.counts, seen.before
    return Second(
        second=seen.second - 1,
        arrivals=counts.arrivals - before.arrivals,
        completed=counts.completed - before.completed,
        cancelled_prefill=counts.cancelled_prefill - before.cancelled_prefill,
        cancelled_decode=counts.cancelled_decode - before.cancelled_decode,
        slot_ms=(counts.slot_s - before.slot_s) * 1000,
        tokens_prefilled=counts.tokens_prefilled - before.tokens_prefilled,
        tokens_decoded=counts.tokens_decoded - before.tokens_decoded,
        waited_over_target=counts.waited_over_target - before.waited_over_target,
        queued=counts.queued,
    )
