"""How well scores agree with those of two full passes, as sums that can be added."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scbasset_ism.errors import SelfCheckError

# What a self-check lets pass: a share of the deltas, here three times what was measured and more,
# plus a share of the bottleneck itself, for the rounding of the two full passes.
TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}
ROUNDING = 1e-5


@dataclass(frozen=True)
class SelfCheck:
    """How far deltas lie from those of two full passes; sums, so that batches can be added.

    Attributes:
        edits: How many were compared.
        max_error: Largest absolute error of a bottleneck number.
        error: Sum of squared errors.
        signal: Sum of squared deltas.
        ref: Sum of squared reference bottlenecks, one for each edit.
        numbers: Bottleneck numbers in each sum.
    """

    edits: int = 0
    max_error: float = 0.0
    error: float = 0.0
    signal: float = 0.0
    ref: float = 0.0
    numbers: int = 0

    @property
    def rms_error(self) -> float:
        """Root mean square of the absolute error."""
        return math.sqrt(self.error / max(self.numbers, 1))

    @property
    def relative_rms(self) -> float:
        """The same, relative to the root mean square of the deltas; 0 if nothing differs."""
        return math.sqrt(self.error / self.signal) if self.error else 0.0

    def sums(self) -> dict[str, float]:
        """Give all of it; JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def summary(self) -> dict[str, float]:
        """Give what a store keeps of it, the sums too so that stores can be merged; JSON."""
        return {"rms_error": self.rms_error, "relative_rms": self.relative_rms, **self.sums()}

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> "SelfCheck":
        """Read what a store keeps."""
        return cls(**{field.name: summary[field.name] for field in fields(cls)})

    def __str__(self) -> str:
        return (
            f"{self.edits} rows against two full passes: relative rms error "
            f"{self.relative_rms:.1e}, largest error {self.max_error:.1e}"
        )

    def __add__(self, other: "SelfCheck") -> "SelfCheck":
        mine, theirs = self.sums(), other.sums()
        sums: dict[str, Any] = {name: mine[name] + theirs[name] for name in mine}
        return SelfCheck(**sums | {"max_error": max(self.max_error, other.max_error)})

    def require(self, precision: str) -> None:
        """Raise SelfCheckError if the errors are larger than the precision explains."""
        allowed = TOLERANCE[precision] * math.sqrt(self.signal) + ROUNDING * math.sqrt(self.ref)
        if not math.sqrt(self.error) <= allowed:  # also where it is NaN
            raise SelfCheckError(
                f"of {self.edits} edits checked by two full passes the deltas are off by "
                f"{self.relative_rms:.2%} (rms), more than {precision} explains: the scores can't "
                "be trusted; please report this, and try --precision float32"
            )
