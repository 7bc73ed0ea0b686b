"""The networks of the digits example: their task, their training, what it costs, and surgery on them.

The surgery keeps what a network has learned. Growing it (`widened`, `deepened`) does not change what it computes, or
hardly; shrinking and joining keep as much as they can. A changed network starts from its parent's knowledge instead
of from nothing, which is what makes an evolution of *trained* networks affordable.

Shapes: inputs are `(samples, inputs)`, labels `(samples,)`, the weights of one layer `(inputs, outputs)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

PIXEL_MAX = 16.0
CLASSES = 10
BATCH_SIZE = 16
ADAM_DECAY = (0.9, 0.999)
ADAM_EPSILON = 1e-8
WEIGHT_DECAY = 0.3  # per unit of learning rate; without it the grown networks learn their samples by heart
TANH_SLOPE = 0.25  # an identity layer of tanh works near zero, where tanh(x) is almost x


@dataclass(frozen=True)
class Samples:
    """Some samples; the ids are those of the whole data set."""

    ids: list[str]
    x: Array  # (samples, 64), pixels scaled to 0..1
    y: Labels  # (samples,)

    def at(self, rows: Sequence[int] | Labels) -> Samples:
        """The samples in the given rows."""
        index = np.asarray(rows)
        return Samples([self.ids[row] for row in index], self.x[index], self.y[index])


@dataclass(frozen=True)
class Task:
    """The digits in three splits, and a version made of their content."""

    train: Samples
    val: Samples
    test: Samples
    version: str


def digits_task(seed: int) -> Task:
    """scikit-learn's handwritten digits: 60 % to train, 20 % to validate, 20 % to test, stratified."""
    data, labels = load_digits(return_X_y=True)
    version = hashlib.sha256(data.tobytes() + labels.tobytes()).hexdigest()[:12]
    everything = Samples([f"digit-{row}" for row in range(labels.size)], data / PIXEL_MAX, labels)
    train, rest = train_test_split(np.arange(labels.size), test_size=0.4, stratify=labels, random_state=seed)
    val, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=seed)
    return Task(everything.at(train), everything.at(val), everything.at(test), version)


class Score(NamedTuple):
    """How well a network does on some samples."""

    loss: float
    accuracy: float

    @property
    def rank(self) -> tuple[float, float]:
        """Accuracy decides; on a small validation set it often ties, then the loss does."""
        return self.accuracy, -self.loss


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # this form cannot overflow


# Name -> (function, its derivative written in terms of the function's output).
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (_relu, lambda out: (out > 0.0).astype(np.float64)),
    "tanh": (np.tanh, lambda out: 1.0 - out * out),
    "sigmoid": (_sigmoid, lambda out: out * (1.0 - out)),
}


@dataclass(frozen=True)
class Network:
    """A classifier: dense hidden layers, then a linear layer whose outputs go through a softmax.

    Frozen means that the surgery below builds new networks; training does change the arrays themselves.
    """

    weights: list[Array]
    biases: list[Array]
    activations: tuple[str, ...]  # one per hidden layer
    learning_rate: float

    @property
    def widths(self) -> list[int]:
        """Units of each hidden layer."""
        return [bias.size for bias in self.biases[:-1]]

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.activations)

    @property
    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(array.size for array in self.weights + self.biases)

    def layer_outputs(self, x: Array) -> list[Array]:
        """The input, then what each layer makes of it; the last entry holds the logits."""
        outputs = [x]
        for weight, bias, name in zip(self.weights, self.biases, self.activations, strict=False):
            outputs.append(ACTIVATIONS[name][0](outputs[-1] @ weight + bias))
        outputs.append(outputs[-1] @ self.weights[-1] + self.biases[-1])
        return outputs

    def copy(self, **changes: Any) -> Network:
        """An independent network with the same values, except for *changes*."""
        fresh = {"weights": [w.copy() for w in self.weights], "biases": [b.copy() for b in self.biases]}
        return replace(self, **{**fresh, **changes})

    def architecture(self) -> dict[str, Any]:
        """The network's shape as plain data."""
        return {
            "inputs": self.weights[0].shape[0],
            "hidden": self.widths,
            "outputs": self.biases[-1].size,
            "activations": list(self.activations),
            "learning_rate": self.learning_rate,
            "parameters": self.parameter_count,
        }

    def __str__(self) -> str:
        layers = [f"{width} {name}" for width, name in zip(self.widths, self.activations, strict=True)]
        parts = [str(self.weights[0].shape[0]), *layers, str(self.biases[-1].size)]
        shape = " > ".join(parts)
        return f"{shape}, learning rate {self.learning_rate:.2g}, {self.parameter_count:,} parameters"


