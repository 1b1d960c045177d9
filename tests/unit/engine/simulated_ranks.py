"""Ranks without a model: the 'keys and values' of a position are a hash of all tokens up to it.

A cache that holds anything else than it should gives other tokens than `completion`, the same arithmetic without cache.
"""

from collections.abc import Collection, Sequence

from aixcoder_serving.engine.plan import Admission, Plan, Sampled, StepResult, Work

VOCABULARY = 11
EMPTY = -1
NOT_A_NUMBER = -2


def _mix(state: int, token: int) -> int:
    if state == NOT_A_NUMBER:
        return state
    return (state * 1_000_003 + token * 7919 + 12345) % (2**61 - 1)


def _token(state: int, seed: int, banned: Collection[int] = ()) -> int:
    """The first id from a place on that is not banned."""
    first = (state >> 7 ^ seed) % VOCABULARY
    while first in banned:
        first = (first + 1) % VOCABULARY
    return first


def completion(
    prompt: Sequence[int], seed: int, length: int, *, stop_ids: Collection[int] = (), min_tokens: int = 0
) -> list[int]:
    """What the engine must answer, one token at a time and alone; stop ids end nothing, and come after `min_tokens`."""
    state, made = 0, list[int]()
    for token in prompt:
        state = _mix(state, token)
    for _ in range(length):
        made.append(_token(state, seed, stop_ids if len(made) < min_tokens else ()))
        state = _mix(state, made[-1])
    return made


class SimulatedRanks:
    """An `Executor`. Counts what it computes."""

    def __init__(self, blocks: int, block_size: int, slots: int) -> None:
        self.block_size = block_size
        self.pages = [[EMPTY] * block_size for _ in range(blocks)]
        self.tables: list[list[int]] = [[] for _ in range(slots)]
        self.tokens: list[list[int]] = [[] for _ in range(slots)]
        self.admitted: list[Admission | None] = [None] * slots
        self.plans: list[Plan] = []
        self.computed = 0
        self.fault: Exception | None = None
        """Raised by the next step, half-way through."""
        self.fault_at_once: Exception | None = None
        """Raised by the next step before it does anything."""
        self.spoilt: tuple[int, int] | None = None
        """A slot and a position that becomes NaN when it is computed next, and with it all that reads it."""

    def run(self, plan: Plan) -> StepResult:
        self.plans.append(plan)
        if self.fault_at_once is not None:
            fault, self.fault_at_once = self.fault_at_once, None
            raise fault
        for admission in plan.admissions:
            self.tables[admission.slot] = []
            self.tokens[admission.slot] = list(admission.prompt)
            self.admitted[admission.slot] = admission
        for source, target in plan.copies:
            self.pages[target] = list(self.pages[source])
        assert len({work.slot for work in plan.work}) == len(plan.work), "a slot has one work a step"
        results = []
        for i, work in enumerate(plan.work):
            if self.fault is not None and i == len(plan.work) // 2:
                half_way, self.fault = self.fault, None
                raise half_way
            results.append(self._run(work))
        return StepResult(tuple(results))

    def _run(self, work: Work) -> Sampled:
        table, tokens = self.tables[work.slot], self.tokens[work.slot]
        table.extend(work.blocks)
        known = work.start + work.count - len(work.draft)
        assert work.count > 0
        assert len(tokens) >= known, "every query token but a draft is known"
        assert work.sample == (len(tokens) == known)
        query = [*tokens[work.start : known], *work.draft]
        state = self._read(table, work.start - 1) if work.start else 0
        states = []
        for position, token in enumerate(query, work.start):
            state = _mix(state, token)
            if self.spoilt == (work.slot, position):
                self.spoilt, state = None, NOT_A_NUMBER
            self.pages[table[position // self.block_size]][position % self.block_size] = state
            states.append(state)
        self.computed += work.count
        if not work.sample:
            return Sampled(())
        made: list[int] = []
        admission = self.admitted[work.slot]
        assert admission is not None, "a slot works for the request that was admitted to it"
        wish, generated = admission.sampling, known - len(admission.prompt)
        for i, state in enumerate(states[work.count - len(work.draft) - 1 :]):
            if state == NOT_A_NUMBER:
                return Sampled(tuple(made), broken=True)
            banned = wish.stop_ids if generated + i < wish.min_tokens else ()
            made.append(_token(state, admission.seed, banned))
            if i < len(work.draft) and made[-1] != work.draft[i]:
                break
        tokens += made
        return Sampled(tuple(made))

    def _read(self, table: Sequence[int], position: int) -> int:
        state = self.pages[table[position // self.block_size]][position % self.block_size]
        assert state != EMPTY, "a position is read that was never computed"
        return state
