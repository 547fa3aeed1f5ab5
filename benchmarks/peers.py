"""Alternatives to jaxcls for training a grid, each with the same arithmetic.

A peer is a function of a workload's `Problem` and the cells to train; it returns a `Trainer`. All train on the same
minibatches.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from numpy.typing import NDArray
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from workloads import Problem, step_numpy

import torchref
from jaxcls import classifier, engine, train, two_layer
from jaxcls.engine import BY_CELL, alignment, mesh, program, put
from jaxcls.optimizers import Optimizer
from jaxcls.train import Hyper

CellParams = tuple[NDArray, ...]


class Trainer(NamedTuple):
    """Training functions of a peer."""

    run: Callable[[NDArray[np.integer]], None]  # train on minibatches [T, B]; blocks until done
    params: Callable[[], list[CellParams]]  # the params of each cell, on the host


Peer = Callable[[Problem, Sequence[int]], Trainer]

WEIGHT_DECAY = 0.01  # of AdamW
TORCH_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def numpy_loop(problem: Problem, cells: Sequence[int], *, dtype: type) -> Trainer:
    """The courses' vectorised formulas, one cell after another."""
    X, y = problem.X.astype(dtype), problem.y
    params = {cell: [array.astype(dtype) for array in problem.params] for cell in cells}

    def run(batches: NDArray[np.integer]) -> None:
        for cell in cells:
            lr, reg = dtype(problem.lr[cell]), dtype(problem.reg[cell])
            for batch in batches:
                step_numpy(params[cell], X[batch], y[batch], lr, reg)

    return Trainer(run, lambda: [tuple(params[cell]) for cell in cells])