def fresh_network(
    inputs: int,
    hidden: list[int],
    outputs: int,
    activation: str,
    learning_rate: float,
    rng: np.random.Generator,
) -> Network:
    """A network that knows nothing: He-scaled normal weights, zero biases."""
    sizes = [inputs, *hidden, outputs]
    weights = [_he_normal((rows, columns), rng) for rows, columns in pairwise(sizes)]
    return Network(
        weights, [np.zeros(size) for size in sizes[1:]], (activation,) * len(hidden), learning_rate
    )


def _he_normal(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    return rng.normal(0.0, np.sqrt(2.0 / shape[0]), shape)


# --------------------------------------------------------------------------------------------------
# Training and judging


def _probabilities(logits: Array) -> Array:
    exponentials: Array = np.exp(logits - logits.max(axis=1, keepdims=True))
    sums: Array = exponentials.sum(axis=1, keepdims=True)
    return exponentials / sums


def _cross_entropies(probabilities: Array, y: Labels) -> Array:
    return -np.log(np.maximum(probabilities[np.arange(y.size), y], 1e-12))


def predictions(network: Network, x: Array) -> Labels:
    """The most likely class of each sample."""
    answers: Labels = network.layer_outputs(x)[-1].argmax(axis=1)
    return answers


def sample_losses(network: Network, samples: Samples) -> Array:
    """The cross-entropy of each sample."""
    return _cross_entropies(_probabilities(network.layer_outputs(samples.x)[-1]), samples.y)


def evaluated(network: Network, samples: Samples) -> Score:
    """Mean loss and accuracy on the given samples."""
    hits = predictions(network, samples.x) == samples.y
    return Score(float(sample_losses(network, samples).mean()), float(hits.mean()))


class _Adam:
    """Adam with decoupled weight decay.

    Its moments live for one training only, because surgery between trainings changes the shapes.
    """

    def __init__(self, arrays: list[Array], learning_rate: float) -> None:
        self._arrays = arrays
        self._learning_rate = learning_rate
        self._means = [np.zeros_like(array) for array in arrays]
        self._squares = [np.zeros_like(array) for array in arrays]
        self._steps = 0

    def step(self, gradients: list[Array]) -> None:
        self._steps += 1
        first, second = ADAM_DECAY
        rate = self._learning_rate * np.sqrt(1.0 - second**self._steps) / (1.0 - first**self._steps)
        moments = zip(self._arrays, gradients, self._means, self._squares, strict=True)
        for array, gradient, mean, square in moments:
            if array.ndim > 1:  # biases are left alone
                array *= 1.0 - self._learning_rate * WEIGHT_DECAY
            mean += (1.0 - first) * (gradient - mean)
            square += (1.0 - second) * (gradient * gradient - square)
            array -= rate * mean / (np.sqrt(square) + ADAM_EPSILON)


def _gradients(network: Network, outputs: list[Array], probabilities: Array, y: Labels) -> list[Array]:
    """Gradients of the mean cross-entropy: of all weights, then of all biases."""
    error = probabilities.copy()
    error[np.arange(y.size), y] -= 1.0
    error /= y.size
    of_weights: list[Array] = []
    of_biases: list[Array] = []
    for layer in range(network.depth, -1, -1):
        of_weights.insert(0, outputs[layer].T @ error)
        of_biases.insert(0, error.sum(axis=0))
        if layer > 0:
            slope = ACTIVATIONS[network.activations[layer - 1]][1](outputs[layer])
            error = (error @ network.weights[layer].T) * slope
    return of_weights + of_biases


def training(network: Network, samples: Samples, epochs: int, rng: np.random.Generator) -> Iterator[Score]:
    """Train *network* in place by minibatches; yield after each epoch the score its samples had while learning."""
    x, y = samples.x, samples.y
    adam = _Adam(network.weights + network.biases, network.learning_rate)
    for _ in range(epochs):
        loss_sum, hits = 0.0, 0
        order = rng.permutation(y.size)
        for start in range(0, y.size, BATCH_SIZE):
            batch = order[start : start + BATCH_SIZE]
            outputs = network.layer_outputs(x[batch])
            probabilities = _probabilities(outputs[-1])
            loss_sum += float(_cross_entropies(probabilities, y[batch]).sum())
            hits += int((probabilities.argmax(axis=1) == y[batch]).sum())
            adam.step(_gradients(network, outputs, probabilities, y[batch]))
        yield Score(loss_sum / y.size, hits / y.size)


# --------------------------------------------------------------------------------------------------
# Surgery: every function returns a new network and leaves its arguments alone


def widened(network: Network, layer: int, extra: int, rng: np.random.Generator) -> Network:
    """Add *extra* units to a hidden layer; the function stays exactly the same.

    New units listen at random but speak with weight zero: nothing changes until training gives them a say.
    """
    child = network.copy()
    inputs, outputs = child.weights[layer].shape[0], child.weights[layer + 1].shape[1]
    child.weights[layer] = np.hstack([child.weights[layer], _he_normal((inputs, extra), rng)])
    child.biases[layer] = np.concatenate([child.biases[layer], np.zeros(extra)])
    child.weights[layer + 1] = np.vstack([child.weights[layer + 1], np.zeros((extra, outputs))])
    return child


def deepened(network: Network, layer: int) -> Network:
    """Insert a hidden layer of the same width behind *layer*; the function stays (nearly) the same.

    Behind outputs that are never negative a relu identity is exact. Behind tanh it is a tanh layer used where it is
    almost linear, good to about two percent of each unit's output.
    """
    child = network.copy()
    width = network.widths[layer]
    activation, slope = ("tanh", TANH_SLOPE) if network.activations[layer] == "tanh" else ("relu", 1.0)
    child.weights[layer + 1] /= slope
    child.weights.insert(layer + 1, slope * np.eye(width))
    child.biases.insert(layer + 1, np.zeros(width))
    names = network.activations
    return replace(child, activations=(*names[: layer + 1], activation, *names[layer + 1 :]))


def pruned(network: Network, layer: int, count: int) -> Network:
    """Remove the *count* units of a hidden layer that pass on the least: weakest input times weakest output."""
    incoming = np.linalg.norm(network.weights[layer], axis=0)
    outgoing = np.linalg.norm(network.weights[layer + 1], axis=1)
    kept = np.sort(np.argsort(incoming * outgoing, kind="stable")[count:])
    child = network.copy()
    child.weights[layer] = child.weights[layer][:, kept]
    child.biases[layer] = child.biases[layer][kept]
    child.weights[layer + 1] = child.weights[layer + 1][kept]
    return child


def flattened(network: Network, layer: int) -> Network:
    """Remove a hidden layer: without its activation it is linear and merges into the layer behind it."""
    child = network.copy()
    weight, bias = child.weights.pop(layer), child.biases.pop(layer)
    child.biases[layer] = child.biases[layer] + bias @ child.weights[layer]
    child.weights[layer] = weight @ child.weights[layer]
    names = network.activations
    return replace(child, activations=names[:layer] + names[layer + 1 :])


def joined(first: Network, second: Network, widest: int) -> Network:
    """Cross two networks: their hidden units side by side, their logits averaged, then pruned to *widest* units.

    Where the activations of a layer differ the first parent's wins, which costs the second some of its knowledge.
    """
    while first.depth < second.depth:
        first = deepened(first, first.depth - 1)
    while second.depth < first.depth:
        second = deepened(second, second.depth - 1)
    pairs = list(zip(first.weights, second.weights, strict=True))
    weights = [
        np.hstack(pairs[0]),
        *(_block_diagonal(*pair) for pair in pairs[1:-1]),
        0.5 * np.vstack(pairs[-1]),
    ]
    biases = [np.concatenate(pair) for pair in zip(first.biases[:-1], second.biases[:-1], strict=True)]
    biases.append(0.5 * (first.biases[-1] + second.biases[-1]))
    rate = float(np.sqrt(first.learning_rate * second.learning_rate))
    child = Network(weights, biases, first.activations, rate)
    for layer, width in enumerate(child.widths):
        child = pruned(child, layer, max(0, width - widest))
    return child


def _block_diagonal(upper: Array, lower: Array) -> Array:
    block = np.zeros((upper.shape[0] + lower.shape[0], upper.shape[1] + lower.shape[1]))
    block[: upper.shape[0], : upper.shape[1]] = upper
    block[upper.shape[0] :, upper.shape[1] :] = lower
    return block
