"""What follows from a run's distortions and baselines: conditions, experts, policies, the classifier's labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from early_exit.distortion import allowed, distortion, expert_of
from early_exit.policies import GENERALIST, TOTAL, policies_of, total_of
from early_exit.vocabulary import PRISTINE


@dataclass(frozen=True)
class Kinds:
    """The kinds of a run, with the levels that test images are evaluated at; pristine is always included."""

    levels: Mapping[str, Sequence[int]]
    baselines: Sequence[str] = ()
    """Those of ``BASELINES`` that the run has."""

    @property
    def distorted(self) -> tuple[str, ...]:
        """All kinds but pristine, in alphabetical order."""
        return tuple(sorted(self.levels))

    @property
    def experts(self) -> tuple[str, ...]:
        """Pristine and the kinds with an expert of their own, in training order, since they start from its heads."""
        return (PRISTINE, *(kind for kind in self.distorted if expert_of(kind) == kind))

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classifier tells apart, in label order: 0 blur, 1 noise, 2 pristine (docs/paper.md §4)."""
        return tuple(sorted(self.experts))

    @property
    def learned(self) -> dict[str, tuple[str, ...]]:
        """The kinds that each expert learns: none, its own, or all of them (docs/paper.md §12, oddity 19)."""
        own = {expert: () if expert == PRISTINE else (expert,) for expert in self.experts}
        # from 1 on: pristine comes first and is nothing to learn
        return own | ({GENERALIST: self.experts[1:]} if GENERALIST in self.baselines else {})

    @property
    def totals(self) -> dict[str, str]:
        """The kind of each expert with all layers trained (docs/paper.md §6, "total")."""
        return {total_of(kind): kind for kind in self.experts[1:] if TOTAL in self.baselines}

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies that are evaluated: the paper's, then those of the baselines."""
        return policies_of(self.experts, self.baselines)

    @property
    def conditions(self) -> list[tuple[str, int]]:
        """Every (kind, level) that test images are evaluated at, pristine (level 0) first."""
        return [(kind, level) for kind in (PRISTINE, *self.distorted) for level in self.of(kind)]

    def of(self, kind: str) -> tuple[int, ...]:
        """Levels of ``kind``; pristine has the one level 0."""
        return (0,) if kind == PRISTINE else tuple(self.levels[kind])

    def check(self) -> None:
        """Raise ValueError for levels that a kind does not have, and for a kind whose expert is missing."""
        for kind, levels in self.levels.items():
            declared = distortion(kind)
            if not levels:
                raise ValueError(f"{kind} needs at least one level")
            if len(set(levels)) < len(levels):
                raise ValueError(f"{kind} lists a level twice")
            if not all(level in declared.levels for level in levels):
                raise ValueError(f"{kind}: {allowed(declared)}")
            if expert_of(kind) not in self.experts:
                raise ValueError(
                    f"{kind} is answered by the expert of {declared.expert}, which has no levels here"
                )
