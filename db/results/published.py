"""The figures that the paper's authors released, at three thresholds, to compare our results with.

Source: the result files in the code released with arXiv 2108.09343, 3,056 test images of Caltech-256,
MobileNetV2 at 300×300. They come from the released code: blocks dropped, BatchNorm adapting, noise that wraps
around. An expert was evaluated on its own distortion only, the classifier's mistakes are in none of them. The
one with all layers trained (``total``) is there for blur, at one threshold.
"""

from sqlalchemy import Connection, delete, insert
from sqlalchemy.orm import Mapped, mapped_column

from db.models import Base


class Published(Base):
    """One expert at one condition and threshold; level 0 is of the pristine kind. Fractions of 1."""

    __tablename__ = "published"

    policy: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    level: Mapped[int] = mapped_column(primary_key=True)
    p_tar: Mapped[float] = mapped_column(primary_key=True)
    overall_accuracy: Mapped[float]
    edge_exit_probability: Mapped[float]
    edge_accuracy: Mapped[float]


FIGURES = (
    (0.7, "pristine", "pristine", 0, 80.37, 63.12, 87.61),
    (0.7, "gaussian_blur", "pristine", 0, 76.54, 50.82, 89.44),
    (0.7, "gaussian_noise", "pristine", 0, 75.52, 49.02, 87.85),
    (0.7, "pristine", "gaussian_blur", 1, 68.06, 58.44, 73.57),
    (0.7, "gaussian_blur", "gaussian_blur", 1, 73.53, 50.52, 84.20),
    (0.7, "pristine", "gaussian_noise", 5, 50.00, 46.89, 64.83),
    (0.7, "gaussian_noise", "gaussian_noise", 5, 70.71, 44.27, 85.88),
    (0.7, "pristine", "gaussian_blur", 2, 37.73, 39.86, 49.43),
    (0.7, "gaussian_blur", "gaussian_blur", 2, 68.16, 42.83, 84.64),
    (0.7, "pristine", "gaussian_noise", 10, 29.81, 38.02, 41.05),
    (0.7, "gaussian_noise", "gaussian_noise", 10, 64.92, 39.07, 84.00),
    (0.7, "pristine", "gaussian_blur", 3, 16.82, 29.68, 26.79),
    (0.7, "gaussian_blur", "gaussian_blur", 3, 58.57, 31.09, 86.53),
    (0.7, "pristine", "gaussian_noise", 20, 8.57, 30.96, 11.10),
    (0.7, "gaussian_noise", "gaussian_noise", 20, 53.14, 26.70, 85.66),
    (0.7, "pristine", "gaussian_blur", 4, 9.62, 27.72, 18.06),
    (0.7, "gaussian_blur", "gaussian_blur", 4, 45.75, 21.30, 87.71),
    (0.7, "pristine", "gaussian_noise", 30, 2.26, 41.85, 2.11),
    (0.7, "gaussian_noise", "gaussian_noise", 30, 41.20, 14.37, 86.79),
    (0.7, "pristine", "gaussian_blur", 5, 6.74, 26.90, 14.72),
    (0.7, "gaussian_blur", "gaussian_blur", 5, 36.75, 14.56, 83.60),
    (0.7, "pristine", "gaussian_noise", 40, 0.98, 65.05, 0.60),
    (0.7, "gaussian_noise", "gaussian_noise", 40, 24.35, 4.38, 84.33),
    (0.8, "pristine", "pristine", 0, 81.48, 54.12, 90.99),
    (0.8, "gaussian_blur", "pristine", 0, 76.77, 48.30, 90.85),
    (0.8, "gaussian_noise", "pristine", 0, 76.31, 37.47, 91.70),
    (0.8, "pristine", "gaussian_blur", 1, 69.14, 48.89, 76.57),
    (0.8, "gaussian_blur", "gaussian_blur", 1, 74.12, 48.72, 85.76),
    (0.8, "pristine", "gaussian_noise", 5, 52.32, 34.95, 73.41),
    (0.8, "gaussian_noise", "gaussian_noise", 5, 71.37, 33.57, 90.25),
    (0.8, "pristine", "gaussian_blur", 2, 38.19, 31.38, 53.60),
    (0.8, "gaussian_blur", "gaussian_blur", 2, 68.85, 41.56, 86.38),
    (0.8, "pristine", "gaussian_noise", 10, 30.40, 24.64, 51.93),
    (0.8, "gaussian_noise", "gaussian_noise", 10, 65.38, 28.66, 88.36),
    (0.8, "pristine", "gaussian_blur", 3, 17.02, 21.43, 31.60),
    (0.8, "gaussian_blur", "gaussian_blur", 3, 58.57, 30.40, 87.19),
    (0.8, "pristine", "gaussian_noise", 20, 8.54, 15.18, 18.32),
    (0.8, "gaussian_noise", "gaussian_noise", 20, 53.89, 18.13, 90.25),
    (0.8, "pristine", "gaussian_blur", 4, 9.82, 19.67, 22.13),
    (0.8, "gaussian_blur", "gaussian_blur", 4, 46.27, 20.88, 88.40),
    (0.8, "pristine", "gaussian_noise", 30, 2.16, 16.56, 3.56),
    (0.8, "gaussian_noise", "gaussian_noise", 30, 41.10, 8.84, 91.85),
    (0.8, "pristine", "gaussian_blur", 5, 6.81, 18.03, 19.78),
    (0.8, "gaussian_blur", "gaussian_blur", 5, 37.04, 13.97, 85.01),
    (0.8, "pristine", "gaussian_noise", 40, 0.88, 26.83, 0.61),
    (0.8, "gaussian_noise", "gaussian_noise", 40, 25.13, 2.00, 90.16),
    (0.9, "pristine", "pristine", 0, 82.40, 43.39, 93.97),
    (0.9, "gaussian_blur", "pristine", 0, 77.78, 35.41, 95.84),
    (0.9, "gaussian_noise", "pristine", 0, 76.80, 26.41, 94.18),
    (0.9, "pristine", "gaussian_blur", 1, 70.19, 36.55, 79.77),
    (0.9, "gaussian_blur", "gaussian_blur", 1, 75.43, 34.00, 90.66),
    (0.9, "pristine", "gaussian_noise", 5, 52.78, 21.86, 88.77),
    (0.9, "gaussian_noise", "gaussian_noise", 5, 71.40, 22.81, 93.97),
    (0.9, "pristine", "gaussian_blur", 2, 38.55, 21.34, 55.67),
    (0.9, "gaussian_blur", "gaussian_blur", 2, 68.95, 27.49, 91.43),
    (0.9, "pristine", "gaussian_noise", 10, 31.02, 12.83, 71.68),
    (0.9, "gaussian_noise", "gaussian_noise", 10, 65.09, 18.78, 93.03),
    (0.9, "pristine", "gaussian_blur", 3, 17.05, 13.97, 37.70),
    (0.9, "gaussian_blur", "gaussian_blur", 3, 58.57, 19.73, 93.20),
    (0.9, "pristine", "gaussian_noise", 20, 8.97, 5.56, 33.53),
    (0.9, "gaussian_noise", "gaussian_noise", 20, 52.72, 11.55, 94.33),
    (0.9, "pristine", "gaussian_blur", 4, 10.05, 11.19, 28.95),
    (0.9, "gaussian_blur", "gaussian_blur", 4, 45.98, 12.40, 93.40),
    (0.9, "pristine", "gaussian_noise", 30, 2.09, 1.83, 21.43),
    (0.9, "gaussian_noise", "gaussian_noise", 30, 41.33, 5.20, 95.60),
    (0.9, "pristine", "gaussian_blur", 5, 6.90, 9.75, 26.51),
    (0.9, "gaussian_blur", "gaussian_blur", 5, 36.98, 7.40, 89.82),
    (0.9, "pristine", "gaussian_noise", 40, 0.85, 0.29, 11.11),
    (0.9, "gaussian_noise", "gaussian_noise", 40, 25.92, 0.88, 100.00),
    (0.8, "total_gaussian_blur", "pristine", 0, 75.65, 39.50, 90.56),
    (0.8, "total_gaussian_blur", "gaussian_blur", 1, 74.64, 38.06, 87.96),
    (0.8, "total_gaussian_blur", "gaussian_blur", 2, 69.21, 31.12, 88.54),
    (0.8, "total_gaussian_blur", "gaussian_blur", 3, 60.41, 22.91, 89.71),
    (0.8, "total_gaussian_blur", "gaussian_blur", 4, 48.89, 16.72, 87.67),
    (0.8, "total_gaussian_blur", "gaussian_blur", 5, 40.28, 11.58, 87.85),
)
"""p_tar, expert, kind, level, then overall accuracy, images that leave on the edge and their accuracy, in percent."""


def write_down(connection: Connection) -> None:
    """Put the figures into their table, in place of what is there."""
    connection.execute(delete(Published))
    rows = [
        {
            "p_tar": p_tar,
            "policy": policy,
            "kind": kind,
            "level": level,
            "overall_accuracy": round(overall / 100, 4),
            "edge_exit_probability": round(exits / 100, 4),
            "edge_accuracy": round(edge / 100, 4),
        }
        for p_tar, policy, kind, level, overall, exits, edge in FIGURES
    ]
    connection.execute(insert(Published), rows)
