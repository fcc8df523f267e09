"""Shared small evaluation."""

from __future__ import annotations

from small_evaluation import job, plugin  # noqa: F401
