# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
r"""
# Softmax and two-layer gradients, step by step

CS231n and EECS 498-007 share an exercise: a linear softmax classifier, then a two-layer net, with gradients that you
derive yourself. This notebook derives them with the chain rule alone, and checks every step against a numeric gradient.
It runs in about a minute and downloads nothing.

The notation is that of the code in `jaxcls`:

| | shape | |
| --- | --- | --- |
| `X` | $[N, D]$ | examples, one per row |
| `y` | $[N]$ | labels, integers from 0 to $C - 1$ |
| `W` | $[D, C]$ | weights, one column per class |
| `s` | $[N, C]$ | scores, or logits |
| `p` | $[N, C]$ | probabilities |
| `L` | scalar | the loss |
| `reg` | scalar | regularisation strength |

$i$ indexes examples, $j$ and $k$ index classes, $d$ indexes features. $[j = y_i]$ is 1 where $j = y_i$ and 0 elsewhere;
as a matrix, it is $\mathrm{onehot}(y)$.
"""

# %%
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jaxcls import data, grid, losses, softmax, sweep, two_layer
from jaxcls.artifacts import plots, weights
from jaxcls.gradcheck import numeric_gradient, rel_error_of_max

jax.config.update("jax_platforms", "cpu")  # the problems here are small

# %% [markdown]
r"""
## 1. Scores, softmax, cross-entropy

A linear classifier gives each class a score. Softmax turns the scores of an example into probabilities, and the loss
is the mean negative log-probability of the labels:

$$
s = X W
\qquad
p_{ij} = \frac{e^{s_{ij}}}{\sum_k e^{s_{ik}}}
\qquad
L = -\frac{1}{N} \sum_i \log p_{i, y_i}
$$

The last column of `X` is 1 everywhere, so the last row of `W` is the bias (the "bias trick"). Section 3 adds a penalty
on the weights.
"""

# %%
rng = np.random.default_rng(1)
N, D, C = 5, 4, 3
X = np.append(rng.standard_normal((N, D - 1)), np.ones((N, 1)), axis=1)
y = rng.integers(0, C, N)
W = rng.standard_normal((D, C))

s = X @ W
p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
L = -np.log(p[np.arange(N), y]).mean()
print(p.round(3))
print(f"labels {y}, loss {L:.4f}")
assert np.allclose(p.sum(axis=1), 1)
assert np.allclose(L, losses.cross_entropy(s, y))

# %% [markdown]
r"""
One score varies, the other two stay at 1 and 0. Left: all three probabilities. Right: the loss if the varying class is
the label. It is close to 0 while that score is the largest, and approaches a line of slope $-1$ as it falls.
"""

# %%
moving = np.linspace(-6, 6, 200)
scores = np.stack([moving, np.ones(200), np.zeros(200)], axis=1)
probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(moving, probabilities, label=["$s_0$, moving", "$s_1 = 1$", "$s_2 = 0$"])
left.set(xlabel="$s_0$", title="$p$")
left.legend()
right.plot(moving, -np.log(probabilities[:, 0]))
right.plot(moving, np.log(np.e + 1) - moving, color="0.6", linestyle=":", label=r"$\log(e^1 + e^0) - s_0$")
right.set(xlabel="$s_0$", title=r"$-\log p_0$")
right.legend()
plt.show()

# %% [markdown]
r"""
### Why the maximum is subtracted

$e^{89}$ is too large for float32, and $e^{710}$ for float64. But a constant added to all scores of an example cancels,

$$
\frac{e^{s_{ij} - m_i}}{\sum_k e^{s_{ik} - m_i}} = \frac{e^{-m_i} e^{s_{ij}}}{e^{-m_i} \sum_k e^{s_{ik}}} = p_{ij},
$$

so take $m_i = \max_j s_{ij}$: no exponent is above 0, and the sum is at least 1. That makes $p$ finite. But
$\log p_{i, y_i}$ is still infinite where the label's probability underflows to 0. So take the logarithm first:

$$
L_i = -\log p_{i, y_i} = m_i - s_{i, y_i} + \log \sum_k e^{s_{ik} - m_i}
$$
"""

