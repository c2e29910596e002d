"""What a policy is: whose expert decides, and whether there is an edge, a cloud and a classifier.

All of it follows from the policy's name, and only here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from early_exit.distortion import expert_of, known
from early_exit.vocabulary import EXITS, PRISTINE

ORACLE = "oracle"
"""The expert of an image's true kind decides."""

CLASSIFIER = "classifier"
"""The expert of the kind that the classifier predicts decides: the paper's deployed system."""

GENERALIST, TOTAL, EDGE_ONLY, CLOUD_ONLY = "generalist", "total", "edge-only", "cloud-only"

BASELINES = (GENERALIST, TOTAL, EDGE_ONLY, CLOUD_ONLY)
"""What the paper's system is compared with: one expert for all distortions at once; an expert per distortion
with all layers trained; the deployed system without a cloud; a cloud without an edge."""


class Rule(Enum):
    """How a policy that has no expert of its own finds one for each image."""

    TRUE_KIND = auto()
    PREDICTED_KIND = auto()


@dataclass(frozen=True)
class Policy:
    """How the system decides about an image."""

    name: str
    asks: str | Rule
    """The expert that decides about every image, or the rule that finds one."""
    has_edge: bool = True
    """Without one, the image itself is sent to the cloud."""
    has_cloud: bool = True

    @property
    def asks_classifier(self) -> bool:
        """Whether an image waits for the classifier first."""
        return self.asks is Rule.PREDICTED_KIND

    @property
    def exits(self) -> tuple[int, ...]:
        """The exits that the policy has: of ``EXITS``, three are on the edge and the last is in the cloud."""
        *edge, cloud = EXITS
        return (*(edge if self.has_edge else ()), *((cloud,) if self.has_cloud else ()))

    def expert_for(self, kind: str, predicted: str | None = None) -> str:
        """The expert that decides about an image of true kind ``kind``, which the classifier takes for ``predicted``.

        Raises ValueError if the classifier is asked and ``predicted`` is None.
        """
        match self.asks:
            case Rule.TRUE_KIND:
                return expert_of(kind)
            case Rule.PREDICTED_KIND:
                if predicted is None:
                    raise ValueError(f"policy {self.name!r} needs the kind that the classifier predicts")
                return predicted
            case expert:
                return expert


_BORROWING = {
    policy.name: policy
    for policy in (
        Policy(ORACLE, Rule.TRUE_KIND),
        Policy(CLASSIFIER, Rule.PREDICTED_KIND),
        Policy(EDGE_ONLY, Rule.PREDICTED_KIND, has_cloud=False),
        Policy(CLOUD_ONLY, PRISTINE, has_edge=False),
    )
}

BORROWING = tuple(_BORROWING)
"""Policies that ask the experts of others, in the order of tables; every other one is named after its own expert."""


def policy(name: str) -> Policy:
    """What follows from ``name``; raises ValueError if no policy has it."""
    if name in _BORROWING:
        return _BORROWING[name]
    if name in (PRISTINE, GENERALIST) or (kind_of_total(name) or name) in known():
        return Policy(name, asks=name)
    raise ValueError(f"unknown policy {name!r}: it is no expert and none of {', '.join(BORROWING)}")


def policies_of(kinds: Sequence[str], baselines: Collection[str]) -> tuple[str, ...]:
    """The policies of a run: the paper's, then those of its ``baselines``, in the order of ``BASELINES``.

    ``kinds``: those with an expert of their own, pristine first.
    """
    names = [*kinds, ORACLE, CLASSIFIER]
    for baseline in BASELINES:
        if baseline in baselines:
            # from 1 on: a pristine expert has nothing to adapt to
            names += map(total_of, kinds[1:]) if baseline == TOTAL else [baseline]
    return tuple(names)


def total_of(kind: str) -> str:
    """The expert of ``kind`` with all layers trained (docs/paper.md §6, "total")."""
    return f"{TOTAL}_{kind}"


def kind_of_total(expert: str) -> str | None:
    """The kind of an expert with all layers trained; None for one whose heads alone are."""
    kind = expert.removeprefix(total_of(""))  # of no kind: the prefix alone
    return None if kind == expert else kind
