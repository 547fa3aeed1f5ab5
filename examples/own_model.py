"""A custom model in a sweep: the multiclass SVM of CS231n, from the loss and gradient of one cell."""

import jax
import jax.numpy as jnp

from jaxcls import data, softmax, sweep
from jaxcls.classifier import Classifier
from jaxcls.grid import Grid
from jaxcls.losses import hinge_and_grad


def loss_and_grad(W: jax.Array, X: jax.Array, y: jax.Array, reg: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``hinge(X W, y) + reg Σ W²`` and its gradient ``Xᵀ dL/ds + 2 reg W``."""
    data_loss, dlogits = hinge_and_grad(X @ W, y)
    return data_loss + reg * jnp.sum(W * W), X.T @ dlogits + 2 * reg * W


SVM = Classifier(softmax.init, softmax.logits, loss_and_grad, features=softmax.append_ones)

if __name__ == "__main__":
    splits = data.standard(data.load_digits())
    result = sweep.run(splits, Grid(lr=[0.01, 0.1, 1.0], reg=[1e-4, 1e-2]), steps=500, classifier=SVM)
    print(f"best      {result.grid.cells()[result.best]}")
    print(f"          {result.test_accuracy:.4f} on test")