# %%
big, label = np.array([1000.0, 999.0, 0.0]), 2
with np.errstate(all="ignore"):
    exponents = np.exp(big)
    shifted = np.exp(big - big.max())
    print("p, as the formula says      ", exponents / exponents.sum())
    print("p, maximum subtracted       ", shifted / shifted.sum())
    print("loss, as the formula says   ", -np.log(exponents[label] / exponents.sum()))
    print("loss, maximum subtracted    ", -np.log(shifted[label] / shifted.sum()))
stable = big.max() - big[label] + np.log(shifted.sum())
print("loss, with the logarithm first", stable)
print("jaxcls.losses.cross_entropy   ", losses.cross_entropy(big[None], np.array([label])))
assert np.allclose(stable, losses.cross_entropy(big[None], np.array([label])))

# %% [markdown]
r"""
### Why the loss starts near ln C

**Question.** The weights are small and random, there are ten classes, and no step has been taken. Which loss do you
expect, and why? The worksheets ask this before any gradient, because this check finds most bugs at no cost.
"""

# %%
labels = rng.integers(0, 10, 500)
scores = rng.standard_normal((500, 3073)) @ rng.standard_normal((3073, 10))  # at weights of deviation 1
scales = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
start = [float(losses.cross_entropy(scale * scores, labels)) for scale in scales]
print(f"ln 10 = {np.log(10):.4f}")
for scale, loss in zip(scales, start, strict=True):
    print(f"weights of {scale:<6}  scores of {np.std(scale * scores):.4f}  loss {loss:.4f}")
assert np.isclose(start[0], np.log(10))
assert np.isclose(start[1], np.log(10), rtol=1e-3)

# %% [markdown]
r"""
**Answer.** Small weights give scores near 0, so all classes are about equally probable, $p_{ij} \approx 1/C$, and
$L \approx -\log(1/C) = \log C$ for any `X` and `y`. A first loss far above $\log C$ means that the weights are too
large: the untrained classifier is already confident. A penalty adds $\mathrm{reg} \sum W^2$.
"""

# %% [markdown]
r"""
## 2. The gradient with respect to the scores

### Numeric gradients by central differences

A derivative can be approximated without any derivation. For each coordinate $x_k$ with its unit vector $u_k$,

$$
\frac{\partial f}{\partial x_k} \approx \frac{f(x + h u_k) - f(x - h u_k)}{2h}.
$$

The truncation error shrinks as $h^2$; the rounding error, divided by $2h$, grows as $1/h$. The best $h$ is in between.
It leaves five digits in float32 and ten in float64, so gradients are checked in float64.
"""


# %%
def errors(precise, steps):
    """Error of the numeric gradient of the loss for each h."""
    with jax.enable_x64(precise):
        exact = losses.cross_entropy_and_grad(s, y)[1]
        numeric = [numeric_gradient(lambda s: losses.cross_entropy(s, y), s, h=h) for h in steps]
        return [rel_error_of_max(exact, estimate) for estimate in numeric]


steps = np.logspace(-10, 0, 11)
figure, ax = plt.subplots(figsize=(5.5, 3), layout="constrained")
for dtype in ("float32", "float64"):
    ax.loglog(steps, errors(dtype == "float64", steps), "o-", label=dtype)
ax.set(xlabel="h", ylabel="relative error", title="central differences")
ax.legend()
plt.show()

# %% [markdown]
r"""
From here on, every gradient is checked in this way, in float64 with $h = 10^{-5}$. The relative error is that of EECS
498: the largest absolute difference, divided by the largest sum of absolute values.
"""


# %%
def check(name, loss, x, gradient):
    """Compare a gradient of the loss at x with central differences."""
    with jax.enable_x64(True):
        error = rel_error_of_max(gradient, numeric_gradient(loss, x))
    print(f"{name:12} relative error {error:.0e}")
    assert error < 1e-7


# %% [markdown]
r"""
### One example

Drop the index $i$. The loss of one example is a difference of two terms, which can be differentiated separately:

$$
L = \log \sum_k e^{s_k} - s_y
$$

**The second term.** $\dfrac{\partial s_y}{\partial s_j} = [j = y]$: a 1 at the label.

**The first term.** The derivative of $\log u$ is $1/u$, and of $u = \sum_k e^{s_k}$ only the term $k = j$ depends on
$s_j$:

$$
\frac{\partial}{\partial s_j} \log \sum_k e^{s_k} = \frac{1}{\sum_k e^{s_k}} \cdot e^{s_j} = p_j
$$

So softmax is the gradient of the logarithm of the sum of exponentials.
"""

