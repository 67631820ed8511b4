"""What the results of a test look like, for whoever reads them back."""

from pydantic import BaseModel

Interval = tuple[float | None, float | None]


class ViewMetrics(BaseModel, extra="allow"):
    """What is known of a view; an older version lacks some metrics."""

    __pydantic_extra__: dict[str, float | Interval | None]
    n_cpgs: int
    n_samples: int
    n_pairs: int
    mae: float | None
    mae_ci95: Interval
    spearman: float | None
    spearman_ci95: Interval
