"""The steps of a sweep: stages between rungs, chunks between host synchronisations, and steps that are recorded."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Schedule(NamedTuple):
    """The stages that cells train in, after each of which some may leave, and their chunks.

    Attributes:
      steps: minibatches that each cell trains on.
      chunk_steps: the most steps between two host synchronisations.
      every: accuracies are recorded after step 0, and after each step that is a multiple of it; None for never.
      rungs: numbers of steps after which cells may leave, in ascending order.
      epoch: steps per epoch, where the last has a smaller minibatch, and so is a chunk of its own; else None.

    Example:
      >>> schedule = Schedule(steps=10, chunk_steps=4, every=5, rungs=(2,))
      >>> schedule.stages
      [range(0, 2), range(2, 10)]
      >>> schedule.chunks
      [range(0, 1), range(1, 2), range(2, 6), range(6, 10)]
      >>> schedule.recorded.tolist()
      [0, 5]
    """

    steps: int
    chunk_steps: int
    every: int | None = None
    rungs: tuple[int, ...] = ()
    epoch: int | None = None

    @property
    def recorded(self) -> NDArray[np.int64]:
        """The steps after which accuracies are recorded."""
        return np.arange(0, self.steps, self.every) if self.every else np.empty(0, np.int64)

    @property
    def stages(self) -> list[range]:
        """The steps of each stage."""
        starts, ends = (0, *self.rungs), (*self.rungs, self.steps)
        return [range(start, end) for start, end in zip(starts, ends, strict=True)]

    @property
    def chunks(self) -> list[range]:
        """The steps of each chunk; a recorded step is the last of its chunk, and so is that of a stage."""
        epochs = np.arange(self.epoch, self.steps + 1, self.epoch) if self.epoch else np.empty(0, np.int64)
        found = np.concatenate([self.recorded + 1, self.rungs, [self.steps], epochs, epochs - 1])
        ends = np.unique(found.astype(int)).tolist()
        starts = [0, *ends[:-1]]
        return [
            range(first, min(first + self.chunk_steps, end))
            for start, end in zip(starts, ends, strict=True)
            for first in range(start, end, self.chunk_steps)
        ]

    def ends_epoch(self, chunk: range) -> bool:
        """Test whether a chunk is the last step of an epoch, with a smaller minibatch.

        Example:
          >>> schedule = Schedule(steps=7, chunk_steps=4, epoch=3)
          >>> [(len(chunk), schedule.ends_epoch(chunk)) for chunk in schedule.chunks]
          [(2, False), (1, True), (2, False), (1, True), (1, False)]
        """
        return self.epoch is not None and chunk.stop % self.epoch == 0

    def records(self, step: int) -> bool:
        """Test whether accuracies are recorded after this step."""
        return self.every is not None and step % self.every == 0

    def after(self, step: int, stage: int = 0) -> list[range]:
        """The chunks of a stage that remain after ``step`` steps.

        Example:
          >>> Schedule(steps=10, chunk_steps=4).after(4)
          [range(4, 8), range(8, 10)]
        """
        steps = self.stages[stage]
        return [chunk for chunk in self.chunks if chunk.start >= step and chunk.start in steps]
