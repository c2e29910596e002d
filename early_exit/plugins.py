"""How the two folders that users add files to are read: distortions and backbones (docs/extending.md).

A file declares what it is as one constant. Planning loads it too, so it imports torch, OpenCV and Pillow only
inside its function.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from types import ModuleType
from typing import Generic, TypeVar

Declared = TypeVar("Declared")


@dataclass(frozen=True)
class Plugins(Generic[Declared]):
    """What the files of one folder declare, by their names."""

    folder: ModuleType
    noun: str
    """What one of them is, in messages."""
    constant: str
    """The name that a file gives to what it declares."""
    declares: type[Declared]
    error: type[ValueError]
    """Raised for a name without a file, and for a file that declares no such thing."""

    def names(self) -> tuple[str, ...]:
        """The names of all files, in alphabetical order; nothing is loaded."""
        return tuple(sorted(module.name for module in pkgutil.iter_modules(self.folder.__path__)))

    def load(self, name: str) -> Declared:
        """What the file of ``name`` declares."""
        # asked first: a name in a spec must not import whatever module it spells
        if name not in self.names():
            place = self.folder.__name__.replace(".", "/")
            raise self.error(f"unknown {self.noun} '{name}': {place}/ has {', '.join(self.names())}")
        try:
            module = importlib.import_module(f"{self.folder.__name__}.{name}")
        except Exception as error:  # a user's file may raise anything
            raise self.error(f"{self.noun} '{name}': its file cannot be loaded: {error}") from error
        declared = getattr(module, self.constant, None)
        if not isinstance(declared, self.declares):
            raise self.error(
                f"{self.noun} '{name}': '{module.__file__}' declares no {self.constant} = {self.declares.__name__}(…)"
            )
        return declared
