"""Any order of requests, ends, faults and steps: whoever did not fail gets what it would get alone."""

from dataclasses import replace
from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from aixcoder_serving.engine.interface import Finish, Sampling
from tests.unit.engine.engine_bench import Bench, alone, ids
from tests.unit.engine.simulated_ranks import VOCABULARY, completion

FAULT = "a step of the engine failed: rank 0: out of memory"
NAN = "the model computed no probabilities for the next token (not a number)"
STOPS: list[dict[str, Any]] = [
    {},
    {"stop_ids": frozenset({4})},
    {"stop_ids": frozenset({4}), "min_tokens": 9},
    {"stop": ("ab", "ccc", "d")},
    {"stop": ("e",), "min_tokens": 5},
]


class Random(RuleBasedStateMachine):
    """A family of prompts that share beginnings. `check_integrity` follows each step."""

    requests: Bundle[int] = Bundle("requests")

    @initialize(
        blocks=st.integers(14, 40),
        slots=st.integers(1, 5),
        budget=st.sampled_from([1.0, 3.0, 8.0]),
        cache=st.sampled_from([True, True, False]),
    )
    def start(self, blocks: int, slots: int, budget: float, cache: bool) -> None:
        self.bench = Bench(blocks, slots, budget, prefix_caching=cache)
        self.expected: dict[int, tuple[list[int], Finish]] = {}
        self.cut_short: set[int] = set()
        self.errors: set[str | None] = {None}

    @rule(
        target=requests,
        shared=st.integers(0, 90),
        own=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30),
        length=st.integers(1, 60),
        draft=st.sampled_from(["none", "right", "wrong late", "junk"]),
        seed=st.integers(0, 1),
        salt=st.sampled_from(["", "other"]),
        stops=st.sampled_from(STOPS),
        deadline_ms=st.sampled_from([None, None, None, 15.0, 100.0]),
    )
    def submit(
        self,
        shared: int,
        own: list[int],
        length: int,
        draft: str,
        seed: int,
        salt: str,
        stops: dict[str, Any],
        deadline_ms: float | None,
    ) -> int:
        prompt = ids(shared) + own
        right = completion(prompt, seed, length)  # where a stop id is banned, this is wrong from there on
        drafts = {
            "none": [],
            "right": right,
            "wrong late": [*right[:-1], (right[-1] + 1) % VOCABULARY, 5, 5],
            "junk": [1, 2, 3],
        }
        wish: dict[str, Any] = {"seed": seed, "deadline_ms": deadline_ms, **stops}
        number = self.bench.submit(prompt, length, draft=drafts[draft], salt=salt, **wish)
        self.expected[number] = alone(prompt, Sampling(max_tokens=length, **wish))
        if deadline_ms is not None:
            self.cut_short.add(number)
        return number

    @rule(number=consumes(requests))
    def cancel(self, number: int) -> None:
        if self.bench.answers[number].finish is None:
            self.cut_short.add(number)
        self.bench.cancel(number)

    @rule(steps=st.integers(1, 5))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.bench.step()

    @rule(at_once=st.booleans())
    def fail(self, at_once: bool) -> None:
        """The next step raises, before it copied anything or half-way through."""
        fault = RuntimeError("rank 0: out of memory")
        ranks = self.bench.ranks
        ranks.fault_at_once, ranks.fault = (fault, None) if at_once else (None, fault)
        self.errors.add(FAULT)
        self.bench.step()
        ranks.fault_at_once = ranks.fault = None

    @rule(slot=st.integers(0, 4), position=st.integers(0, 100))
    def spoil(self, slot: int, position: int) -> None:
        self.bench.ranks.spoilt = slot, position
        self.errors.add(NAN)

    @invariant()
    def answers_are_right_so_far(self) -> None:
        if not hasattr(self, "bench"):
            return
        for number, answer in self.bench.answers.items():
            expected, finish = self.expected[number]
            assert answer.ids == expected[: len(answer.ids)]
            assert answer.error in self.errors
            if answer.finish is not None and number not in self.cut_short:
                assert answer.ids == expected
                assert replace(answer.finish, cached_tokens=0) == finish

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.bench.run()
        self.answers_are_right_so_far()
        assert all(answer.finish is not None or answer.error is not None for answer in self.bench.answers.values())
        stats = self.bench.engine.stats()
        assert (stats.blocks_used, stats.running, stats.waiting) == (0, 0, 0)


TestRandom = Random.TestCase
TestRandom.settings = hypothesis_settings(max_examples=200, stateful_step_count=30, deadline=None)