# %%
s_one, y_one, p_one = s[0], y[0], p[0]
onehot_one = np.eye(C)[y_one]
check("second term", lambda s: s[y_one], s_one, onehot_one)
check("first term", jax.nn.logsumexp, s_one, p_one)

# %% [markdown]
r"""
**Together:**

$$
\frac{\partial L}{\partial s_j} = p_j - [j = y]
$$
"""

# %%
dlogits_one = p_one - onehot_one
check("difference", lambda s: jax.nn.logsumexp(s) - s[y_one], s_one, dlogits_one)

# %% [markdown]
r"""
**The same through $p$.** The result also follows from the Jacobian of softmax,

$$
\frac{\partial p_k}{\partial s_j} = p_k \, ([k = j] - p_j),
$$

and from $\partial L / \partial p_k = -[k = y] / p_y$ for $L = -\log p_y$. In the sum of the chain rule over $k$, only
$k = y$ remains:

$$
\frac{\partial L}{\partial s_j} = \sum_k \frac{\partial L}{\partial p_k} \frac{\partial p_k}{\partial s_j}
= -\frac{1}{p_y} \, p_y \, ([y = j] - p_j) = p_j - [j = y]
$$
"""

# %%
jacobian = p_one[:, None] * (np.eye(C) - p_one[None])  # k down, j across
for k in range(C):
    check(f"dp_{k}/ds", lambda s, k=k: jax.nn.softmax(s)[k], s_one, jacobian[k])
dp = -onehot_one / p_one[y_one]
assert np.allclose(dp @ jacobian, dlogits_one)

# %% [markdown]
r"""
### All examples

The loss is the mean over $N$ examples, and the loss of one example does not depend on the scores of another. So each
row is the gradient of one example, divided by $N$:

$$
\frac{\partial L}{\partial s} = \frac{p - \mathrm{onehot}(y)}{N}
$$
"""

# %%
dlogits = (p - np.eye(C)[y]) / N
check("dL/ds", lambda s: losses.cross_entropy(s, y), s, dlogits)
with jax.enable_x64(True):
    assert np.allclose(dlogits, losses.cross_entropy_and_grad(s, y)[1], rtol=1e-12)
assert np.allclose(dlogits.sum(axis=1), 0)

# %% [markdown]
r"""
A step against the gradient raises the label's score in proportion to $1 - p_y$, and lowers every other score in
proportion to its probability. Each row sums to 0. If the label has probability 1, the gradient is 0.
"""

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True, layout="constrained")
for ax, example in zip(axes, (0, 1, 2), strict=True):
    ax.bar(np.arange(C) - 0.2, p[example], width=0.4, color="0.75", label="$p$")
    ax.bar(np.arange(C) + 0.2, N * dlogits[example], width=0.4, label=r"$p - \mathrm{onehot}(y)$")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xticks=range(C), xlabel="class", title=f"example {example}, label {y[example]}")
axes[0].legend()
plt.show()

# %% [markdown]
r"""
## 3. The gradients with respect to weights and data

### dL/dW

Each score is $s_{ij} = \sum_d X_{id} W_{dj}$, so $W_{dj}$ affects the scores of class $j$ only, with factor $X_{id}$ in
example $i$. The chain rule sums over all examples:

$$
\frac{\partial L}{\partial W_{dj}} = \sum_i X_{id} \frac{\partial L}{\partial s_{ij}}
\qquad\text{or}\qquad
\frac{\partial L}{\partial W} = X^\top \frac{\partial L}{\partial s}
$$

The shapes confirm it: only one product of $[N, D]$ and $[N, C]$ has shape $[D, C]$.
"""

# %%
check("dL/dW", lambda W: losses.cross_entropy(X @ W, y), W, X.T @ dlogits)

# %% [markdown]
r"""
### The penalty

Both courses add $\mathrm{reg} \sum_{dj} W_{dj}^2$ to the loss, without a factor $\tfrac12$, so the gradient has a
factor 2:

$$
L = -\frac{1}{N} \sum_i \log p_{i, y_i} + \mathrm{reg} \sum_{dj} W_{dj}^2
\qquad
\frac{\partial L}{\partial W} = X^\top \frac{\partial L}{\partial s} + 2 \, \mathrm{reg} \, W
\qquad
\frac{\partial L}{\partial\, \mathrm{reg}} = \sum_{dj} W_{dj}^2
$$

The bias is a row of `W` here, so it is penalised with the other weights.
"""

