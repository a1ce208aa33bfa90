"""The history of a run: kept in its directory, and reported to the observer after each episode."""

import time
from typing import Any

import torch

from noisyknn.config import Config
from noisyknn.methods.algorithm1 import Episode
from noisyknn.methods.spec import find_method
from noisyknn.observer import Observer
from noisyknn.output import Labels
from noisyknn.run_dir import RunDirectory
from noisyknn.training.trainer import EpochReport


class Progress:
    """Records every epoch and episode; a resumed run replaces the entries that it repeats."""

    def __init__(
        self, run: RunDirectory, observer: Observer, config: Config, given: Labels, truth: Labels | None
    ) -> None:
        self.history: list[dict[str, Any]] = run.load_history()
        self._run, self._observer, self._config = run, observer, config
        self._given = torch.from_numpy(given)
        known = truth is not None and bool((truth >= 0).any())
        self._truth = torch.from_numpy(truth) if truth is not None and known else None
        self._since = time.monotonic()

    def add_epoch(self, report: EpochReport) -> None:
        """Record one epoch of training."""
        self._add(
            {
                "episode": report.episode,
                "epoch": report.epoch,
                "loss": round(report.loss, 6),
                "seconds": round(report.seconds, 3),
                "images_per_second": round(report.images_per_second, 1),
            }
        )

    def add_episode(self, episode: Episode) -> None:
        """Record a finished episode and report it to the observer."""
        labels = episode.correction.labels.cpu()
        labels = torch.where(labels < 0, self._given, labels)  # a sample left out keeps its label
        entry: dict[str, Any] = {
            "episode": episode.index,
            "gamma": episode.gamma,
            "references": len(episode.correction.references),
            "differ_from_given": int(((self._given >= 0) & (labels != self._given)).sum()),
            "seconds": round(time.monotonic() - self._since, 3),
        }
        self._since = time.monotonic()
        what = "labels trained on" if find_method(self._config.method).voters is None else "references"
        told = f"{entry['references']:,} {what}, {entry['differ_from_given']:,} labels differ from the given ones"
        if self._truth is not None:
            entry["recovery"] = float((labels == self._truth)[self._truth >= 0].float().mean())
            told += f", recovery {entry['recovery']:.2%}"
        self._add(entry)
        self._observer.note(f"episode {episode.index + 1} of {self._config.episodes}: {told}")

    def _add(self, entry: dict[str, Any]) -> None:
        self.history = [old for old in self.history if _place(old) < _place(entry)] + [entry]
        self._run.save_history(self.history)


def _place(entry: dict[str, Any]) -> tuple[int, float]:
    """Sort key of an entry: an episode comes after its epochs."""
    return entry["episode"], entry.get("epoch", float("inf"))
