"""Made-up pictures in the format of CIFAR-10."""

import functools

import numpy as np

from jaxcls.data.cifar10 import PYTHON_BATCHES

PER_BATCH = 10_000


def pictures(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of made-up batch ``k``."""
    rng = np.random.default_rng(k)
    return rng.integers(0, 256, (PER_BATCH, 3072), np.uint8), rng.integers(0, 10, PER_BATCH)


def python2_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled it: protocol 2, byte strings, numpy.core's names."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    shape = b"M" + pixels.shape[0].to_bytes(2, "little") + b"M" + pixels.shape[1].to_bytes(2, "little") + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R(K\x01" + shape
    array += b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R(K\x03" + short(b"|") + b"NNN"
    array += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + pixels.size.to_bytes(4, "little") + pixels.tobytes()
    numbers = b"](" + b"".join(b"J" + int(label).to_bytes(4, "little", signed=True) for label in labels) + b"e"
    return b"\x80\x02}(" + short(b"labels") + numbers + short(b"data") + array + b"tbu."


@functools.cache
def files() -> dict[str, bytes]:
    """The six batches in both versions."""
    made = {}
    for k, name in enumerate(PYTHON_BATCHES):
        pixels, labels = pictures(k)
        made[name] = python2_pickle(pixels, labels.tolist())
        made[f"{name}.bin"] = np.column_stack([labels.astype(np.uint8), pixels]).tobytes()
    return made
