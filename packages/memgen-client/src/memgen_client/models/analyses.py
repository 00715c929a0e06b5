"""What an analysis of a version has found out about its memory; the service's docs/analysis.md says what it means."""

from datetime import datetime
from typing import ClassVar

from memgen_client.json_values import JsonObject
from memgen_client.models.model import Model
from memgen_client.pictures.scatter import scatter
from memgen_client.pictures.tables import table


class AnalyzedTask(Model):
    task: str
    suite: int
    """Number of the suite that the items are of."""
    items: int
    left_out: int
    """Items that nobody could be judged on."""
    right: int
    latents: int
    failures: dict[str, int]
    """Wrong answers by kind."""


class KindsBy(Model):
    """Who named the kinds of the wrong answers."""

    judge: str | None
    """None: the rules, of all of them."""
    model: str | None
    by_judge: int
    by_rules: int


class ClusterChoice(Model):
    """One number of clusters that was tried."""

    clusters: int
    silhouette: float
    reference_silhouette: float
    """The highest of clouds of the same spread without clusters."""
    stability: float
    overlap: float
    """Latents midway between two centres over those at the emptier centre, at most: 0 is a gap."""
    items: int
    """Items that the cluster with the fewest has latents of."""
    accepted: bool


class LatentCluster(Model):
    number: int
    latents: int
    share: float
    tasks: dict[str, int]
    insertions: dict[str, int]
    """Latents by where they were woven: `prompt` or `answer`."""
    right_share: float


class Clusters(Model):
    verdict: str
    """`clusters` or `no clusters`."""
    reason: str
    choices: list[ClusterChoice]
    clusters: list[LatentCluster]
    explained_by: dict[str, float]


class LatentPoint(Model):
    row: int
    """Row of `latents.safetensors`, see `jobs.analysis_files`."""
    item: str
    task: str
    insertion: int
    position: int
    right: bool
    cluster: int | None
    pca: list[float]
    tsne: list[float]


class LatentMap(Model):
    points: list[LatentPoint]
    explained_variance: list[float]
    perplexity: float

    def _repr_html_(self) -> str:
        """The latents by t-SNE, coloured by task and by cluster."""
        places = [(point.tsne[0], point.tsne[1]) for point in self.points]
        by_task = scatter("t-SNE by task", places, [point.task for point in self.points])
        return by_task + scatter("t-SNE by cluster", places, [_cluster_name(point.cluster) for point in self.points])


class TokenNeighbour(Model):
    token_id: int
    token: str
    cosine: float


class Neighbours(Model):
    """The tokens of the vocabulary that are nearest to the centre of a cluster, or to a latent."""

    name: str
    """`cluster 0`, or `latent 17` by its row."""
    tokens: list[TokenNeighbour]


class NearestTokens(Model):
    directions: list[Neighbours]
    chance_cosine: float
    """What the nearest token of a random direction exceeds once in twenty times."""


class TaskDrift(Model):
    task: str
    items: int
    cosine: float
    least_cosine: float


class Drift(Model):
    """How far the latents of the same items are from those of another version."""

    against: int
    items: int
    cosine: float
    other_items_cosine: float | None
    """The same between each item's latents and other items': what latents share whatever they are of."""
    cka: float | None
    tasks: list[TaskDrift]
    meaning: str


class FailureMove(Model):
    """How often answers fail in one way with all latents, without a cluster's, and without as many at random."""

    failure: str
    """A kind of failure, or a role for its group of kinds."""
    untouched: float
    dropped: float
    random: float
    random_interval: list[float]
    """Where `dropped` would be if the cluster's latents were like any."""
    rises: bool


class ClusterEffect(Model):
    shown: ClassVar[tuple[str, ...]] = ("cluster", "dropped_latents", "accuracy", "random_accuracy", "role")

    cluster: int
    dropped_latents: int
    random_latents: float
    accuracy: float
    random_accuracy: float
    moves: list[FailureMove]
    role: str
    """`no clear role` unless the evidence says more."""
    reason: str


class Interventions(Model):
    items: int
    accuracy: float
    effects: list[ClusterEffect]
    confidence: float | None
    """Of each interval; None if there are no clusters."""
    rule: str
    """What a role is given by."""


class Ablation(Model):
    name: str
    accuracy: float
    interval: list[float]
    difference: float
    """From the version as it was trained, on the same items."""
    difference_interval: list[float]
    insertions_per_answer: float
    latents_per_answer: float
    tasks: dict[str, float]
    """Accuracy by task."""
    runs: int
    """Runs whose mean this is."""


class Ablations(Model):
    items: int
    rows: list[Ablation]
    skipped: dict[str, str]
    """What makes no sense for this version, and why."""

    def _repr_html_(self) -> str:
        columns = ("memory", "accuracy", "difference", "from", "to", "latents an answer")
        rows = [
            (row.name, row.accuracy, row.difference, *row.difference_interval, row.latents_per_answer)
            for row in self.rows
        ]
        return table(columns, rows, note="none")


class Analysis(Model):
    job_id: str
    analyzed_at: datetime | None
    adapter: str
    version: int
    artifact_hash: str
    base_model: str
    base_revision: str
    settings: JsonObject
    items: int
    latents: int
    hidden: int
    """Size of a latent."""
    tasks: list[AnalyzedTask]
    kinds_by: KindsBy
    clusters: Clusters
    map: LatentMap
    tokens: NearestTokens
    drift: Drift | None
    """None where no version to compare with was named."""
    interventions: Interventions | None
    ablations: Ablations | None


def _cluster_name(cluster: int | None) -> str:
    return "no cluster" if cluster is None else f"cluster {cluster}"
