"""The steps of a sweep: chunks between host synchronisations, and the steps whose accuracies are recorded."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Schedule(NamedTuple):
    """The chunks that every block of cells trains in.

    Attributes:
      steps: minibatches that each cell trains on.
      chunk_steps: the most steps between two host synchronisations.
      epoch: steps per epoch, after whose first step accuracies are recorded; None without a history.

    Example:
      >>> schedule = Schedule(steps=10, chunk_steps=4, epoch=5)
      >>> schedule.chunks
      [range(0, 1), range(1, 5), range(5, 6), range(6, 10)]
      >>> schedule.recorded.tolist()
      [0, 5]
    """

    steps: int
    chunk_steps: int
    epoch: int | None = None

    @property
    def recorded(self) -> NDArray[np.int64]:
        """The steps after which accuracies are recorded."""
        return np.arange(0, self.steps, self.epoch) if self.epoch else np.empty(0, np.int64)

    @property
    def chunks(self) -> list[range]:
        """The steps of each chunk; a recorded step is the last of its chunk."""
        ends = np.union1d(self.recorded + 1, self.steps).tolist()
        starts = [0, *ends[:-1]]
        return [
            range(first, min(first + self.chunk_steps, end))
            for start, end in zip(starts, ends, strict=True)
            for first in range(start, end, self.chunk_steps)
        ]

    def records(self, step: int) -> bool:
        """Test whether accuracies are recorded after this step."""
        return self.epoch is not None and step % self.epoch == 0

    def after(self, step: int) -> list[range]:
        """The chunks that remain after ``step`` steps.

        Example:
          >>> Schedule(steps=10, chunk_steps=4).after(4)
          [range(4, 8), range(8, 10)]
        """
        return [chunk for chunk in self.chunks if chunk.start >= step]
