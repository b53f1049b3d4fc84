"""What a checkpoint says of the edits of its networks, beside their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

KEY = 'edits'


@dataclass(frozen=True)
class EditRecord:
    """``checkpoint['edits']``.

    Attributes:
        entries (list[list]): ``[network, edit]`` of each edit in its order; the network is
            ``'student'`` or a peer's name, the edit its entry in a config.
        latent (dict[str, Tensor]): the parameters that train, by the keys of ``state_dict``, where
            it has what is deployed instead.
    """

    entries: Any = field(default_factory=list)
    latent: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, checkpoint: Mapping[str, Any]) -> EditRecord:
        """That of a checkpoint; an empty one where it has none."""
        found = checkpoint.get(KEY)
        found = found if isinstance(found, Mapping) else {}
        return cls(found.get('edits') or [], found.get('latent') or {})

    def write(self, checkpoint: dict[str, Any]) -> None:
        """Put the record into a checkpoint."""
        checkpoint[KEY] = dict(edits=self.entries, latent=dict(self.latent))

    def of(self, network: str = 'student') -> list[Any]:
        """The edits of one network."""
        return [entry for name, entry in self.entries if name == network]

    def told(self) -> str:
        """The edits, for a message."""
        try:
            pairs = [(str(name), entry) for name, entry in self.entries]
        except (TypeError, ValueError):  # a file that no run of mmkd wrote
            return repr(self.entries)[:200]
        texts = [f'{entry}' if name == 'student' else f'{name}: {entry}' for name, entry in pairs]
        return '; '.join(texts) or 'none'
