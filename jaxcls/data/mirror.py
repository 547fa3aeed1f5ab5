"""Pictures and their mirror images, as more examples to train on."""

from dataclasses import replace

import numpy as np

from jaxcls.data.splits import Splits


def mirrored(splits: Splits) -> Splits:
    """Splits whose train also holds the mirror image of each picture, so that minibatches flip half of them at random.

    Mean and scale stay those of the pictures themselves.

    Raises:
      ValueError: the features are not known to be pixels.

    Example:
      >>> from jaxcls import data
      >>> splits = mirrored(data.standard(data.load_digits()))
      >>> len(splits.train), len(splits.val)
      (2514, 270)
      >>> print(splits.train[:1][:, :8], splits.train[1257:1258][:, :8])
      [[ 0.  0.  6. 14.  8.  0.  0.  0.]] [[ 0.  0.  0.  8. 14.  6.  0.  0.]]
    """
    if splits.pixels is None:
        raise ValueError("mirrored must be given pictures, as cifar10 and digits are, got features without pixels")
    column = np.arange(splits.num_features)
    column[splits.pixels] = splits.pixels[:, ::-1]
    train, count = splits.train, len(splits.train)
    raw = np.concatenate([np.asarray(train.raw), train[:][:, column]])
    rows = np.arange(len(train.raw)) if train.rows is None else train.rows
    both = replace(
        train,
        raw=raw,
        y=np.tile(train.y, 2),
        rows=np.concatenate([rows, len(train.raw) + np.arange(count)]),
        digest="",
    )
    # Where val shares train's array, it shares this one, whose beginning is the same, and both are read together.
    shared = splits.val.raw is train.raw and splits.val.rows is not None
    val = replace(splits.val, raw=raw, digest="") if shared else splits.val
    return replace(splits, train=both, val=val, name=f"{splits.name}, mirrored")
