"""The measuring engine: processes that take turns, so that a drift of the machine meets all of them alike.

Each network has fresh processes, one after the other (``MeasureProfile.processes``), for a process keeps its luck with
memory as long as it lives. Only one process works at a time, a block of inferences each, in rounds: a random order of the
networks, forwards and then backwards (A B B A). Raw times of single inferences come back; statistics are derived when they
are read (:mod:`depthbench.suites.targets.intervals`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from depthbench.suites.results import Latency
from depthbench.suites.targets.intervals import NOISY_RSE, Timings, median_rse
from depthbench.suites.targets.processing import REPEATS
from depthbench.suites.targets.watch import EnergyCounter, ForeignLoad, contaminated, cpu_mhz, throttled
from depthbench.suites.targets.worker import Worker, WorkerDiedError


@dataclass(frozen=True)
class MeasureProfile:
    """How long a network is measured: at least ``seconds`` of inference and ``samples`` of them, in blocks of ``block_s``.

    ``processes``: fresh processes of each network, which share that length. ``longest``: a network whose median is not sharp by
    then goes on, up to so many times ``seconds``.
    """

    seconds: float
    samples: int
    block_s: float = 0.25
    warmup_s: float = 1.0
    warmup_runs: int = 10
    processes: int = 1
    longest: float = 1.5


@dataclass(frozen=True)
class Measured(Timings):
    """What the processes say of one network: warm-up and sample times in ms, and the round (``blocks``) of each sample.

    ``control``: the timings of a second network that is the first one again, where a control was asked for. ``facts``:
    ``load_ms``, ``first_ms``, ``peak_mem_mb``, ``idle_mem_mb`` (before the file was loaded), the runtime's version,
    ``foreign_cores`` (what other processes used in each round), ``cpu_mhz``, ``energy_mj`` an inference or
    ``energy_absent``, and ``pre_ms`` and ``post_ms`` (:mod:`depthbench.suites.targets.processing`) where they were asked
    for.
    """

    warmup_ms: list[float] = field(default_factory=list)
    control: Timings | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """What a process is started for: its module and words, the specification it loads, the words of a refusal, and
    environment variables.
    """

    module: str
    arguments: tuple[str, ...]
    spec: Mapping[str, Any]
    refusal: str
    environment: Mapping[str, str] = field(default_factory=dict)


class Arm:
    """A network, its process of the moment, and what has been measured of it so far."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.worker: Worker | None = None
        self.samples_ms: list[float] = []
        self.wall_ms: list[float] = []
        self.warmup_ms: list[float] = []
        self.blocks: list[int] = []
        self.ready: dict[str, Any] = {}
        self.around: dict[str, Any] = {}
        self.spent_s = 0.0
        self.energy_mj = 0.0
        self.peak_mem_mb = 0.0
        self.failed: str | None = None

    def start(self, stack: ExitStack) -> None:
        """A fresh process, which ends with ``stack``."""
        self.worker = stack.enter_context(
            Worker(self.network.module, *self.network.arguments, environment=self.network.environment)
        )

    def wait(self) -> None:
        """Until its process can load a network."""
        assert self.worker is not None
        try:
            self.worker.wait()
        except WorkerDiedError as error:
            self._fails(error)

    def _fails(self, error: WorkerDiedError) -> None:
        self.failed = f"{self.network.spec['file']}: {error}"

    def load(self, profile: MeasureProfile) -> None:
        """Load the network and warm it up; what is refused is written down in ``failed``."""
        assert self.worker is not None
        warmup = {"warmup_s": profile.warmup_s, "warmup_runs": profile.warmup_runs}
        try:
            self.worker.load({**self.network.spec, **warmup}, self.network.refusal)
        except ValueError as error:
            self.failed = str(error)
            return
        except WorkerDiedError as error:
            self._fails(error)
            return
        said = dict(self.worker.ready)
        self.warmup_ms += said.pop("warmup_ms")
        self.ready = self.ready or said

    def block(self, seconds: float, number: int, energy: EnergyCounter) -> float:
        """A block of inferences; seconds of processor time that it took."""
        assert self.worker is not None
        before = energy.read_uj()
        try:
            answer = self.worker.block(seconds)
        except WorkerDiedError as error:
            self._fails(error)
            return 0.0
        self.energy_mj += energy.spent_mj(before) if before else 0.0
        self.samples_ms += answer["samples_ms"]
        self.wall_ms += answer.get("wall_ms", [])
        self.blocks += [number] * len(answer["samples_ms"])
        self.spent_s += answer["wall_s"]
        self.peak_mem_mb = max(self.peak_mem_mb, answer["peak_mem_mb"])
        return float(answer["cpu_s"])

    def time_processing(self) -> None:
        """Have the process time what stands around the network."""
        assert self.worker is not None
        self.around = self.worker.ask({"processing": REPEATS})

    def done(self, profile: MeasureProfile) -> float:
        """Share of the profile that is done, 0 to 1."""
        return min(1.0, self.spent_s / profile.seconds, len(self.samples_ms) / profile.samples)

    def wants_more(self, profile: MeasureProfile) -> bool:
        """Whether the median is not sharp and there is still time to make it so."""
        return self.spent_s < profile.longest * profile.seconds and median_rse(self.samples_ms) > NOISY_RSE