def torch_nn(problem: Problem, cells: Sequence[int]) -> Trainer:
    """``nn.Linear``, ``cross_entropy``, autograd and ``optim.SGD``, one cell after another."""
    X, y = _torch_data(problem)
    trained = []
    for cell in cells:
        model = _module(problem)
        decay, rest = [], []
        for name, parameter in model.named_parameters():
            (decay if name.endswith("weight") else rest).append(parameter)
        groups = [{"params": decay, "weight_decay": 2 * float(problem.reg[cell])}, {"params": rest}]
        trained.append((model, torch.optim.SGD(groups, lr=float(problem.lr[cell]))))

    def run(batches: NDArray[np.integer]) -> None:
        rows = torch.as_tensor(batches, device=TORCH_DEVICE)
        for model, optimizer in trained:
            for batch in rows:
                loss = cross_entropy(model(X[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        _synchronize()

    def params() -> list[CellParams]:
        return [tuple(p.detach().cpu().numpy().T for p in model.parameters()) for model, _ in trained]

    return Trainer(run, params)


def torch_by_hand(problem: Problem, cells: Sequence[int]) -> Trainer:
    """The hand-derived gradients of `torchref`, one cell after another."""
    X, y = _torch_data(problem)
    params = {cell: _torch_params(problem) for cell in cells}
    names = ("W1", "b1", "W2", "b2")

    def run(batches: NDArray[np.integer]) -> None:
        rows = torch.as_tensor(batches, device=TORCH_DEVICE)
        for cell in cells:
            lr, reg, arrays = float(problem.lr[cell]), float(problem.reg[cell]), params[cell]
            for batch in rows:
                if len(arrays) == 1:
                    _, dW = torchref.softmax_loss_vectorized(arrays[0], X[batch], y[batch], reg)
                    arrays[0] -= lr * dW
                    continue
                net = dict(zip(names, arrays, strict=True))
                _, grads = torchref.nn_forward_backward(net, X[batch], y[batch], reg)
                for name in names:
                    net[name] -= lr * grads[name]
        _synchronize()

    return Trainer(run, lambda: [_host(params[cell]) for cell in cells])


def torch_vmap(problem: Problem, cells: Sequence[int], *, compiled: bool) -> Trainer:
    """`torch.func.vmap` of `torch.func.grad` over stacked weights, updated in place."""
    X, y = _torch_data(problem)
    lr, reg = (torch.as_tensor(array[list(cells)], device=TORCH_DEVICE) for array in (problem.lr, problem.reg))
    model = _module(problem)
    stacked = {
        name: parameter.detach().expand(len(cells), *parameter.shape).clone()
        for name, parameter in model.named_parameters()
    }

    def loss(params: dict[str, torch.Tensor], X: torch.Tensor, y: torch.Tensor, reg: torch.Tensor) -> torch.Tensor:
        penalty = sum((array * array).sum() for name, array in params.items() if name.endswith("weight"))
        return cross_entropy(functional_call(model, params, (X,)), y) + reg * penalty

    gradient = vmap(grad(loss), in_dims=(0, None, None, 0))

    def step(params: dict[str, torch.Tensor], X: torch.Tensor, y: torch.Tensor) -> None:
        grads = gradient(params, X, y, reg)
        for name, array in params.items():
            array -= lr.view(-1, *[1] * (array.ndim - 1)) * grads[name]

    step = torch.compile(step) if compiled else step

    def run(batches: NDArray[np.integer]) -> None:
        for batch in torch.as_tensor(batches, device=TORCH_DEVICE):
            step(stacked, X[batch], y[batch])
        _synchronize()

    def params() -> list[CellParams]:
        return [tuple(stacked[name][k].cpu().numpy().T for name in stacked) for k in range(len(cells))]

    return Trainer(run, params)


def torch_wide(problem: Problem, cells: Sequence[int]) -> Trainer:
    """All cells as one product, fused by hand, updated in place: code specialised to this task.

    It records the data loss of every cell, without the penalty.
    """
    X, y = _torch_data(problem)
    n_cells = len(cells)
    lr, reg = (torch.as_tensor(array[list(cells)], device=TORCH_DEVICE) for array in (problem.lr, problem.reg))
    shrink = 1 - 2 * lr * reg
    params = [torch.stack([array] * n_cells, dim=-2).contiguous() for array in _torch_params(problem)]

    def backward(scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """``lr dL/dscores`` of scores ``[B, G, C]``."""
        logp = scores.log_softmax(dim=-1)
        index = y[:, None, None].expand(-1, n_cells, 1)
        losses.append(-logp.gather(-1, index).mean(dim=(0, 2)))
        p = logp.exp_()
        p.scatter_add_(-1, index, p.new_full((1, 1, 1), -1.0).expand(index.shape))
        return p.mul_((lr / len(y))[None, :, None])

    def linear(X: torch.Tensor, y: torch.Tensor) -> None:
        (W,) = params
        flat = W.view(W.shape[0], -1)
        step = backward((X @ flat).view(len(X), n_cells, -1), y)
        W.mul_(shrink[None, :, None])
        flat.addmm_(X.T, step.view(len(X), -1), alpha=-1)

    def two_layer(X: torch.Tensor, y: torch.Tensor) -> None:
        W1, b1, W2, b2 = params  # [D, G, H], [G, H], [H, G, C], [G, C]
        flat = W1.view(W1.shape[0], -1)
        h = torch.addmm(b1.view(-1), X, flat).relu_().view(len(X), n_cells, -1).transpose(0, 1)  # [G, B, H]
        second = W2.transpose(0, 1)
        scores = torch.baddbmm(b2[:, None], h, second)
        step = backward(scores.transpose(0, 1), y).transpose(0, 1)  # [G, B, C]
        dz = torch.bmm(step, second.transpose(1, 2)).mul_(h > 0)
        W2.mul_(shrink[None, :, None])
        second.baddbmm_(h.transpose(1, 2), step, alpha=-1)
        b2.sub_(step.sum(dim=1))
        W1.mul_(shrink[None, :, None])
        flat.addmm_(X.T, dz.transpose(0, 1).reshape(len(X), -1), alpha=-1)
        b1.sub_(dz.sum(dim=1))

    step = linear if len(params) == 1 else two_layer
    losses: list[torch.Tensor] = []

    def run(batches: NDArray[np.integer]) -> None:
        losses.clear()
        for batch in torch.as_tensor(batches, device=TORCH_DEVICE):
            step(X[batch], y[batch])
        _synchronize()

    return Trainer(run, lambda: [_host([a.select(a.ndim - 2, k) for a in params]) for k in range(n_cells)])


def torch_adamw(problem: Problem, cells: Sequence[int], *, shared: bool) -> Trainer:
    """Linear heads under AdamW, as the scripts of probes have them: all on a shared batch, or one after another."""
    X, y = _torch_data(problem)
    heads = [_torch_params(problem)[0].requires_grad_() for _ in cells]
    groups = [{"params": [W], "lr": float(problem.lr[cell])} for W, cell in zip(heads, cells, strict=True)]
    decay = {"weight_decay": WEIGHT_DECAY}
    optimizers = [torch.optim.AdamW(groups, **decay)] if shared else [torch.optim.AdamW([g], **decay) for g in groups]

    def run(batches: NDArray[np.integer]) -> None:
        for optimizer in optimizers:
            for batch in torch.as_tensor(batches, device=TORCH_DEVICE):
                X_b, y_b = X[batch], y[batch]
                optimizer.zero_grad()
                sum(cross_entropy(X_b @ group["params"][0], y_b) for group in optimizer.param_groups).backward()
                optimizer.step()
        _synchronize()

    return Trainer(run, lambda: [_host([W.detach()]) for W in heads])


def jax_loop(problem: Problem, cells: Sequence[int]) -> Trainer:
    """A jitted scan over the steps of one cell, called for one cell after another."""
    model, X, y, params = _jax(problem)
    hypers = {cell: Hyper(jnp.float32(problem.lr[cell]), jnp.float32(problem.reg[cell])) for cell in cells}
    states = {cell: train.init(optax.sgd, params, hypers[cell]) for cell in cells}
    scan = jax.jit(functools.partial(train.run, functools.partial(train.step, model, optax.sgd)))

    def run(batches: NDArray[np.integer]) -> None:
        rows = jnp.asarray(batches)
        for cell in cells:
            states[cell], _ = scan(states[cell], hypers[cell], X, y, rows)
        jax.block_until_ready(states)

    return Trainer(run, lambda: [_leaves(states[cell].params) for cell in cells])


def jax_vmap(problem: Problem, cells: Sequence[int]) -> Trainer:
    """``jit(vmap(run))``, the direct approach: cells are the first axis of all arrays."""
    model, X, y, params = _jax(problem)
    hyper = _hyper(problem, cells)
    state = jax.vmap(lambda hyper: train.init(optax.sgd, params, hyper))(hyper)
    one = functools.partial(train.run, functools.partial(train.step, model, optax.sgd))
    scan = jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)), donate_argnums=0)

    def run(batches: NDArray[np.integer]) -> None:
        nonlocal state
        state, _ = jax.block_until_ready(scan(state, hyper, X, y, jnp.asarray(batches)))

    return Trainer(run, lambda: list(zip(*_leaves(state.params), strict=True)))


def jaxcls_wide(problem: Problem, cells: Sequence[int], optimizer: Optimizer = optax.sgd) -> Trainer:
    """The chunk of training that `jaxcls.sweep` runs, on all devices of this process."""
    on = mesh(jax.devices())
    filled = [*cells, *[cells[-1]] * (-len(cells) % on.size)]
    model, *_, params = _jax(problem)
    sizes = (problem.X.shape[1], *(array.shape[-1] for array in problem.params[::2]))
    model = model._replace(features=jnp.asarray)  # X has its column of ones
    parts, align = (len(problem.y),), alignment(jax.devices())
    common = engine.Problem(model, optimizer, (sizes,), jnp.dtype("float32"), parts, align)
    hyper = Hyper(*(put(on, array[filled], BY_CELL) for array in (problem.lr, problem.reg)))
    examples = engine.cells.Examples(put(on, problem.X), put(on, problem.y))
    held_out = put(on, np.ones(1, np.int32))
    # One replicate, [1, ..., G].
    params = jax.tree.map(engine.cells.widen, params, engine.cells.cell(common).params)
    state = train.init(optimizer, params, Hyper(jnp.float32(0), jnp.float32(0)))
    state = jax.tree.map(lambda a: np.stack([a] * len(filled), axis=-1)[None], state)
    state = jax.tree.map(program.place, state, program.shapes(on, common, 1, len(filled)))
    scan = program.train(on, common)

    def run(batches: NDArray[np.integer]) -> None:
        nonlocal state
        state, _ = jax.block_until_ready(scan(state, hyper, held_out, examples, put(on, batches[:, None])))

    return Trainer(run, lambda: [_leaves(engine.cells.take(common, state.params, 0, k, 0)) for k in range(len(cells))])


def jaxcls_adamw(problem: Problem, cells: Sequence[int]) -> Trainer:
    """`jaxcls_wide` under AdamW, without a penalty."""
    return jaxcls_wide(
        problem._replace(reg=0 * problem.reg), cells, functools.partial(optax.adamw, weight_decay=WEIGHT_DECAY)
    )


PEERS: dict[str, Peer] = {
    "numpy float64": functools.partial(numpy_loop, dtype=np.float64),
    "numpy float32": functools.partial(numpy_loop, dtype=np.float32),
    "torch nn, autograd": torch_nn,
    "torch by hand": torch_by_hand,
    "torch.func.vmap": functools.partial(torch_vmap, compiled=False),
    "torch.func.vmap, compiled": functools.partial(torch_vmap, compiled=True),
    "torch wide, in place": torch_wide,
    "jax.jit, a loop": jax_loop,
    "jax.jit(vmap), cells first": jax_vmap,
    "torch AdamW, heads on a shared batch": functools.partial(torch_adamw, shared=True),
    "torch AdamW, one head after another": functools.partial(torch_adamw, shared=False),
    "jaxcls": jaxcls_wide,
    "jaxcls, AdamW": jaxcls_adamw,
    "jaxcls, one device per core": jaxcls_wide,  # run.py sets the number of devices
}
LOOPS = ("numpy float64", "numpy float32", "torch nn, autograd", "torch by hand", "jax.jit, a loop")


def _torch_data(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(problem.X, device=TORCH_DEVICE), torch.as_tensor(problem.y, device=TORCH_DEVICE).long()


def _torch_params(problem: Problem) -> list[torch.Tensor]:
    return [torch.tensor(array, device=TORCH_DEVICE) for array in problem.params]


def _host(arrays: Sequence[torch.Tensor]) -> CellParams:
    return tuple(array.cpu().numpy() for array in arrays)


def _module(problem: Problem) -> torch.nn.Module:
    """``nn.Linear``, or two of them and a ReLU, with the problem's params."""
    weights = problem.params[::2]
    biases = problem.params[1::2]
    layers: list[torch.nn.Module] = []
    for k, weight in enumerate(weights):
        layer = torch.nn.Linear(*weight.shape, bias=bool(biases), device=TORCH_DEVICE)
        layer.weight.data.copy_(torch.tensor(weight.T))
        if biases:
            layer.bias.data.copy_(torch.tensor(biases[k]))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _synchronize() -> None:
    if TORCH_DEVICE == "cuda":
        torch.cuda.synchronize()


def _jax(problem: Problem) -> tuple[classifier.Classifier, jax.Array, jax.Array, classifier.Params]:
    arrays = [jnp.asarray(array) for array in problem.params]
    model, params = classifier.LINEAR, arrays[0]
    if len(arrays) > 1:
        model, params = classifier.two_layer_net(), two_layer.Params(*arrays)
    return model, jax.device_put(problem.X), jax.device_put(problem.y), params


def _leaves(params: classifier.Params) -> CellParams:
    return tuple(map(np.asarray, jax.tree.leaves(params)))


def _hyper(problem: Problem, cells: Sequence[int]) -> Hyper:
    return Hyper(jnp.asarray(problem.lr[list(cells)]), jnp.asarray(problem.reg[list(cells)]))