# %%
reg = 0.1
dW = X.T @ dlogits + 2 * reg * W
check("penalty", lambda W: reg * jnp.sum(W**2), W, 2 * reg * W)
check("dL/dW", lambda W: softmax.loss(W, X, y, reg), W, dW)
check("dL/dreg", lambda reg: softmax.loss(W, X, y, reg), np.array(reg), np.sum(W**2))
with jax.enable_x64(True):
    assert np.allclose(dW, softmax.loss_and_grad(W, X, y, reg)[1], rtol=1e-12)
    assert np.allclose(dW, jax.grad(softmax.loss)(W, X, y, reg), rtol=1e-12)

# %% [markdown]
r"""
### dL/dX

By the same argument, $X_{id}$ affects all scores of example $i$, with factor $W_{dj}$ in class $j$:

$$
\frac{\partial L}{\partial X_{id}} = \sum_j \frac{\partial L}{\partial s_{ij}} W_{dj}
\qquad\text{or}\qquad
\frac{\partial L}{\partial X} = \frac{\partial L}{\partial s} W^\top
$$

Training a linear classifier does not need this gradient. Training the first layer of a net does.
"""

# %%
dX = dlogits @ W.T
check("dL/dX", lambda X: softmax.loss(W, X, y, reg), X, dX)
with jax.enable_x64(True):
    assert np.allclose(dX, softmax.input_grad(W, X, y), rtol=1e-12)

# %% [markdown]
r"""
## 4. Loops, vectorised, compiled

The worksheets ask for two implementations: first with loops, one example and one class at a time as in the derivation,
then vectorised. In the loop form, row $i$ of $X$ adds to column $j$ of `dW`:

$$
\frac{\partial L}{\partial W_{\cdot j}} = \frac{1}{N} \sum_i (p_{ij} - [j = y_i]) \, X_{i \cdot}
$$
"""


# %%
def softmax_loss_naive(W, X, y, reg):
    """One example and one class at a time."""
    loss, dW = 0.0, np.zeros_like(W)
    for i in range(len(X)):
        scores = X[i] @ W
        scores -= scores.max()
        p = np.exp(scores) / np.exp(scores).sum()
        loss -= np.log(p[y[i]])
        for j in range(W.shape[1]):
            dW[:, j] += (p[j] - (j == y[i])) * X[i]
    return loss / len(X) + reg * np.sum(W * W), dW / len(X) + 2 * reg * W


# %%
def softmax_loss_vectorized(W, X, y, reg):
    """All examples and all classes at once."""
    rows = np.arange(len(X))
    s = X @ W
    s -= s.max(axis=1, keepdims=True)
    p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
    loss = -np.log(p[rows, y]).mean() + reg * np.sum(W * W)
    p[rows, y] -= 1
    return loss, X.T @ (p / len(X)) + 2 * reg * W


# %% [markdown]
r"""
The table compares these two with `jaxcls.softmax.loss_and_grad`, without and with `jax.jit`, and with
`loss_and_grad_naive`, the loop form in JAX, under `jax.jit`. The data are random float32 numbers in the shape of a
minibatch of CIFAR-10. JAX compiles in the first call, which is timed separately; the other calls give the median. The
difference is the largest deviation from `dW` in float64, divided by the largest `dW`.
"""


