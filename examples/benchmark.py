"""How fast the delta engine is, and how exact, against the definition and against tangermeme.

    python examples/benchmark.py [--model PATH] [--device cuda] [--rounds 5] [--json FILE]

Three kinds of work: `saturation` (every substitution in one window), `single` (one SNV at the
centre of each of 64 windows), `shared` (20 SNVs in each of 16 windows). The methods take turns, and
a ratio is the median over the rounds of the ratio within a round, so that other work on the machine
weighs on all of them alike. `naive` is two full float32 passes an edit, but in `saturation` one,
since there nobody would repeat the reference; it runs on a sample of those edits and is scaled up.
Errors are against two full float64 passes of a sample. tangermeme's exact region recompute is
timed in its steady state, without the export of the model, at its best batch size.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from scbasset_ism.checkpoint import load_model
from scbasset_ism.delta import (
    Edits,
    Engine,
    all_substitutions,
    apply_edits,
    naive_delta,
    resolve_precision,
)
from scbasset_ism.model import Scbasset, one_hot, random_model

try:
    from tangermeme._fastism import _FastISM
except ImportError:
    _FastISM = None

PRECISIONS = ("float32", "bfloat16")
STAGES = ("reference", "products", "frames", "pool and GELU", "bottleneck")
BATCH = 64  # of the naive passes; the fastest on a CPU
TANGERMEME_BATCHES = (64, 128, 256)
SATURATION_SAMPLE = 256  # edits that the naive way runs in a round
ERROR_SAMPLE = 64  # edits compared with float64

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Work:
    """Edits to score; `repeat_reference` where the naive way runs the reference for each edit."""

    name: str
    codes: Tensor
    edits: Edits
    repeat_reference: bool


@dataclass(frozen=True)
class Row:
    """One line of the table, and of the JSON file."""

    work: str
    method: str
    seconds: float
    edits_per_second: float
    ratio_to_naive: float
    relative_rms: float
    correlation: float


def works(model: Scbasset, device: torch.device) -> list[Work]:
    """Random windows with edits."""
    generator = torch.Generator().manual_seed(0)
    length = model.config.window
    codes = torch.randint(0, 4, (64, length), generator=generator, dtype=torch.uint8)
    window = torch.arange(64)
    center = snvs(codes, window, torch.full((64,), length // 2))
    window = torch.arange(16).repeat_interleave(20)
    spread = torch.randint(length // 4, 3 * length // 4, (320,), generator=generator)
    shared = snvs(codes, window, spread)
    listed = [
        Work("saturation", codes[:1], all_substitutions(codes[:1]), repeat_reference=False),
        Work("single", codes, center, repeat_reference=True),
        Work("shared", codes[:16], shared, repeat_reference=True),
    ]
    return [
        Work(w.name, w.codes.to(device), take(w.edits, slice(None), device), w.repeat_reference)
        for w in listed
    ]


def snvs(codes: Tensor, window: Tensor, offset: Tensor) -> Edits:
    """Replace one base each by the next of the alphabet."""
    return Edits(window, offset, (codes[window, offset] + 1)[:, None] % 4)


def take(edits: Edits, which: slice | Tensor, device: torch.device) -> Edits:
    """Pick some edits, and bring them to a device."""
    picked = (edits.window[which], edits.offset[which], edits.bases[which])
    return Edits(*(x.to(device) for x in picked))


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Run, device: torch.device) -> float:
    """Time one call."""
    synchronize(device)
    start = perf_counter()
    run()
    synchronize(device)
    return perf_counter() - start


def naive_run(model: Scbasset, work: Work) -> tuple[Run, float]:
    """Give the naive way, and by what its time is multiplied."""
    if work.repeat_reference:
        each = work.codes[work.edits.window]  # the reference once an edit
        edits = replace(work.edits, window=torch.arange(len(each), device=each.device))
        return lambda: naive_delta(model, each, edits, BATCH).delta_bottleneck, 1.0
    some = take(work.edits, slice(SATURATION_SAMPLE), work.codes.device)

    def run() -> Tensor:
        with torch.inference_mode():
            alternates = apply_edits(work.codes, some).split(BATCH)
            return torch.cat([model.encode(one_hot(alternate)) for alternate in alternates])

    return run, (len(work.edits) + 1) / len(some)


def engine_run(engine: Engine, work: Work) -> Run:
    """Give the engine's way: for a saturation, the call that is made for it."""
    if work.name == "saturation":
        return lambda: engine.saturate(work.codes).of(work.edits).delta_bottleneck
    return lambda: engine(work.codes, work.edits).delta_bottleneck


