"""Fixtures shared by the tests: reference material beside the checkout, and quiet single-threaded torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of published weights and images used for parity; never part of the project."""
    if not SHARED.is_dir():
        message = "reference images and weights are not beside this checkout"
        pytest.skip(message)
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    import torch

    torch.set_num_threads(max(1, min(2, os.cpu_count() or 1)))