# %%
def seconds(function, arguments):
    """Seconds of one call, until its result is ready."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def row(name, function, arguments):
    """One line of the table."""
    first, *others = (seconds(function, arguments) for _ in range(21))
    dW = np.asarray(function(*arguments)[1])
    difference = np.abs(dW - exact).max() / np.abs(exact).max()
    print(f"{name:26}{1e3 * first:9.1f} ms {1e3 * np.median(others):9.2f} ms {difference:12.0e}")
    assert difference < 1e-5


# %%
X, y = rng.standard_normal((500, 3073), np.float32), rng.integers(0, 10, 500)
W = 1e-3 * rng.standard_normal((3073, 10), np.float32)
exact = softmax_loss_vectorized(W.astype(float), X.astype(float), y, reg)[1]
in_numpy, in_jax = (W, X, y, reg), jax.device_put((W, X, y, reg))
print(f"{'':26}{'first call':>12}{'median':>13}{'difference':>13}")
row("numpy, loops", softmax_loss_naive, in_numpy)
row("numpy, vectorised", softmax_loss_vectorized, in_numpy)
row("loss_and_grad", softmax.loss_and_grad, in_jax)
row("loss_and_grad, jit", jax.jit(softmax.loss_and_grad), in_jax)
row("loss_and_grad_naive, jit", jax.jit(softmax.loss_and_grad_naive), in_jax)

# %% [markdown]
r"""
All five agree within float32 precision. The times show:

- Vectorisation gives the largest gain. The loops have $N C$ iterations, and compilation does not change that.
- A vectorised step is two matrix products and little else. numpy and JAX call different libraries for them, so which of
  the two is faster depends on the shapes and the machine.
- Without `jit`, JAX compiles and runs each operation separately; with it, the whole step as one program. Compilation
  pays off if a step runs thousands of times, or if many models share it: section 7 trains 49 of them at once.
"""

# %% [markdown]
r"""
## 5. The two-layer net

The two-layer net has a hidden layer of $H$ units with ReLU. Its biases are separate parameters, so there is no column
of ones, and they are not penalised:

$$
\begin{aligned}
z &= X W_1 + b_1 && [N, H] \\
h &= \max(z, 0) && [N, H] \\
s &= h W_2 + b_2 && [N, C] \\
L &= -\frac{1}{N} \sum_i \log p_{i, y_i} + \mathrm{reg} \left(\sum W_1^2 + \sum W_2^2\right)
\end{aligned}
$$

### Forward
"""

# %%
H = 6
X, y = rng.standard_normal((N, D)), rng.integers(0, C, N)
params = two_layer.Params(*(rng.standard_normal(shape) for shape in ((D, H), (H,), (H, C), (C,))))
W1, b1, W2, b2 = params

z = X @ W1 + b1
h = np.maximum(z, 0)
s = h @ W2 + b2
p = np.exp(s - s.max(axis=1, keepdims=True))
p /= p.sum(axis=1, keepdims=True)
L = -np.log(p[np.arange(N), y]).mean() + reg * (np.sum(W1**2) + np.sum(W2**2))
print(f"loss {L:.4f}; {np.mean(z > 0):.0%} of z above 0, the smallest |z| {np.abs(z).min():.3f}")
assert np.allclose(L, two_layer.loss(params, X, y, reg))

# %% [markdown]
r"""
### Backward

The backward pass goes through the four lines of the forward pass from the last to the first. Each step takes the
gradient with respect to the left side of a line, and computes the gradient with respect to each variable on its right
side.

**The loss** depends on the scores as before:

$$
\frac{\partial L}{\partial s} = \frac{p - \mathrm{onehot}(y)}{N}
$$
"""

# %%
dlogits = (p - np.eye(C)[y]) / N
check("dL/ds", lambda s: losses.cross_entropy(s, y), s, dlogits)

# %% [markdown]
r"""
**The second layer**, $s = h W_2 + b_2$, is the linear classifier of section 3 with $h$ in place of $X$. The bias
$b_{2j}$ is added to the score of class $j$ in every example, so its gradient is the sum over the examples:

$$
\frac{\partial L}{\partial W_2} = h^\top \frac{\partial L}{\partial s} + 2 \, \mathrm{reg} \, W_2
\qquad
\frac{\partial L}{\partial b_2} = \sum_i \frac{\partial L}{\partial s_i}
\qquad
\frac{\partial L}{\partial h} = \frac{\partial L}{\partial s} W_2^\top
$$
"""

# %%
dW2 = h.T @ dlogits + 2 * reg * W2
db2 = dlogits.sum(axis=0)
dh = dlogits @ W2.T
check("dL/dW2", lambda W2: two_layer.loss(params._replace(W2=W2), X, y, reg), W2, dW2)
check("dL/db2", lambda b2: two_layer.loss(params._replace(b2=b2), X, y, reg), b2, db2)
check("dL/dh", lambda h: losses.cross_entropy(h @ W2 + b2, y), h, dh)

# %% [markdown]
r"""
**ReLU**, $h = \max(z, 0)$. Where $z > 0$, $h = z$ and the gradient passes unchanged. Where $z < 0$, $h$ is constant and
the gradient is 0:

