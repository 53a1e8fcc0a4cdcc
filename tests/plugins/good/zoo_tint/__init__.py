"""A plugin's package that imports torch when imported: listing its methods must not do so."""

from __future__ import annotations

import torch

VERSION = torch.__version__
