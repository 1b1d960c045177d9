"""Who gets which place, and who waits."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import Mock

import pytest

from aixcoder_serving.gateway import dispatch
from aixcoder_serving.gateway.dispatch import Body, Dispatcher, Superseded, Wish
from aixcoder_serving.gateway.editor import Editor, affinity
from aixcoder_serving.gateway.fleet import Fleet
from aixcoder_serving.gateway.ledger import Ledger
from aixcoder_serving.gateway.problems import Problem
from aixcoder_serving.gateway.routing import View
from aixcoder_serving.gateway.upstream import Lost
from aixcoder_serving.protocol import CompletionRequest, DeploymentView, LoadReport, Sampling

ONE, TWO = "10.0.0.1:30000", "10.0.0.2:30000"
ONE_BODY = {"first": "def f", "second": "def fo"}
"""Name and prefix of two completions; the second one goes on with the first."""


class Reports:
    """Streams that the test writes."""

    def __init__(self) -> None:
        self.takers: dict[str, Callable[[LoadReport], None]] = {}
        self.ends: dict[str, asyncio.Future[None]] = {}
        self._numbers = 0

    async def reports(self, address: str, uid: str, take: Callable[[LoadReport], None]) -> None:
        self.takers[address] = take
        self.ends[address] = asyncio.get_running_loop().create_future()
        await self.ends[address]

    def tell(self, address: str, room: int, *, tokens: int = 0, draining: bool = False) -> None:
        self._numbers += 1
        self.takers[address](
            LoadReport(
                number=self._numbers,
                slots=4,
                running=0,
                waiting=0,
                room=room,
                tokens=tokens,
                blocks_free=1,
                draining=draining,
                steps=0,
            )
        )

    def die(self, address: str) -> None:
        self.ends[address].set_exception(Lost("gone"))


DEPLOYMENT = DeploymentView.model_validate(
    {
        "metadata": {"name": "d", "namespace": "ns", "uid": "uid", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"traffic": {"version": 1, "weights": {"unit": 100}}},
    }
)


@dataclass
class Table:
    view: View | None = field(default_factory=lambda: View.of([DEPLOYMENT], {("ns", "unit"): (ONE, TWO)}))

    async def run(self) -> None: ...


def a_wish(
    name: str,
    *,
    key: str = "k",
    who: Editor | None = None,
    prefix: str = "x",
    patience: float = 5.0,
    size: int = 10,
    deployment: DeploymentView = DEPLOYMENT,
    body: Body | None = None,
) -> Wish:
    request = CompletionRequest(id=name, prefix=prefix, suffix="s", sampling=Sampling(max_tokens=50))
    body = body or Body()
    return Wish(deployment, request, key, 1.0, who, affinity(who, request), 100, size, 0, patience, body=body)


@dataclass
class Desk:
    """A dispatcher over two replicas, and the requests that have a place."""

    dispatcher: Dispatcher
    fleet: Fleet
    reports: Reports
    ledger: Ledger
    table: Table
    placed: dict[str, str] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    release: dict[str, asyncio.Event] = field(default_factory=dict)
    wishes: dict[str, Wish] = field(default_factory=dict)

    def ask(self, name: str, **wished: Any) -> asyncio.Task[None]:
        """Ask for a place with `a_wish`, and hold it until it is released."""
        wish = self.wishes[name] = a_wish(name, **wished)
        self.release[name] = asyncio.Event()

        async def hold() -> None:
            async with self.dispatcher.place(wish) as address:
                self.placed[name] = address
                await self.release[name].wait()

        task = asyncio.create_task(hold())
        self.tasks.append(task)
        return task

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@asynccontextmanager
async def opened() -> AsyncIterator[Desk]:
    reports, ledger, table = Reports(), Ledger("uid", lambda: 0.0), Table()
    async with AsyncExitStack() as stack:
        fleet = Fleet(reports, lambda: dispatcher.pump())
        stack.push_async_callback(fleet.close)
        dispatcher = Dispatcher(table, fleet, ledger)
        fleet.keep({ONE: "uid", TWO: "uid"})
        await asyncio.sleep(0)
        desk = Desk(dispatcher, fleet, reports, ledger, table)
        try:
            yield desk
        finally:
            for task in desk.tasks:
                task.cancel()
            await asyncio.gather(*desk.tasks, return_exceptions=True)


async def test_a_replica_gets_no_more_than_it_has_room_for() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        desk.reports.tell(TWO, 2)
        for n in range(5):
            desk.ask(f"r{n}")
        await desk.settle()
        assert sorted(desk.placed.values()) == [ONE, TWO, TWO]
        assert desk.ledger.of("ns", "d").waiting == 2


async def test_who_waits_goes_on_when_a_place_is_left_or_room_is_told() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        desk.reports.tell(TWO, 0)
        for n in range(3):
            desk.ask(f"r{n}")
        await desk.settle()
        assert desk.placed == {"r0": ONE}
        desk.release["r0"].set()
        await desk.settle()
        assert desk.placed == {"r0": ONE, "r1": ONE}
        desk.reports.tell(TWO, 1)
        await desk.settle()
        assert desk.placed == {"r0": ONE, "r1": ONE, "r2": TWO}


async def test_a_refused_request_goes_back_to_its_place() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        desk.reports.tell(TWO, 0)
        places: list[str] = []

        async def refused(name: str, times: int) -> None:
            wish = a_wish(name)
            for attempt in range(times + 1):
                async with desk.dispatcher.place(wish) as address:
                    places.append(f"{name} {attempt}")
                    if attempt < times:
                        desk.fleet.load(address).refused(wish.request.id)

        first = asyncio.create_task(refused("first", 1))
        await desk.settle()
        second = asyncio.create_task(refused("second", 0))
        await desk.settle()
        assert places == ["first 0"]
        for _ in range(3):
            desk.reports.tell(ONE, 1)
            await desk.settle()
        await asyncio.gather(first, second)
        assert places == ["first 0", "first 1", "second 0"]


async def test_a_refused_request_that_was_typed_on_meanwhile_is_superseded() -> None:
    me = Editor("k", "s")
    old, new = a_wish("old", who=me, prefix="def f"), a_wish("new", who=me, prefix="def fo")
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        desk.reports.tell(TWO, 0)
        async with desk.dispatcher.place(old) as address:
            newer = asyncio.ensure_future(desk.dispatcher.place(new).__aenter__())
            await desk.settle()
            desk.fleet.load(address).refused("old")
        with pytest.raises(Superseded):
            await desk.dispatcher.place(old).__aenter__()
        newer.cancel()
        await asyncio.gather(newer, return_exceptions=True)


async def test_one_that_a_replica_has_begun_is_not_superseded_while_it_waits_for_another() -> None:
    me = Editor("k", "s")
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        old = desk.ask("old", who=me, prefix="def f")
        desk.wishes["old"].body.begun = True
        await desk.settle()
        desk.ask("new", who=me, prefix="def fo")
        await desk.settle()
        assert not old.done()


async def test_the_completions_of_one_body_supersede_each_other_never_and_another_bodys_all_at_once() -> None:
    me = Editor("k", "s")
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        batch = Body()
        first, second = (desk.ask(name, who=me, prefix=prefix, body=batch) for name, prefix in ONE_BODY.items())
        await desk.settle()
        assert not first.done()
        assert not second.done()
        desk.ask("new", who=me, prefix="def foo")
        await desk.settle()
        assert isinstance(first.exception(), Superseded)
        assert isinstance(second.exception(), Superseded)


async def test_of_a_body_that_a_replica_has_begun_nothing_is_superseded() -> None:
    me = Editor("k", "s")
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        desk.reports.tell(TWO, 0)
        batch = Body()
        runs, waits = (desk.ask(name, who=me, prefix=prefix, body=batch) for name, prefix in ONE_BODY.items())
        await desk.settle()
        desk.wishes["first"].body.begun = True
        desk.ask("new", who=me, prefix="def foo")
        await desk.settle()
        assert desk.placed.keys() == {"first"}
        assert not runs.done()
        assert not waits.done()


async def test_a_more_patient_client_that_joins_lengthens_the_wait() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        waits = desk.ask("r", patience=0.05)
        await desk.settle()
        desk.wishes["r"].last(5.0, asyncio.get_running_loop().time())
        await asyncio.sleep(0.15)
        assert not waits.done()
        desk.reports.tell(ONE, 1)
        await desk.settle()
        assert desk.placed == {"r": ONE}


async def test_a_queue_of_a_deployment_that_is_no_more_is_forgotten() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        await asyncio.sleep(0)
        desk.ask("r")
        await desk.settle()
        desk.release["r"].set()
        await desk.settle()
        ticks = asyncio.create_task(desk.dispatcher.run())
        await asyncio.sleep(0.15)
        assert len(desk.dispatcher._queues) == 1
        desk.table.view = View.of([], {})
        await asyncio.sleep(0.15)
        assert not desk.dispatcher._queues
        ticks.cancel()
        await asyncio.gather(ticks, return_exceptions=True)


async def test_a_wait_ends_with_the_clients_patience() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        with pytest.raises(Problem) as caught:
            await desk.ask("r", patience=0.01)
        assert (caught.value.code, caught.value.status, caught.value.retry_after) == ("overloaded", 503, 1)
        assert desk.ledger.of("ns", "d").waiting == 0


async def test_a_wait_that_would_be_too_long_is_refused_at_once() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        for n in range(40):
            desk.ask(f"r{n}", patience=5.0)
        await desk.settle()
        with pytest.raises(Problem, match="busy"):
            await asyncio.wait_for(desk.ask("late", patience=1.0), 0.5)
        quiet = desk.ask("another key's", key="quiet", patience=1.0)
        await desk.settle()
        assert not quiet.done()


async def test_without_replicas_it_is_held_and_the_wish_is_latched() -> None:
    async with opened() as desk:
        desk.table.view = View.of([DEPLOYMENT], {})
        desk.ask("r")
        await desk.settle()
        counters = desk.ledger.page(0).deployments[0].counters
        assert (counters.wakes, desk.placed) == (1, {})
        desk.table.view = View.of([DEPLOYMENT], {("ns", "unit"): (ONE,)})
        desk.reports.tell(ONE, 1)
        await desk.settle()
        assert desk.placed == {"r": ONE}
        desk.table.view = View.of([DEPLOYMENT], {})
        with pytest.raises(Problem) as caught:
            await desk.ask("s", patience=0.01)
        assert caught.value.code == "no_replica"


async def test_a_queued_request_that_the_next_one_continues_is_superseded() -> None:
    me = Editor("k", "s")
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        old = desk.ask("old", who=me, prefix="def f")
        elsewhere = desk.ask("elsewhere", who=me, prefix="class A")
        nobodys = desk.ask("nobodys", prefix="def f")
        await desk.settle()
        desk.ask("new", who=me, prefix="def fo")
        await desk.settle()
        with pytest.raises(Superseded):
            await old
        assert not elsewhere.done()
        assert not nobodys.done()


async def test_one_that_runs_is_never_superseded() -> None:
    me = Editor("k", "s")
    async with opened() as desk:
        desk.reports.tell(ONE, 4)
        desk.reports.tell(TWO, 4)
        old = desk.ask("old", who=me, prefix="def f")
        await desk.settle()
        desk.ask("new", who=me, prefix="def fo")
        await desk.settle()
        assert not old.done()
        assert desk.placed["old"] == desk.placed["new"]


async def test_a_client_that_leaves_while_it_waits_leaves_nothing() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        desk.reports.tell(TWO, 0)
        desk.ask("r0")
        gone = desk.ask("gone")
        await desk.settle()
        gone.cancel()
        await desk.settle()
        desk.release["r0"].set()
        desk.ask("r1")
        await desk.settle()
        assert desk.placed == {"r0": ONE, "r1": ONE}


async def test_one_that_leaves_just_when_it_gets_its_place_gives_it_back() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        gone = desk.ask("gone")
        await desk.settle()
        desk.reports.tell(ONE, 1)  # the place is given, and not yet taken
        gone.cancel()
        await desk.settle()
        desk.ask("next")
        await desk.settle()
        assert desk.placed == {"next": ONE}


async def test_one_that_left_just_before_a_place_is_free_gets_none() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        gone = desk.ask("gone")
        desk.ask("next")
        await desk.settle()
        gone.cancel()
        desk.reports.tell(ONE, 1)  # before the one that left has noticed
        await desk.settle()
        assert desk.placed == {"next": ONE}


async def test_who_dies_or_leaves_gets_nothing_new() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 4)
        desk.reports.tell(TWO, 4)
        desk.reports.die(ONE)
        await desk.settle()
        for n in range(3):
            desk.ask(f"r{n}")
        await desk.settle()
        assert set(desk.placed.values()) == {TWO}
        desk.reports.tell(TWO, 4, draining=True)
        waits = desk.ask("waits")
        await desk.settle()
        assert not waits.done()
        assert "waits" not in desk.placed


@pytest.mark.parametrize(("target_ms", "late"), [(None, 1), (20, 1), (400, 0)])
async def test_late_ones_are_counted_once_whatever_became_of_them(target_ms: int | None, late: int) -> None:
    spec = {} if target_ms is None else {"autoscaling": {"queueTimeTargetMs": target_ms}}
    deployment = DeploymentView.model_validate(DEPLOYMENT.model_dump(by_alias=True) | {"spec": spec})
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        with pytest.raises(Problem):
            await desk.ask("r", patience=0.25, deployment=deployment)
        assert desk.ledger.page(0).deployments[0].counters.waited_over_target == late


async def test_a_late_one_is_counted_while_it_still_waits() -> None:
    """In the second in which it became late, not in that in which its client lost patience."""
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        waits = desk.ask("r", patience=5.0)
        await desk.settle()
        async with asyncio.timeout(2):
            while not desk.ledger.page(0).deployments[0].counters.waited_over_target:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not waits.done()


async def test_a_revision_without_room_leaves_its_share_to_the_other() -> None:
    raw = DEPLOYMENT.model_dump(by_alias=True) | {"status": {"traffic": {"weights": {"one": 50, "two": 50}}}}
    split = DeploymentView.model_validate(raw)
    async with opened() as desk:
        desk.table.view = View.of([split], {("ns", "one"): (ONE,), ("ns", "two"): (TWO,)})
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 8)
        for n in range(6):
            desk.ask(f"r{n}", who=Editor("k", str(n)))
        await desk.settle()
        assert set(desk.placed.values()) == {TWO}
        assert len(desk.placed) == 6


async def test_who_comes_back_after_its_patience_waits_no_more() -> None:
    """Also where a place is free at once: it would go round for ever between replicas that refuse connections."""
    async with opened() as desk:
        desk.reports.tell(ONE, 4)
        wish = a_wish("r", patience=0.02)
        async with desk.dispatcher.place(wish):
            await asyncio.sleep(0.03)
        with pytest.raises(Problem) as caught:
            async with desk.dispatcher.place(wish):
                pass
        assert caught.value.code == "overloaded"
        assert desk.ledger.of("ns", "d").waiting == 0


async def test_no_key_fills_the_queue_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "HELD_MOST", 3)
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        greedy = [desk.ask(f"r{n}", key="greedy") for n in range(4)]
        await desk.settle()
        with pytest.raises(Problem):
            await greedy[3]
        other = desk.ask("o", key="other")
        await desk.settle()
        assert not other.done()
        with pytest.raises(Problem) as caught:
            await greedy[2]  # the newest of the largest makes room
        assert (caught.value.code, caught.value.status) == ("overloaded", 503)
        assert [task.done() for task in greedy] == [False, False, True, True]


async def test_no_key_fills_the_queue_with_few_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bytes are the bound, the one with the most of them makes room: not the one with the most requests."""
    monkeypatch.setattr(dispatch, "HELD_BYTES", 100)
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        small = [desk.ask(f"s{n}", key="small", size=5) for n in range(4)]
        large = [desk.ask(f"l{n}", key="large", size=40) for n in range(3)]
        await desk.settle()
        assert [task.done() for task in small] == [False] * 4
        with pytest.raises(Problem):
            await large[2]
        more = desk.ask("s4", key="small", size=5)
        await desk.settle()
        assert not more.done()
        with pytest.raises(Problem):
            await large[1]
        assert not large[0].done()