$$
\frac{\partial L}{\partial z} = \frac{\partial L}{\partial h} \text{ where } z > 0, \text{ else } 0
$$

At exactly 0 there is a kink and no derivative; by convention the gradient is 0. If a step of the central differences
crosses the kink, they disagree with any formula. So look at the smallest $|z|$ before you look for a bug.
"""

# %%
dz = np.where(z > 0, dh, 0)
check("dL/dz", lambda z: losses.cross_entropy(jnp.maximum(z, 0) @ W2 + b2, y), z, dz)

# %% [markdown]
r"""
**The first layer**, $z = X W_1 + b_1$, is another linear layer:

$$
\frac{\partial L}{\partial W_1} = X^\top \frac{\partial L}{\partial z} + 2 \, \mathrm{reg} \, W_1
\qquad
\frac{\partial L}{\partial b_1} = \sum_i \frac{\partial L}{\partial z_i}
\qquad
\frac{\partial L}{\partial X} = \frac{\partial L}{\partial z} W_1^\top
$$
"""

# %%
dW1 = X.T @ dz + 2 * reg * W1
db1 = dz.sum(axis=0)
dX = dz @ W1.T
check("dL/dW1", lambda W1: two_layer.loss(params._replace(W1=W1), X, y, reg), W1, dW1)
check("dL/db1", lambda b1: two_layer.loss(params._replace(b1=b1), X, y, reg), b1, db1)
check("dL/dX", lambda X: two_layer.loss(params, X, y, reg), X, dX)

# %% [markdown]
r"""
`jaxcls.two_layer.loss_and_grad` computes these lines, and `jax.grad` of the loss returns the same:
"""

# %%
by_hand = two_layer.Params(dW1, db1, dW2, db2)
with jax.enable_x64(True):
    theirs = two_layer.loss_and_grad(params, X, y, reg)[1], jax.grad(two_layer.loss)(params, X, y, reg)
for grads in theirs:
    assert all(np.allclose(a, b, rtol=1e-12) for a, b in zip(by_hand, grads, strict=True))

# %% [markdown]
r"""
## 6. The hinge loss

CS231n's notes have a second loss, that of the multiclass SVM. The label's score must exceed every other score by a
margin of 1. The loss is the sum of the shortfalls; beyond the margin it is 0:

$$
L = \frac{1}{N} \sum_i \sum_{j \ne y_i} \max(0, s_{ij} - s_{i, y_i} + 1)
$$

Each term is linear where it is positive and constant elsewhere. A positive term has slope 1 in $s_{ij}$ and slope $-1$
in $s_{i, y_i}$, which occurs in every term of its row:

$$
N \frac{\partial L}{\partial s_{ij}} = [s_{ij} - s_{i, y_i} + 1 > 0] \quad \text{for } j \ne y_i
\qquad
N \frac{\partial L}{\partial s_{i, y_i}} = -\sum_{j \ne y_i} [s_{ij} - s_{i, y_i} + 1 > 0]
$$
"""

# %%
margins = s - s[np.arange(N), y][:, None] + 1
margins[np.arange(N), y] = 0  # the sum excludes the label
violated = margins > 0
L = np.maximum(margins, 0).sum() / N
dlogits = (violated - np.eye(C)[y] * violated.sum(axis=1, keepdims=True)) / N
print(N * dlogits)
check("dL/ds", lambda s: losses.hinge(s, y), s, dlogits)
assert np.allclose(L, losses.hinge(s, y))
assert np.allclose(dlogits, losses.hinge_and_grad(s, y)[1])

# %% [markdown]
r"""
**Question.** The weights are small and random. What is this loss before the first step?
"""

# %% [markdown]
r"""
**Answer.** $C - 1$. All scores are nearly equal, so each of the $C - 1$ terms is close to the margin of 1.
"""

# %%
assert np.isclose(losses.hinge(np.zeros((N, C)), y), C - 1)

# %% [markdown]
r"""
With two classes, both losses depend on one number, the difference of the label's score and the other. Cross-entropy
keeps decreasing, ever more slowly; hinge is 0 from a difference of 1 on.
"""


# %%
def each(loss, scores, labels):
    """Loss of every single example, in float64."""
    with jax.enable_x64(True):
        return np.asarray(jax.vmap(lambda s, y: loss(s[None], y[None]))(scores, labels))


lead = np.linspace(-4, 5, 200)
two_scores = np.stack([lead, np.zeros(200)], axis=1)
figure, ax = plt.subplots(figsize=(5.5, 3), layout="constrained")
for name, loss in (("hinge", losses.hinge), ("cross-entropy", losses.cross_entropy)):
    ax.plot(lead, each(loss, two_scores, np.zeros(200, int)), label=name)
ax.axvline(1, color="0.6", linestyle=":")
ax.set(xlabel="$s_y - s_j$", ylabel="loss", title="two classes")
ax.legend()
plt.show()

# %% [markdown]
r"""
### An example that does not change the loss

