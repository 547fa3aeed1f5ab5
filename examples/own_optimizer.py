"""A grid with a custom optimizer: Lion with a cosine schedule, scaled by each cell's learning rate."""

import optax

from jaxcls import data, sweep
from jaxcls.grid import Grid

STEPS = 500
schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=50, decay_steps=STEPS)


def optimizer(lr: float) -> optax.GradientTransformation:
    """Lion at this learning rate, which is traced: all cells share one program."""
    return optax.lion(lambda count: lr * schedule(count), weight_decay=0.0)


if __name__ == "__main__":
    splits = data.standard(data.load_digits())
    grid = Grid(lr=[1e-3, 3e-3, 1e-2], reg=[0.0, 1e-3, 1e-2])
    result = sweep.run(splits, grid, steps=STEPS, optimizer=optimizer)
    for cell, row in zip(grid.cells(), result.table, strict=True):
        print(f"lr {cell['lr']:<6g} reg {cell['reg']:<6g} {row['val_accuracy']:.4f} on val, rank {row['rank']}")
    print(f"{result.test_accuracy:.4f} on test, for the best of them")
