"""What Prometheus reads of a replica: its engine's statistics, under vLLM's names where they mean the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from aixcoder_serving.engine.interface import STEP_SECONDS, EngineStats

CONTENT_TYPE = CONTENT_TYPE_LATEST


class EngineMetrics(Collector):
    """The page `/metrics`, made of one look at the engine whenever it is asked for.

    What means the same as with vLLM has its name (docs.vllm.ai, usage/metrics, v0.32): dashboards and routers made for
    it read these. The two prefix cache counters and `prompt_tokens` count tokens of prompts when they start, found ones
    too.
    """

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def page(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        stats = self._stats()
        for name, text, level in (
            ("vllm:num_requests_running", "Requests that hold a slot.", stats.running),
            ("vllm:num_requests_waiting", "Requests that wait for a slot or for room in the cache.", stats.waiting),
            (
                "vllm:kv_cache_usage_perc",
                "Share of the cache's blocks that running requests hold; 1 is all of them.",
                stats.blocks_used / max(stats.blocks_total, 1),
            ),
            ("aixcoder_load_percent", "How much of the model is loaded; 100 once it can generate.", stats.load_percent),
        ):
            yield GaugeMetricFamily(name, text, value=level)
        for name, text, count in (
            ("vllm:prompt_tokens", "Tokens of prompts.", stats.prefix_query_tokens),
            ("vllm:prefix_cache_queries", "Tokens of prompts that were looked for.", stats.prefix_query_tokens),
            ("vllm:prefix_cache_hits", "Tokens of prompts that were found in the cache.", stats.prefix_hit_tokens),
            ("vllm:generation_tokens", "Tokens generated.", stats.tokens_decoded),
            ("vllm:request_success", "Requests that ended by themselves.", stats.completed),
            ("vllm:spec_decode_num_draft_tokens", "Tokens that were guessed.", stats.draft_tokens),
            ("vllm:spec_decode_num_accepted_tokens", "Tokens that were guessed right.", stats.draft_tokens_accepted),
            ("aixcoder_requests_cancelled", "Requests that were ended from outside: the client left.", stats.cancelled),
            ("aixcoder_requests_failed", "Requests that ended by a fault.", stats.failed),
            ("aixcoder_prompt_tokens_computed", "Tokens of prompts that were computed.", stats.tokens_prefilled),
            ("aixcoder_prompt_tokens_recomputed", "Those computed again, being evicted.", stats.recomputed_evicted),
            ("aixcoder_kv_cache_evictions", "Blocks that lost what they had cached to something new.", stats.evictions),
        ):
            yield CounterMetricFamily(name, text, value=count)
        yield self._blocks(stats)
        yield self._steps(stats)

    @staticmethod
    def _blocks(stats: EngineStats) -> Metric:
        found = GaugeMetricFamily(
            "aixcoder_kv_cache_blocks",
            "Blocks of the cache: held by running requests, free and still to be found, empty.",
            labels=["state"],
        )
        empty = stats.blocks_total - stats.blocks_used - stats.blocks_cached
        for state, count in (("used", stats.blocks_used), ("cached", stats.blocks_cached), ("empty", empty)):
            found.add_metric([state], count)
        return found

    @staticmethod
    def _steps(stats: EngineStats) -> Metric:
        bounds = [*(repr(bound) for bound in STEP_SECONDS), "+Inf"]
        return HistogramMetricFamily(
            "aixcoder_step_seconds",
            "Time of the engine's steps: each gives every running request its next token.",
            buckets=list(zip(bounds, map(float, accumulate(stats.step_seconds)), strict=True)),
            sum_value=stats.step_seconds_sum,
        )