**Question**, from CS231n's worksheet: let the training loss be the *sum* over all training examples. Is there a new
example that does not change the SVM's loss? And the softmax classifier's?

A loss depends only on the scores, so define the new example by its scores, 10, 0, 0, and its label, class 0.
"""

# %%
more_s, more_y = np.append(s, [[10.0, 0.0, 0.0]], axis=0), np.append(y, 0)
before, after = {}, {}
for name, loss in (("hinge", losses.hinge), ("softmax", losses.cross_entropy)):
    before[name], after[name] = each(loss, s, y), each(loss, more_s, more_y)
    print(f"{name:8} sum {before[name].sum():.9f} -> {after[name].sum():.9f}")
assert after["hinge"].sum() == before["hinge"].sum()
assert np.isclose(after["softmax"].sum() - before["softmax"].sum(), np.log(1 + 2 * np.exp(-10)))

# %% [markdown]
r"""
**Answer.** For the SVM, yes: the label's score is larger by 10, more than the margin of 1, so both of its terms are 0.
Its gradient is 0 too, so the example does not affect training. The same holds for every example beyond the margins; the
others are the support vectors.

For the softmax classifier, no: finite scores give $p_y < 1$, so $-\log p_y > 0$. Here it is $\log(1 + 2 e^{-10})$. For
a difference of 40 it is $\log(1 + 2 e^{-40}) \approx 8 \cdot 10^{-18}$, which is above 0 but lost to rounding when
float64 adds it to a sum of this size.
"""

# %%
far = each(losses.cross_entropy, np.array([[40.0, 0.0, 0.0]]), np.array([0]))
total = before["softmax"].sum()
print(f"its own loss {far[0]:.2e}, added to the sum: {'nothing changes' if total + far[0] == total else 'a change'}")
assert far[0] > 0
assert total + far[0] == total

# %% [markdown]
r"""
**Sum or mean?** The answers above hold for sums. For means, which the worksheets' code and `jaxcls` compute, both
answers are reversed. An example beyond the margin *lowers* the SVM's mean over $N + 1$ examples to $\frac{N}{N + 1} L$.
A mean is unchanged exactly if the loss of the new example equals it. The softmax classifier allows that: for scores
$a, 0, 0$ and label 0 the loss is $\log(1 + 2 e^{-a})$, which equals $L$ at $a = -\log \frac{e^L - 1}{2}$.
"""

# %%
assert np.isclose(after["hinge"].mean(), N / (N + 1) * before["hinge"].mean())
mean = before["softmax"].mean()
a = -np.log((np.exp(mean) - 1) / 2)
same = each(losses.cross_entropy, np.append(s, [[a, 0.0, 0.0]], axis=0), more_y)
print(f"hinge    mean {before['hinge'].mean():.9f} -> {after['hinge'].mean():.9f}")
print(f"softmax  mean {mean:.9f} -> {same.mean():.9f}, with a = {a:.3f}")
assert np.isclose(same.mean(), mean, rtol=1e-12)

# %% [markdown]
r"""
Training uses the mean because `lr` and `reg` then have the same effect for a minibatch of 100 as for all 49,000 images.
With the sum, twice the data would halve the relative weight of the penalty.
"""

# %% [markdown]
r"""
## 7. The sweep

