"""Train a whole grid of classifiers at once and print the results: the same as ``jaxcls sweep``.

python examples/sweep.py                                    # digits
python examples/sweep.py --model two-layer --hidden 16 64   # nets
python examples/sweep.py --preset cs231n                    # the published grid
python examples/sweep.py --data features.npz --lr 0.01 0.1 1 --reg 0 1e-4 1e-3
python examples/sweep.py --resume runs/cs231n-20261121-120000   # resume
"""

import sys

from jaxcls.cli import script

if __name__ == "__main__":
    sys.exit(script("sweep"))