async def test_who_is_refused_supersedes_nothing() -> None:
    """The one that waits keeps the place that it has earned."""
    who = Editor("k", "e")
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        older = desk.ask("older", who=who, prefix="def f")
        await desk.settle()
        desk.dispatcher._queue(DEPLOYMENT).hold_seconds = 1e3
        others = [desk.ask(f"o{n}", key=f"k{n}", patience=1e6) for n in range(3)]
        newer = desk.ask("newer", who=who, prefix="def fo")
        await desk.settle()
        with pytest.raises(Problem):
            await newer
        assert not older.done()
        patient = desk.ask("patient", who=who, prefix="def fo", patience=1e6)
        await desk.settle()
        with pytest.raises(Superseded):
            await older
        assert not any(task.done() for task in (*others, patient))


async def test_nobody_is_looked_for_while_nothing_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """To find who is next takes a look at all that wait, and each report of each replica asks."""
    async with opened() as desk:
        desk.reports.tell(ONE, 0)
        desk.reports.tell(TWO, 0)
        desk.ask("r")
        await desk.settle()
        queue = desk.dispatcher._queue(DEPLOYMENT).waiting
        peek = Mock(wraps=queue.peek)
        monkeypatch.setattr(queue, "peek", peek)
        for _ in range(100):
            desk.reports.tell(ONE, 0)
        assert not peek.called
        desk.reports.tell(ONE, 1)
        await desk.settle()
        assert peek.called
        assert desk.placed == {"r": ONE}


