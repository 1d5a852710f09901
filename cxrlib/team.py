"""The processes that train one model together, one for each device."""

import os
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import distributed

PATIENCE = timedelta(days=2)
"""How long a process waits for another, which may be drawing or reading a whole dataset."""


class Team(NamedTuple):
    """A process and how many there are.

    Attributes:
        size: number of processes.
        rank: of this one, from 0; the first writes the files.
        nodes: machines that they run on.
    """

    size: int = 1
    rank: int = 0
    nodes: int = 1

    @classmethod
    def from_torchrun(cls) -> "Team":
        """What torchrun says in the environment; without it, a process alone.

        >>> Team.from_torchrun().size
        1
        """
        size = int(os.environ.get("WORLD_SIZE", 1))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
        return cls(size, int(os.environ.get("RANK", 0)), size // here)

    def share(self, batch_size: int) -> int:
        """Images of a batch that each process takes.

        Raises:
            ValueError: they cannot take equally many.

        >>> Team(size=4).share(16)
        4
        """
        if batch_size % self.size:
            raise ValueError(
                f"batch_size = {batch_size} cannot be shared out to {self.size} processes equally; "
                f"give a multiple of {self.size}"
            )
        return batch_size // self.size

    def join(self) -> None:
        """Connect the processes: over gloo on CPUs, over nccl on GPUs."""
        if self.size > 1:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=PATIENCE)

    def wait(self) -> None:
        """Until the first process is here, too."""
        self.tell(None)

    def tell(self, value: Any) -> Any:
        """What the first process has; the others may give None."""
        if self.size == 1:
            return value
        told = [value]
        distributed.broadcast_object_list(told, src=0)
        return told[0]

    def part(self) -> None:
        """Let go of the other processes."""
        if self.size > 1:
            distributed.destroy_process_group()


ALONE = Team()
"""One process, one device."""
