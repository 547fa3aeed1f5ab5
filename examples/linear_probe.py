"""The best linear classifier for your features, over 96 regularisation values: the same as ``jaxcls probe``.

python examples/linear_probe.py --train feats.npz     # val and test held out of it
python examples/linear_probe.py --train a.npz --val b.npz --test c.npz
python examples/linear_probe.py --train a.npz --folds 5 --class-weight balanced
python examples/linear_probe.py --train a.npz --solver adam --lr 1e-3 1e-2
"""

import sys

from jaxcls.cli import script

if __name__ == "__main__":
    sys.exit(script("probe"))
