"""What is wrong with a file, and where: the value that every check of a spec answers with."""

import re
from dataclasses import dataclass, replace

from cortex.spec.wording import quote

Step = str | int
Steps = tuple[Step, ...]
"""The way to a value: keys of maps, and positions in lists."""

_PLAIN = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the value at ``steps``, or with its ``key`` where the message names that one."""

    steps: Steps
    message: str
    key: Step | None = None
    line: int | None = None
    """Set where the way does not lead to the line, as for a key that is there twice."""

    def inside(self, index: int) -> "Problem":
        """Return the same problem, its way beginning at the list that an API is in, rather than at the API."""
        return replace(self, steps=(index, *self.steps))

    @property
    def at(self) -> Steps:
        """Return the way to what the user has to look at."""
        return self.steps if self.key is None else (*self.steps, self.key)


def overlap(one: Steps, other: Steps) -> bool:
    """Say whether one value is the other, or is inside it."""
    return all(step == its for step, its in zip(one, other, strict=False))


def dotted(steps: Steps) -> str:
    """Return ``predictor.models[1].name`` for the way to a value."""
    return "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if _PLAIN.fullmatch(step) else f"[{quote(step)}]"
        for step in steps
    ).lstrip(".")


def steps_of(path: str) -> Steps:
    """Return the way that ``predictor.models[1].name`` stands for."""
    return tuple(int(step) if step.isdecimal() else step for step in re.findall(r"[^.\[\]]+", path))
