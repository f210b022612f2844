"""The replicas of one model, and which of them a request goes to."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from penstock.engine.front_settings import FrontSettings
from penstock.engine.prefix_map import PrefixMap
from penstock.engine.replica import Replica
from penstock.engine.settings import OnProgress, Resolved
from penstock.engine.wire import Start
from penstock.vocabulary.errors import InvalidRequest, Overloaded, Unavailable
from penstock.vocabulary.messages import EngineStats, Request, Step

COMPLETION_TOKENS = 128
"""What a completion in flight counts, in tokens of a prompt: what is left of it. In the median of
ShareGPT a request takes 95 tokens and 150 more, and on average it is half done.
"""


class Replicas:
    """All replicas. Each has its own queue, bounded by itself, and its own end.

    A request goes where least is to be computed before it: `COMPLETION_TOKENS` for each completion
    in flight there, and what of its prompt is not cached there. Among equals it goes to the one
    that has been passed over for longest.
    """

    def __init__(
        self,
        starts: Sequence[Start],
        front: FrontSettings,
        on_step: Callable[[int, Step], None],
    ) -> None:
        """`on_step` is told the number of a replica and what it has computed."""
        self.all = [Replica(start, front, on_step, self._forget) for start in starts]
        self._turns = list(self.all)  # who was passed over for longest comes first
        self._prefixes: PrefixMap | None = None

    async def start(self, on_progress: OnProgress) -> None:
        """Have all of them load the model. Raises `ModelError` or `SettingsError` if one cannot;
        none is left running then.
        """
        progress = [(0, 0)] * len(self.all)

        def tell(number: int, done: int, total: int) -> None:
            progress[number] = done, total
            all_done, in_all = map(sum, zip(*progress, strict=True))
            on_progress(all_done, in_all)

        starting = [
            asyncio.create_task(replica.start(partial(tell, replica.number)))
            for replica in self.all
        ]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)
            await self.close()
            raise
        if len(self.all) > 1 and self.resolved.prefix_caching:
            self._prefixes = PrefixMap(sum(each.resolved.kv_tokens for each in self.all))

    async def close(self) -> None:
        """Stop all of them. Requests still in flight end with `EngineFailed`."""
        await asyncio.gather(*(replica.close() for replica in self.all))

    @property
    def resolved(self) -> Resolved:
        """The settings of the one that can do least: memory may be fitted differently to each."""
        return min(
            (each.resolved for each in self.all),
            key=lambda own: (own.max_model_len, own.num_blocks),
        )

    @property
    def stats(self) -> EngineStats:
        return summed(replica.stats for replica in self.all)

    def reset_prefix_caches(self) -> None:
        """Have all of them forget what they have cached. Raises `Unavailable` if there is none."""
        for replica in self._running():
            replica.reset_prefix_cache()
            self._forget(replica.number)

    def check_room(self) -> None:
        """Raises what `choose` would now raise of any request, however small."""
        _with_room(_answering(self._running()), 1)

    def choose(self, request: Request) -> Replica:
        """The one to submit this request to, now.

        Raises `Unavailable` while none is running, `Overloaded` if no more may wait anywhere, and
        `InvalidRequest` if that will not change, or if another request has its id.
        """
        running = self._running()
        if any(replica.holds(request.request_id) for replica in self.all):
            raise InvalidRequest(
                f"Request id {request.request_id!r} is in use.", param="request_id"
            )
        with_room = _with_room(_answering(running), request.sampling.n)
        return with_room[0] if len(self.all) == 1 else self._least(with_room, request)

    def _least(self, replicas: Sequence[Replica], request: Request) -> Replica:
        prefixes = self._prefixes
        chunks = prefixes.chunks(request) if prefixes else []

        def before_it(replica: Replica) -> int:
            cached = prefixes.num_cached(chunks, replica.number) if prefixes else 0
            return COMPLETION_TOKENS * replica.load - cached

        chosen = min((each for each in self._turns if each in replicas), key=before_it)
        self._turns.remove(chosen)
        self._turns.append(chosen)
        if prefixes:
            prefixes.sent(chunks, chosen.number)
        return chosen

    def _running(self) -> list[Replica]:
        running = [replica for replica in self.all if replica.is_running]
        if not running:
            raise Unavailable("The engine is being started again.", remedy="Try again in a moment.")
        return running

    def _forget(self, number: int) -> None:
        if self._prefixes:
            self._prefixes.forget(number)


def summed(stats: Iterable[EngineStats]) -> EngineStats:
    """Several engines as if they were one."""
    every = list(stats)
    return EngineStats(
        **{name: sum(getattr(one, name) for one in every) for name in EngineStats.__struct_fields__}
    )


def _answering(running: list[Replica]) -> list[Replica]:
    """Where nobody answers, any that runs may yet."""
    return [replica for replica in running if replica.is_ready] or running


def _with_room(replicas: Sequence[Replica], num_sequences: int) -> list[Replica]:
    most = max(replica.max_load for replica in replicas)
    if num_sequences > most:
        raise InvalidRequest(
            f"{num_sequences} completions are more than the {most} that may run or wait at once.",
            param="n",
        )
    with_room = [
        replica for replica in replicas if replica.load + num_sequences <= replica.max_load
    ]
    if not with_room:
        in_flight = sum(replica.load for replica in replicas)
        raise Overloaded(
            f"{in_flight} completions are running or waiting, and no more may wait.",
            retry_after_s=min(replica.retry_after_s() for replica in replicas),
        )
    return with_room