Two hyperparameters remain: the learning rate and the regularisation strength. The worksheets search a grid of them.
`jaxcls.sweep.run` trains all cells of the grid at once with the gradient of section 3, here on the 8 x 8 digits bundled
with scikit-learn, and selects the cell with the highest validation accuracy.
"""

# %%
splits = data.standard(data.load_digits())
cells = grid.Grid(lr=[0.01, 0.03, 0.1, 0.3, 1, 3, 10], reg=[0, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 1])
result = sweep.run(splits, cells, steps=1000, batch_size=100)
best = cells.cells()[result.best]
print(f"{len(cells)} cells: {result.timings.run_s:.1f} s of training, {result.timings.compile_s:.1f} s of compiling")
print(f"best: lr {best['lr']}, reg {best['reg']}, test accuracy {result.test_accuracy:.3f}")
assert result.test_accuracy > 0.93

# %%
figure, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
for ax, name in zip(axes, ("train", "val"), strict=True):
    scores = result.table[f"{name}_accuracy"]
    plots.heat_map(ax, cells, scores, best=result.best, label=f"{name} accuracy")
plt.show()

# %% [markdown]
r"""
The heat maps show:

- **Rows: the learning rate.** At 0.01, a thousand steps are too few: the training accuracy is higher in the rows below.
- **Columns: the penalty.** It lowers the training accuracy. The validation accuracy is flat up to about $10^{-3}$ and
  then falls. With 270 validation examples, one more correct prediction is 0.004, so several cells tie for the best.
  Ties go to the lower validation loss.
- **The corner at the bottom right.** A step subtracts $\mathrm{lr} \cdot 2\, \mathrm{reg}\, W$ from the weights, so the
  penalty alone multiplies them by $1 - 2\, \mathrm{lr}\, \mathrm{reg}$. For $\mathrm{lr} \cdot \mathrm{reg} > 1$ this
  factor is below $-1$ and the weights diverge: grey. At 1 or slightly below, they change sign at every step, so at
  every other step the predictions are reversed. The thousandth step is one of these: the accuracy is far below chance,
  0.1.
"""

# %%
diverged = result.table["diverged_at"] >= 0
assert np.array_equal(diverged, result.table["lr"] * result.table["reg"] > 1)

# %% [markdown]
r"""
### Templates

A column of `W` has a weight for every pixel, so it can be shown as an image: red where ink is evidence for the class,
blue where it is evidence against it. Above: the best cell. Below: the same learning rate with a penalty of 0.1.
"""

# %%
strict = sweep.run(splits, grid.Grid(lr=[best["lr"]], reg=[0.1]), steps=1000, batch_size=100)
figure, axes = plt.subplots(2, 10, figsize=(11, 2.6), layout="constrained")
for row_of_axes, W in zip(axes, (result.params, strict.params), strict=True):
    pictures = np.asarray(W)[splits.pixels]  # height, width, class
    for label, ax in enumerate(row_of_axes):
        weights.template(ax, pictures[..., label], limit=np.abs(pictures).max(), label=splits.class_names[label])
plt.show()

# %% [markdown]
r"""
The 0 is a ring, with negative weights in its centre. The 5 and the 6 have negative weights at the upper right, where a
9 closes its loop. The penalty makes the templates smoother: without it, some weights fit only a few training examples.
With it, the weights are close to the first step from zero weights, where all $p_{ij} = 1/C$. Up to a factor, that step
is $X^\top (\mathrm{onehot}(y) - 1/C)$: the difference between the examples of a class and the average.
"""


# %%
def cosine(a, b):
    """Cosine similarity: 1 for arrays of the same direction, 0 for orthogonal ones."""
    return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)


X = softmax.append_ones(splits.train.X)
first_step = -softmax.loss_and_grad(np.zeros((65, 10), np.float32), X, splits.train.y, 0.0)[1]
print(f"cosine with the first step: best cell {cosine(result.params, first_step):.2f}, ", end="")
print(f"with a penalty of 0.1 {cosine(strict.params, first_step):.2f}")
assert cosine(result.params, first_step) < cosine(strict.params, first_step)

# %% [markdown]
r"""
The test accuracy above needs only the first line of the derivation and the highest score:
"""

# %%
s = softmax.append_ones(splits.test.X) @ result.params
assert np.mean(s.argmax(axis=1) == splits.test.y) == result.test_accuracy
