"""The page /metrics, given what an engine tells."""

from prometheus_client.parser import text_string_to_metric_families

from aixcoder_serving.engine.interface import STEP_SECONDS, EngineStats
from aixcoder_serving.replica.metrics import EngineMetrics

STATS = EngineStats(
    load_percent=100,
    running=3,
    waiting=2,
    completed=11,
    cancelled=12,
    failed=13,
    tokens_prefilled=300,
    tokens_decoded=400,
    blocks_total=200,
    blocks_used=50,
    blocks_cached=30,
    prefix_query_tokens=900,
    prefix_hit_tokens=600,
    recomputed_evicted=32,
    evictions=5,
    draft_tokens=70,
    draft_tokens_accepted=60,
    steps=6,
    step_seconds_sum=1.25,
    step_seconds=(1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3),
)


def _samples(stats: EngineStats) -> dict[str, float]:
    families = text_string_to_metric_families(EngineMetrics(lambda: stats).page().decode())
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_each_number_has_its_name() -> None:
    bounds = [*(str(bound) for bound in STEP_SECONDS), "+Inf"]
    cumulated = [1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 6]
    assert _samples(STATS) == {
        "vllm:num_requests_running": 3,
        "vllm:num_requests_waiting": 2,
        "vllm:kv_cache_usage_perc": 0.25,
        "aixcoder_load_percent": 100,
        "vllm:prompt_tokens_total": 900,
        "vllm:prefix_cache_queries_total": 900,
        "vllm:prefix_cache_hits_total": 600,
        "vllm:generation_tokens_total": 400,
        "vllm:request_success_total": 11,
        "vllm:spec_decode_num_draft_tokens_total": 70,
        "vllm:spec_decode_num_accepted_tokens_total": 60,
        "aixcoder_requests_cancelled_total": 12,
        "aixcoder_requests_failed_total": 13,
        "aixcoder_prompt_tokens_computed_total": 300,
        "aixcoder_prompt_tokens_recomputed_total": 32,
        "aixcoder_kv_cache_evictions_total": 5,
        "aixcoder_kv_cache_blocks[used]": 50,
        "aixcoder_kv_cache_blocks[cached]": 30,
        "aixcoder_kv_cache_blocks[empty]": 120,
        **{f"aixcoder_step_seconds_bucket[{le}]": n for le, n in zip(bounds, cumulated, strict=True)},
        "aixcoder_step_seconds_count": 6,
        "aixcoder_step_seconds_sum": 1.25,
    }


def test_an_engine_that_is_not_loaded_has_nothing_to_divide() -> None:
    samples = _samples(EngineStats(load_percent=40))
    assert (samples["vllm:kv_cache_usage_perc"], samples["aixcoder_load_percent"]) == (0, 40)
    assert samples["aixcoder_step_seconds_count"] == 0