async def test_what_a_request_should_avoid_is_used_where_all_others_are_full() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 4)
        desk.reports.tell(TWO, 0)
        wish = a_wish("r")
        wish.avoid.add(ONE)
        async with asyncio.timeout(1), desk.dispatcher.place(wish) as address:
            assert address == ONE


async def test_a_key_pays_for_what_it_used() -> None:
    """Who cancels after ten tokens of a hundred is behind by ten."""
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        desk.reports.tell(TWO, 0)
        for key, used in (("a much", 60), ("b little", 10)):
            wish = a_wish("r", key=key)
            async with desk.dispatcher.place(wish):
                wish.used = used
        desk.reports.tell(ONE, 0)
        desk.ask("much", key="a much")
        desk.ask("little", key="b little")
        await desk.settle()
        desk.reports.tell(ONE, 1)
        await desk.settle()
        assert list(desk.placed) == ["little"]


async def test_a_replica_whose_follower_has_ended_is_followed_again() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        following = desk.fleet._replica(ONE).following
        assert following is not None
        following.cancel()
        await desk.settle()
        desk.fleet.keep({ONE: "uid", TWO: "uid"})
        again = desk.fleet._replica(ONE).following
        assert again is not None
        assert again is not following


async def test_a_replica_that_tells_nothing_yet_is_better_than_the_one_a_request_was_lost_at() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 4)
        wish = a_wish("r")
        wish.avoid.add(ONE)
        async with asyncio.timeout(1), desk.dispatcher.place(wish) as address:
            assert address == TWO


async def test_an_address_that_is_another_deployments_now_tells_nothing_of_before() -> None:
    async with opened() as desk:
        desk.reports.tell(ONE, 1)
        assert desk.fleet.load(ONE).report is not None
        desk.fleet.keep({ONE: "another one's", TWO: "uid"})
        await desk.settle()
        assert desk.fleet.load(ONE).report is None