class Bottleneck(nn.Module):
    """The network without its head, as tangermeme wants it."""

    def __init__(self, model: Scbasset) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Map one-hot (batch, 4, window) to the bottleneck."""
        return self.model.encode(x)


def tangermeme_runs(model: Scbasset, work: Work) -> dict[int, Run]:
    """Give tangermeme's saturation in its steady state, by batch size."""
    length, device = work.codes.shape[1], work.codes.device
    x = one_hot(work.codes.cpu())
    wrapped = Bottleneck(model).eval()
    with torch.no_grad():
        ref = wrapped(one_hot(work.codes))
        fast = _FastISM(
            wrapped, x.to(torch.int8), None, 0, length, device, torch.float32, use_autocast=False
        )
    base, offset = work.edits.bases[:, 0].long().cpu(), work.edits.offset.cpu()

    def run(batch: int) -> Tensor:
        with torch.no_grad():
            out = fast.predict_edits(0, base, offset, batch)
            return (out[0] if isinstance(out, (list, tuple)) else out).to(device) - ref

    return {batch: lambda batch=batch: run(batch) for batch in TANGERMEME_BATCHES}


def exact(model: Scbasset, work: Work, sample: Tensor) -> Tensor:
    """Give the deltas of a sample of the edits in float64."""
    some = take(work.edits, sample, work.codes.device)
    try:
        return naive_delta(model.double(), work.codes, some, BATCH).delta_bottleneck
    finally:
        model.float()


def measure(model: Scbasset, work: Work, rounds: int) -> list[Row]:
    """Time every method of one kind of work in turns."""
    device = work.codes.device
    generator = torch.Generator().manual_seed(0)
    sample = torch.randperm(len(work.edits), generator=generator)[:ERROR_SAMPLE].to(device)
    expected = exact(model, work, sample)
    naive, scale = naive_run(model, work)
    runs: dict[str, Run] = {p: engine_run(Engine(model, p), work) for p in PRECISIONS}
    if _FastISM is not None and work.name == "saturation":
        batches = tangermeme_runs(model, work)
        times = {
            batch: min(seconds(run, device) for _ in range(2)) for batch, run in batches.items()
        }
        runs["tangermeme"] = batches[min(times, key=times.__getitem__)]
    some = take(work.edits, sample, device)
    deltas = {"naive": naive_delta(model, work.codes, some, BATCH).delta_bottleneck}
    deltas |= {method: run()[sample] for method, run in runs.items()}
    seconds(naive, device)
    taken = [
        {"naive": scale * seconds(naive, device)}
        | {method: seconds(run, device) for method, run in runs.items()}
        for _ in range(rounds)
    ]
    rows = {
        method: Row(
            work=work.name,
            method=method,
            seconds=(typical := median(times[method] for times in taken)),
            edits_per_second=len(work.edits) / typical,
            ratio_to_naive=median(times["naive"] / times[method] for times in taken),
            relative_rms=relative_rms(deltas[method], expected),
            correlation=correlation(deltas[method], expected),
        )
        for method in ("naive", *runs)
    }
    kind = "ism" if work.name == "saturation" else "score"
    auto = asdict(rows[resolve_precision("auto", device, kind)]) | {"method": "auto"}
    return [*rows.values(), Row(**auto)]


def relative_rms(delta: Tensor, expected: Tensor) -> float:
    """Root mean square of the error, relative to that of the deltas."""
    error = (delta.double() - expected).square().sum() / expected.square().sum()
    return error.sqrt().item()


def correlation(delta: Tensor, expected: Tensor) -> float:
    """Pearson's correlation over all numbers."""
    both = torch.stack([delta.double().flatten(), expected.flatten()])
    return torch.corrcoef(both)[0, 1].item()


def stage_shares(run: Run, device: torch.device) -> dict[str, float]:
    """Share of the time of one call that each stage takes; the rest is planning and glue."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        total = seconds(run, device)
    clock = "device_time_total" if device.type == "cuda" else "cpu_time_total"
    times = {event.key: getattr(event, clock) / 1e6 for event in profiler.key_averages()}
    shares = {stage: times.get(stage, 0.0) / total for stage in STAGES}
    return shares | {"rest": max(0.0, 1 - sum(shares.values()))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--model", help="a checkpoint; without it a random model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the CPU; without it PyTorch's default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    model = (load_model(options.model) if options.model else random_model()).to(device).eval()
    if _FastISM is None:
        print("tangermeme is not installed: left out")
    print(f"device {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    names = ("work", "method", "seconds", "edits/s", "x naive", "rel. rms", "correlation")
    print("{:<11}{:<11}{:>9}{:>10}{:>9}{:>10}{:>13}".format(*names))
    rows = []
    for work in works(model, device):
        for row in measure(model, work, options.rounds):
            print(
                f"{row.work:<11}{row.method:<11}{row.seconds:>9.3f}{row.edits_per_second:>10.0f}"
                f"{row.ratio_to_naive:>9.1f}{row.relative_rms:>10.1e}{row.correlation:>13.8f}"
            )
            rows.append(asdict(row))
        for precision in PRECISIONS:
            run = engine_run(Engine(model, precision), work)
            run()
            shares = stage_shares(run, device)
            print(f"  {precision}: " + ", ".join(f"{k} {v:.0%}" for k, v in shares.items()))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
