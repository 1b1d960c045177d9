"""What becomes of one completion: retries, continuation, sharing, cancelling."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from aixcoder_serving.gateway import flight as flight_module
from aixcoder_serving.gateway.dispatch import Dispatcher, Wish
from aixcoder_serving.gateway.editor import Editor
from aixcoder_serving.gateway.estimate import TokenEstimate
from aixcoder_serving.gateway.fleet import Fleet
from aixcoder_serving.gateway.flight import Airspace
from aixcoder_serving.gateway.flights import Flights
from aixcoder_serving.gateway.ledger import Ledger
from aixcoder_serving.gateway.metrics import Metrics
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.routing import View
from aixcoder_serving.gateway.setbacks import Poison, RetryBudget
from aixcoder_serving.gateway.upstream import Broken, Busy, Left, Lost, NotTaken, Rejected, UpstreamError
from aixcoder_serving.protocol import (
    PROTOCOL_VERSION,
    Begun,
    CompletionRequest,
    Delta,
    DeploymentView,
    Finished,
    LoadCounters,
    LoadReport,
    Sampling,
    Started,
)

ONE, TWO = "10.0.0.1:30000", "10.0.0.2:30000"
DEPLOYMENT = DeploymentView.model_validate(
    {
        "metadata": {"name": "d", "namespace": "ns", "uid": "uid", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"traffic": {"version": 1, "weights": {"unit": 100}}},
    }
)
STARTED = Started(prompt_tokens=5)
TEXT = [Delta(text="a", token_ids=(1,)), Delta(text="b", token_ids=(2,)), Delta(text="c", token_ids=(3,))]
FINISHED = Finished(finish_reason="stop", prompt_tokens=5, completion_tokens=3, cached_tokens=1)

Step = Started | Delta | Finished | UpstreamError | float


@dataclass
class Replicas:
    """Both replicas, with a script for each request that comes: messages, errors, and seconds to wait."""

    scripts: list[list[Step]] = field(default_factory=list)
    asked: list[tuple[str, CompletionRequest]] = field(default_factory=list)
    cancelled: int = 0
    takers: dict[str, Callable[[LoadReport], None]] = field(default_factory=dict)
    ends: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    async def generate(
        self, address: str, uid: str, request: CompletionRequest
    ) -> AsyncGenerator[Started | Delta | Finished]:
        self.asked.append((address, request))
        script = self.scripts.pop(0)
        try:
            for step in script:
                await asyncio.sleep(step if isinstance(step, float) else 0)
                if isinstance(step, UpstreamError):
                    raise step
                if not isinstance(step, float):
                    yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    async def reports(self, address: str, uid: str, take: Callable[[LoadReport], None]) -> None:
        self.takers[address] = take
        self.ends[address] = asyncio.get_running_loop().create_future()
        self.tell(address)
        await self.ends[address]

    def tell(self, address: str, version: int = PROTOCOL_VERSION, *, draining: bool = False) -> None:
        report = LoadReport(number=1, slots=4, running=0, waiting=0, room=4, tokens=0, blocks_free=1, steps=0)
        self.takers[address](report.model_copy(update={"version": version, "draining": draining}))


@dataclass
class Sky:
    replicas: Replicas
    flights: Flights
    ledger: Ledger
    poison: Poison
    metrics: Metrics

    def wish(self, name: str = "r", *, key: str = "k", **sampling: Any) -> Wish:
        options = {"max_tokens": 50, **sampling}
        request = CompletionRequest(id=name, prefix="x", suffix="s", sampling=Sampling.model_validate(options))
        return Wish(DEPLOYMENT, request, key, 1.0, Editor(key, ""), b"", 100, 10, 0, 5.0)

    async def whole(self, wish: Wish) -> str:
        async with self.flights.aboard(wish, self.ledger.of("ns", "d")) as flight:
            return (await flight.transcript.whole()).text

    async def streamed(self, wish: Wish, seen: list[str]) -> None:
        async with self.flights.aboard(wish, self.ledger.of("ns", "d")) as flight:
            async for piece in flight.transcript.read():
                seen.extend([piece.text])

    async def left(self, wish: Wish, after_s: float = 0.02) -> None:
        """Its client leaves while it is answered."""
        reader = asyncio.create_task(self.whole(wish))
        await asyncio.sleep(after_s)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)

    @property
    def counters(self) -> LoadCounters:
        return self.ledger.page(0).deployments[0].counters


@dataclass
class Table:
    view: View | None = field(default_factory=lambda: View.of([DEPLOYMENT], {("ns", "unit"): (ONE, TWO)}))

    async def run(self) -> None: ...


@asynccontextmanager
async def sky(*scripts: list[Step]) -> AsyncIterator[Sky]:
    replicas, ledger, poison, metrics = Replicas(list(scripts)), Ledger("uid", lambda: 0.0), Poison(), Metrics()
    fleet = Fleet(replicas, lambda: dispatcher.pump())
    dispatcher = Dispatcher(Table(), fleet, ledger)
    space = Airspace(dispatcher, fleet, replicas, metrics, RetryBudget(), poison, TokenEstimate())
    fleet.keep({ONE: "uid", TWO: "uid"})
    await asyncio.sleep(0)
    try:
        yield Sky(replicas, Flights(space), ledger, poison, metrics)
    finally:
        await fleet.close()


WHOLE: list[Step] = [STARTED, *TEXT, FINISHED]


@pytest.mark.parametrize(
    ("scripts", "retries", "refusals"),
    [
        pytest.param([WHOLE], 0, 0, id="at once"),
        pytest.param([[NotTaken("x")], WHOLE], 1, 0, id="no connection"),
        pytest.param([[Busy("x")], WHOLE], 0, 1, id="a refusal is no retry"),
        pytest.param([[Busy("x")], [Busy("x")], [NotTaken("x")], WHOLE], 1, 2, id="refused, and no connection"),
        pytest.param([[Lost("x")], WHOLE], 1, 0, id="lost before it began"),
        pytest.param([[STARTED, TEXT[0], Lost("x")], [STARTED, *TEXT[1:], FINISHED]], 1, 0, id="lost in the middle"),
    ],
)
async def test_it_is_completed(scripts: list[list[Step]], retries: int, refusals: int) -> None:
    async with sky(*scripts) as up:
        async with up.flights.aboard(up.wish(), up.ledger.of("ns", "d")) as flight:
            telling = asyncio.create_task(tell_room(up.replicas))
            assert (await asyncio.wait_for(flight.transcript.whole(), 2)).text == "abc"
            telling.cancel()
            assert flight.retries == retries
        assert up.counters.completed == 1
        assert up.metrics.registry.get_sample_value("aixcoder_gateway_upstream_refusals_total") == refusals


async def tell_room(replicas: Replicas) -> None:
    while True:
        await asyncio.sleep(0.01)
        for address in (ONE, TWO):
            replicas.tell(address)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.5, "seed": 1}])
async def test_another_replica_goes_on_with_a_stream_and_the_client_sees_nothing(sampling: dict[str, Any]) -> None:
    async with sky([STARTED, *TEXT[:2], 0.05, Lost("x")], [STARTED, TEXT[2], FINISHED]) as up:
        seen: list[str] = []
        await up.streamed(up.wish(**sampling), seen)
        assert "".join(seen) == "abc"
        (first, _), (second, rest) = up.replicas.asked
        assert first != second
        assert rest.generated_token_ids == (1, 2)


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param({"temperature": 0.5}, id="sampled"),
        pytest.param({"presence_penalty": 0.5}, id="with a penalty: it counts what was generated"),
        pytest.param({"logprobs": 1}, id="with logprobs"),
    ],
)
async def test_what_can_not_go_on_elsewhere_ends_in_an_error(sampling: dict[str, Any]) -> None:
    async with sky([STARTED, TEXT[0], 0.05, Lost("x")]) as up:
        seen: list[str] = []
        with pytest.raises(Problem, match="went away"):
            await up.streamed(up.wish(**sampling), seen)
        assert seen == ["a"]


async def test_what_nobody_has_seen_begins_anew() -> None:
    async with sky([STARTED, TEXT[0], Lost("x")], WHOLE) as up:
        assert await up.whole(up.wish(temperature=0.5)) == "abc"
        assert up.replicas.asked[1][1].generated_token_ids == ()


async def test_it_goes_on_once() -> None:
    async with sky([STARTED, Lost("x")], [STARTED, Lost("y")]) as up:
        with pytest.raises(Problem, match="went away"):
            await up.whole(up.wish())
        assert len(up.replicas.asked) == 2


async def test_replicas_that_leave_are_no_deaths() -> None:
    async with sky([STARTED, Left("x")], [STARTED, Left("y")], WHOLE) as up:
        with pytest.raises(Problem, match="went away"):
            await up.whole(up.wish())
        assert await up.whole(up.wish("again")) == "abc"


async def test_the_end_of_a_grace_is_no_death() -> None:
    """Its reports end before its completions are told to leave."""
    async with sky([STARTED, 60.0], [STARTED, 60.0], WHOLE) as up:
        reader = asyncio.create_task(up.whole(up.wish()))
        for number in range(2):
            await asyncio.sleep(0.02)
            address = up.replicas.asked[number][0]
            up.replicas.tell(address, draining=True)
            up.replicas.ends[address].set_exception(Lost("its grace is over"))
        with pytest.raises(Problem, match="went away"):
            await asyncio.wait_for(reader, 1)
        assert await up.whole(up.wish("again")) == "abc"


async def test_a_request_that_two_replicas_died_with_is_refused() -> None:
    async with sky([STARTED, Lost("x")], [STARTED, Lost("y")], WHOLE) as up:
        with pytest.raises(Problem, match="went away"):
            await up.whole(up.wish())
        with pytest.raises(Problem) as caught:
            await up.whole(up.wish("again"))
        assert caught.value.code == "suspected_poison"
        assert await up.whole(up.wish("another one's", key="other")) == "abc"


@pytest.mark.parametrize(
    ("error", "code", "param"),
    [
        pytest.param(Rejected("too long", "prompt"), "invalid_request", "prompt", id="the request's fault"),
        pytest.param(Broken("x"), "replica_failed", None, id="the replica's fault"),
    ],
)
async def test_what_no_other_replica_would_mend(error: UpstreamError, code: str, param: str | None) -> None:
    async with sky([error]) as up:
        with pytest.raises(Problem) as caught:
            await up.whole(up.wish())
        assert (caught.value.code, caught.value.param) == (code, param)


async def test_identical_requests_run_once() -> None:
    async with sky([STARTED, 0.02, *TEXT, FINISHED]) as up:
        texts = await asyncio.gather(*(up.whole(up.wish(f"r{n}")) for n in range(3)))
        assert texts == ["abc"] * 3
        assert len(up.replicas.asked) == 1
        assert (up.counters.arrivals, up.counters.completed) == (1, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"temperature": 0.5}, {"temperature": 0.5}, id="sampled without a seed"),
        pytest.param({"seed": 1, "temperature": 0.5}, {"seed": 2, "temperature": 0.5}, id="another seed"),
        pytest.param({}, {"max_tokens": 49}, id="another length"),
    ],
)
async def test_others_do_not(one: dict[str, Any], other: dict[str, Any]) -> None:
    async with sky([STARTED, 0.02, *TEXT, FINISHED], WHOLE) as up:
        await asyncio.gather(up.whole(up.wish("r", **one)), up.whole(up.wish("s", **other)))
        assert len(up.replicas.asked) == 2


async def test_keys_share_nothing() -> None:
    async with sky([STARTED, 0.02, *TEXT, FINISHED], WHOLE) as up:
        await asyncio.gather(up.whole(up.wish("r")), up.whole(up.wish("s", key="other")))
        assert len(up.replicas.asked) == 2


async def test_it_ends_when_the_last_reader_leaves() -> None:
    async with sky([STARTED, TEXT[0], 5.0], WHOLE) as up:
        readers = [asyncio.create_task(up.whole(up.wish(f"r{n}"))) for n in range(2)]
        await asyncio.sleep(0.02)
        readers[0].cancel()
        await asyncio.sleep(0.02)
        assert up.replicas.cancelled == 0
        readers[1].cancel()
        await asyncio.sleep(0.02)
        assert (up.replicas.cancelled, up.counters.cancelled_decode) == (1, 1)
        assert await up.whole(up.wish("after it")) == "abc"


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        pytest.param([5.0], "cancelled_prefill", id="before the first token"),
        pytest.param([STARTED, TEXT[0], 5.0], "cancelled_decode", id="after it"),
    ],
)
async def test_a_cancel_is_counted_by_phase(script: list[Step], phase: str) -> None:
    async with sky(script) as up:
        await up.left(up.wish())
        assert getattr(up.counters, phase) == 1


async def test_the_death_of_a_replica_is_noticed_by_its_reports() -> None:
    """Its connection says nothing: a node that vanished sends no end."""
    async with sky([STARTED, TEXT[0], 60.0], [STARTED, *TEXT[1:], FINISHED]) as up:
        reader = asyncio.create_task(up.whole(up.wish()))
        await asyncio.sleep(0.02)
        up.replicas.ends[up.replicas.asked[0][0]].set_exception(Lost("silent"))
        assert await asyncio.wait_for(reader, 1) == "abc"


def begun(waited_ms: float) -> Delta:
    return Delta(text="", token_ids=(), begun=Begun(cached_tokens=0, waited_ms=waited_ms))


COMPUTED = TEXT[0].model_copy(update={"begun": Begun(cached_tokens=1, waited_ms=0)})
"""The first delta of a replica that tells what it found in its cache."""


@pytest.mark.parametrize(
    ("scripts", "prefilled", "decoded"),
    [
        pytest.param([[STARTED, COMPUTED, *TEXT[1:], FINISHED]], 4, 3, id="whole"),
        pytest.param([[STARTED, FINISHED.model_copy(update={"completion_tokens": 1})]], 4, 0, id="one token"),
        pytest.param([[STARTED, FINISHED.model_copy(update={"completion_tokens": 0})]], 0, 0, id="nothing to compute"),
        pytest.param(
            [[STARTED, COMPUTED, Lost("x")], [STARTED, begun(0), TEXT[1], FINISHED]],
            4 + 5,
            2,
            id="at two replicas",
        ),
    ],
)
async def test_what_was_used_is_counted(scripts: list[list[Step]], prefilled: int, decoded: int) -> None:
    async with sky(*scripts) as up:
        await up.whole(up.wish())
        assert (up.counters.tokens_prefilled, up.counters.tokens_decoded) == (prefilled, decoded)


@pytest.mark.parametrize(
    ("script", "prefilled"),
    [
        pytest.param([STARTED, COMPUTED, 5.0], 4, id="after its first token"),
        pytest.param([STARTED, 5.0], 0, id="before it"),
    ],
)
async def test_what_one_used_that_is_cancelled_is_counted(script: list[Step], prefilled: int) -> None:
    async with sky(script) as up:
        await up.left(up.wish())
        assert (up.counters.tokens_prefilled, up.counters.completed) == (prefilled, 0)


@pytest.mark.parametrize(
    ("script", "late"),
    [
        pytest.param([STARTED, begun(150), *TEXT, FINISHED], 0, id="not too long"),
        pytest.param([STARTED, begun(250), *TEXT, FINISHED], 1, id="in the replica"),
        pytest.param([STARTED, begun(250), Lost("x")], 1, id="it died then"),
        pytest.param([0.15, STARTED, begun(100), *TEXT, FINISHED], 1, id="before it was accepted, and after"),
        pytest.param([STARTED, begun(0), 0.3, *TEXT, FINISHED], 0, id="a long prompt is no waiting"),
    ],
)
async def test_who_waits_too_long_is_counted_wherever_that_was(script: list[Step], late: int) -> None:
    async with sky(script, WHOLE) as up:
        assert await up.whole(up.wish()) == "abc"
        assert up.counters.waited_over_target == late


@pytest.mark.parametrize(
    ("script", "after_s", "half_step_s", "late"),
    [
        pytest.param([STARTED, 5.0], 0.02, 0.025, 0, id="soon"),
        pytest.param([STARTED, 5.0], 0.3, 0.2, 0, id="it may have begun in time, in the step that is not over"),
        pytest.param([STARTED, 5.0], 0.3, 0.025, 1, id="it had not begun in time"),
        pytest.param([STARTED, begun(0), 5.0], 0.3, 0.025, 0, id="it had begun"),
    ],
)
async def test_who_leaves_before_its_first_step_may_have_waited_too_long(
    script: list[Step], after_s: float, half_step_s: float, late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight_module, "HALF_STEP_SECONDS", half_step_s)
    async with sky(script) as up:
        await up.left(up.wish(), after_s)
        assert (up.counters.cancelled_prefill, up.counters.waited_over_target) == (1, late)


async def test_an_older_replica_is_asked_in_its_version() -> None:
    async with sky(WHOLE) as up:
        for address in (ONE, TWO):
            up.replicas.tell(address, version=PROTOCOL_VERSION - 1)
        await up.whole(up.wish())
        assert up.replicas.asked[0][1].version == PROTOCOL_VERSION - 1


async def test_who_leaves_with_the_whole_answer_has_not_cancelled() -> None:
    """The replica's connection is not at its end yet: the flight ends by itself."""
    async with sky([STARTED, *TEXT, FINISHED, 0.05]) as up:
        assert await up.whole(up.wish()) == "abc"
        assert up.counters.completed == 1
        await asyncio.sleep(0.1)
        assert (up.counters.cancelled_decode, up.replicas.cancelled) == (0, 0)


