"""``best.safetensors`` in torch: the same model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import torchref
from jaxcls import classifier, data, softmax, sweep, two_layer
from jaxcls.artifacts import record
from jaxcls.data import Splits
from jaxcls.grid import Grid


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_torch_gives_the_same_logits_and_predictions(hidden: tuple[int, ...], digits: Splits, tmp_path: Path) -> None:
    model = classifier.two_layer_net(init_scale=1e-2) if hidden else classifier.linear()
    result = sweep.run(digits, Grid(lr=[0.3], reg=[1e-3], hidden=hidden), steps=200, classifier=model)
    record.write(tmp_path, result, digits, {})
    source = data.load_digits()
    X = source.X[source.test].astype(np.float32)
    with torch.no_grad():
        theirs = torchref.load(tmp_path / "best.safetensors")(torch.tensor(X)).numpy()
    if hidden:
        ours = two_layer.logits(two_layer.Params(*result.params), digits.test.X)
    else:
        ours = softmax.logits(result.params, softmax.append_ones(digits.test.X))
    np.testing.assert_allclose(theirs, ours, atol=1e-5 * np.abs(ours).max())
    np.testing.assert_array_equal(theirs.argmax(1), np.argmax(ours, axis=1))
    assert np.mean(theirs.argmax(1) == digits.test.y) == result.test_accuracy


def test_it_is_an_ordinary_module(digits: Splits, tmp_path: Path) -> None:
    record.write(tmp_path, sweep.run(digits, Grid(lr=[0.3], reg=[1e-3]), steps=20), digits, {})
    model = torchref.load(tmp_path / "best.safetensors")
    assert [name for name, _ in model.named_parameters()] == ["1.weight", "1.bias"]
    other = torchref.load(tmp_path / "best.safetensors").double()
    model.double().load_state_dict(other.state_dict())
    model(torch.ones(2, 64).double()).sum().backward()
    assert model[1].weight.grad is not None


def test_what_is_no_model_of_ours_is_rejected_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file, expected the best\.safetensors of a run$"):
        torchref.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="text is no safetensors file: "):
        torchref.load(tmp_path / "text")
    save_file({"W": torch.ones(2, 2)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other must hold W, mean, scale or W1, W2, b1, b2, mean, scale, got W$"):
        torchref.load(tmp_path / "other")


@pytest.mark.parametrize("labels", [["ant", "bee"], [10, 20], [0, 1]], ids=str)
def test_labels_come_back_by_their_names(labels: list, tmp_path: Path) -> None:
    """In torch, by the printed lines, and not by numbers that the data never had."""
    X = np.repeat([[-1.0], [1.0]], 20, axis=0)
    splits = data.standard(data.from_arrays(X, np.repeat(labels, 20)))
    result = sweep.run(splits, Grid(lr=[0.3], reg=[1e-3]), steps=20)
    record.write(tmp_path, result, splits, {})
    path, expected = tmp_path / "best.safetensors", [*map(str, np.repeat(labels, 20))]
    model = torchref.load(path)
    assert model.classes == (*map(str, labels),)
    assert model.labels(torch.tensor(X)) == expected
    names = {"X": X}
    exec(record.reload_lines(path, "numpy", result.params, splits.class_names), names)
    assert names.get("labels", [*map(str, names["y"])]) == expected
