"""Heads that attend alike (Clark et al. 2019, §6): distances of their attentions, clusters, and a plane of them.

L layers, N heads, H of all layers' heads, n tokens of a text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertloom.api import Model
from bertloom.errors import InputError
from bertloom.files import whole_file
from bertloom.inspect.bootstrap import Array
from bertloom.inspect.probe import reading
from bertloom.inspect.probe.heads import habits
from bertloom.inspect.probe.reading import Question, Source, Table
from bertloom.tasks.metrics import require_libraries
from bertloom.text.sources import ReadCounts

# Texts that are compared.
TEXTS = 200


@dataclass(frozen=True)
class Clusters:
    """Distances (H, H) in nats a token, layer by layer; each head's cluster (L, N), from 1, and place (L, N, 2) in a
    plane; habits as in `Heads`; how well the clusters stand apart (the mean silhouette)."""

    distances: Array
    labels: Array
    places: Array
    habits: dict[str, Array]
    silhouette: float
    texts: int

    @property
    def within_layers(self) -> tuple[float | None, float | None]:
        """The mean distance of two heads of one layer, and of two layers, where there are such."""
        layers = np.repeat(np.arange(len(self.labels)), self.labels.shape[1])
        same = layers[:, None] == layers
        others = ~np.eye(len(layers), dtype=bool)
        within, apart = self.distances[same & others], self.distances[~same]
        return float(within.mean()) if len(within) else None, float(apart.mean()) if len(apart) else None


def clusters(model: Model, given: Iterable[Source], counts: ReadCounts, seed: int = 0) -> Clusters:
    """Of the first texts the Jensen-Shannon distances of every two heads' attention, and what they come to."""
    require_libraries()
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform
    from sklearn.manifold import MDS
    from sklearn.metrics import silhouette_score

    total: Array | None = None
    sums: dict[str, Array] = {}
    tokens = texts = 0
    for one in reading.seen(model, given, counts):
        attentions = one.attentions
        found = distances(attentions)
        total = found if total is None else total + found
        for name, value in habits(attentions, one.example, model).items():
            sums[name] = sums.get(name, 0) + value
        tokens, texts = tokens + len(one.example), texts + 1
        if texts == TEXTS:
            break
    if total is None:
        raise InputError("no text is left that the model can read, at least one needed")
    shape = sums["entropy"].shape
    if len(total) < 3:
        raise InputError(f"{len(total)} heads in the model, at least 3 needed for clusters", model.path)
    total /= tokens
    # Roots of these distances lie in a space with right angles (Endres & Schindelin 2003), as Ward's way needs.
    count = max(2, round((len(total) / 2) ** 0.5))
    labels = fcluster(linkage(squareform(total**0.5, checks=False), "ward"), count, "maxclust")
    apart = float(silhouette_score(total**0.5, labels, metric="precomputed")) if len(set(labels)) > 1 else 0.0
    with np.errstate(all="ignore"):
        plane = MDS(
            2, metric="precomputed", n_init=4, init="random", random_state=seed, normalized_stress=False
        ).fit_transform(total)
    means = {name: one / tokens for name, one in sums.items()}
    return Clusters(total, labels.reshape(shape), plane.reshape(*shape, 2), means, apart, texts)


def distances(attentions: Array) -> Array:
    """(H, H) of attentions (L, N, n, n) summed over the tokens that look."""
    shares = torch.from_numpy(attentions).flatten(0, 1).flatten(1)
    entropies = torch.special.entr(shares).sum(1)
    found = torch.zeros(len(shares), len(shares), dtype=torch.float64)
    for number, one in enumerate(shares):
        middle = torch.special.entr((shares[number + 1 :] + one) / 2).sum(1)
        found[number, number + 1 :] = middle - (entropies[number + 1 :] + entropies[number]) / 2
    found = (found + found.T).clamp(min=0)
    return found.numpy()


def draw(found: Clusters, path: Path, without: None = None) -> None:
    """The plane, clusters by colour and layers by number, beside a map of clusters."""
    from matplotlib.figure import Figure

    figure = Figure((9, 4.2), layout="constrained")
    plane, table = figure.subplots(1, 2, width_ratios=(1.6, 1))
    layers, heads = found.labels.shape
    for cluster in range(1, int(found.labels.max()) + 1):
        chosen = found.labels == cluster
        plane.scatter(*found.places[chosen].T, s=70, color=f"C{cluster - 1}", alpha=0.85, label=str(cluster))
    for layer in range(layers):
        for head in range(heads):
            plane.annotate(
                str(layer + 1), found.places[layer, head], ha="center", va="center", fontsize=6, color="white"
            )
    plane.set_title("Heads that attend alike are near; numbers are layers", fontsize=9)
    plane.set_xticks([])
    plane.set_yticks([])
    plane.legend(title="cluster", fontsize=7, title_fontsize=7)
    colours = np.array([[int(part) for part in bytes.fromhex(_hex(one))] for one in found.labels.flatten()])
    table.imshow(colours.reshape(layers, heads, 3).astype(np.uint8))
    table.set_title("Clusters", fontsize=9)
    table.set_xlabel("head", fontsize=8)
    table.set_ylabel("layer", fontsize=8)
    table.set_xticks([0, heads - 1], ["1", str(heads)], fontsize=7)
    table.set_yticks([0, layers - 1], ["1", str(layers)], fontsize=7)
    with whole_file(path) as beside:
        figure.savefig(beside, format=path.suffix[1:], dpi=150)


def _hex(cluster: int) -> str:
    from matplotlib.colors import to_hex

    return to_hex(f"C{cluster - 1}")[1:]


def told(found: Clusters) -> dict[str, Any]:
    """All of it as JSON."""
    same, other = found.within_layers
    return {
        "texts": found.texts, "clusters": found.labels.tolist(), "silhouette": found.silhouette,
        "places": found.places.tolist(), "distances": found.distances.tolist(),
        "mean_distance": {"same_layer": same, "other_layer": other},
        "habits": {name: one.tolist() for name, one in found.habits.items()},
    }  # fmt: skip


def of_file(model: Model, asked: Question) -> Clusters:
    """Of the trees of a file."""
    return clusters(model, asked.trees(), asked.counts, asked.seed)


def tables(found: Clusters, without: None = None) -> list[Table]:
    """A cluster a row, with the mean habits of its heads."""
    rows = []
    for cluster in range(1, int(found.labels.max()) + 1):
        own = found.labels == cluster
        names = [f"{layer + 1}-{head + 1}" for layer, head in zip(*own.nonzero())]
        means = [f"{one[own].mean():.2f}" for one in found.habits.values()]
        rows.append((cluster, len(names), *means, " ".join(names)))
    title = f"Heads that attend alike in {found.texts:,} texts; silhouette {found.silhouette:.2f}"
    same, other = found.within_layers
    apart = [f"{what} {one:.3f}" for what, one in (("one layer", same), ("two layers", other)) if one is not None]
    remark = f"Nats between two heads in the mean: of {', of '.join(apart)}."
    return [Table(title, ["cluster", "heads", *found.habits, "which"], rows, remark)]