async def test_an_answer_whose_end_never_comes_is_complete_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_module, "_END_SECONDS", 0.02)
    async with sky([STARTED, *TEXT, FINISHED, 5.0]) as up:
        assert await up.whole(up.wish()) == "abc"
        await asyncio.sleep(0.1)
        assert (up.counters.completed, len(up.replicas.asked)) == (1, 1)
        assert up.replicas.cancelled == 1, "the connection is cut"


async def test_two_editors_that_ask_the_same_have_a_flight_each() -> None:
    async with sky([STARTED, 0.02, *TEXT, FINISHED], [STARTED, 0.02, *TEXT, FINISHED]) as up:
        wishes = [up.wish(f"r{n}") for n in range(2)]
        for n, wish in enumerate(wishes):
            wish.editor = Editor("k", f"editor {n}")
        assert await asyncio.gather(*(up.whole(wish) for wish in wishes)) == ["abc"] * 2
        assert len(up.replicas.asked) == 2


async def test_a_death_notice_is_not_put_off_by_a_message_of_the_same_moment() -> None:
    async with asyncio.timeout(5.0) as patience:
        now = asyncio.get_running_loop().time()
        patience.reschedule(now)
        flight_module._extend(patience, now, 30.0)
        assert patience.when() == now
        patience.reschedule(None)
        await asyncio.sleep(0)