def interleave(
    networks: Sequence[Network],
    profile: MeasureProfile,
    *,
    seed: int = 0,
    control: bool = False,
    processing: bool = False,
    clock: tuple[str, Callable[[], float | None]] = ("cpu_mhz", cpu_mhz),
    progress: Callable[[float], None] | None = None,
) -> list[Measured | str]:
    """Measure networks against each other; for each, in their order, what was measured or the reason why nothing was.

    ``control``: the first network once more among the others, so that its difference from itself can be seen. ``processing``:
    time what stands around a network too. ``clock``: the name of the clock that must not fall meanwhile, and what reads it
    (MHz, or None). ``progress`` receives the share done, 0 to 1.
    """
    order = random.Random(seed)
    watch = _Watch(*clock)
    arms = [Arm(network) for network in ([*networks, networks[0]] if control else networks)]

    def turn(life: int) -> None:
        at_work = _working(arms)
        row = order.sample(at_work, len(at_work))
        with watch.round(life) as used:
            used += [arm.block(profile.block_s / 2, watch.rounds - 1, watch.energy) for arm in _there_and_back(row)]
        if progress is not None:
            progress(sum(1.0 if arm.failed else arm.done(profile) for arm in arms) / len(arms))

    for life in range(profile.processes):
        share = (life + 1) / profile.processes
        with ExitStack() as stack:
            for arm in order.sample(at_work := _working(arms), len(at_work)):
                arm.start(stack)
            for arm in at_work:
                arm.wait()
            for arm in _working(at_work):
                arm.load(profile)
            while any(arm.done(profile) < share for arm in _working(arms)):
                turn(life)
            if share < 1:
                continue
            while any(arm.wants_more(profile) for arm in _working(arms)):
                for _ in range(max(1, watch.rounds // 10)):  # looking is not free
                    turn(life)
            if processing:
                for arm in _working(arms):
                    arm.time_processing()
    again = arms.pop() if control else None
    return [
        arm.failed or _measured(arm, watch, again if i == 0 and again and not again.failed else None)
        for i, arm in enumerate(arms)
    ]


class _Watch:
    """What the machine does round by round: foreign load, clocks, energy, and which process of a network was at work."""

    def __init__(self, clock: str, read_clock: Callable[[], float | None]) -> None:
        self.energy = EnergyCounter()
        self.clock = clock
        self.read_clock = read_clock
        self.processes: list[int] = []
        self.foreign_cores: list[float] = []
        self.clocks_mhz: list[float] = []

    @property
    def rounds(self) -> int:
        return len(self.processes)

    @contextmanager
    def round(self, life: int) -> Iterator[list[float]]:
        """A round; the processor seconds that its blocks took are put into the list."""
        used: list[float] = []
        self.processes.append(life)
        others = ForeignLoad()
        yield used
        self.foreign_cores.append(others.cores(sum(used)))
        if (clock := self.read_clock()) is not None:
            self.clocks_mhz.append(clock)


def _working(arms: Sequence[Arm]) -> list[Arm]:
    return [arm for arm in arms if arm.failed is None]


def _there_and_back(row: Sequence[Arm]) -> Iterator[Arm]:
    """A B B A, without those that fail on the way."""
    for arm in [*row, *reversed(row)]:
        if arm.failed is None:
            yield arm


def _measured(arm: Arm, watch: _Watch, again: Arm | None) -> Measured:
    absent = watch.energy.absent
    joules = {"energy_absent": absent} if absent else {"energy_mj": arm.energy_mj / len(arm.samples_ms)}
    watched = {"foreign_cores": watch.foreign_cores, watch.clock: watch.clocks_mhz}
    facts = {**arm.ready, "peak_mem_mb": arm.peak_mem_mb, **watched, **joules, **arm.around}
    if arm.wall_ms:
        facts["wall_ms"] = arm.wall_ms
    control = Timings(again.samples_ms, again.blocks, watch.processes) if again else None
    return Measured(arm.samples_ms, arm.blocks, watch.processes, arm.warmup_ms, control, facts)


def latency(
    measured: Measured, *, clock: str = "wall", threads: int | None = None, flags: Sequence[str] = ()
) -> Latency:
    """The record's latency of one measured network.

    Flags: ``noisy`` when its median is not sharp, ``contaminated`` when other processes kept the machine busy meanwhile,
    ``throttled`` when the clocks fell.
    """
    signs = {
        "noisy": median_rse(measured.samples_ms) > NOISY_RSE,
        "contaminated": contaminated(measured.facts.get("foreign_cores", [])),
        "throttled": throttled(measured.facts.get("cpu_mhz") or measured.facts.get("gpu_mhz") or []),
    }
    return Latency(
        kind="measured",
        samples_ms=measured.samples_ms,
        warmup_ms=measured.warmup_ms,
        threads=threads,
        flags=[*(name for name, seen in signs.items() if seen), *flags],
        details={"clock": clock, "blocks": measured.blocks, "process_of_block": measured.processes, **measured.facts},
    )
