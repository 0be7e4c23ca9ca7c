"""Notifiers as people write them: one that works and one that raises."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.sdk import BaseNotifier


class Works(BaseNotifier):
    """Keeps what it is given."""

    template_fields = ("text",)
    got: ClassVar[list[str]] = []

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        self.got.append(self.text)


class Raises(BaseNotifier):
    """Raises."""

    def notify(self, context: Any) -> None:
        raise RuntimeError("canary")
