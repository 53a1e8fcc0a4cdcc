"""Figures of a run, as PDF and PNG: :func:`draw_figures` draws each one that the rows have numbers for.

grid          content x style x methods, from the run's pictures       grid.py
speed         seconds against size, with fitted slopes                 scaling.py
memory        memory against size, with the out-of-memory boundary     scaling.py
tradeoff      content against style, Pareto front, strength sweep      tradeoff.py
ranks         critical-difference diagram of one metric                ranks.py
correlations  how far the metrics agree                                ranks.py
losses        loss curves of training and of optimisation methods      losses.py
convergence   metrics at steps of one run, of all pairs and of each    convergence.py

Every number drawn is one of the table's (``data.py`` takes them from it).
"""

from __future__ import annotations

from zoo.report.figures.draw import FIGURES, FigureOptions, Figures, draw_figures

__all__ = ["FIGURES", "FigureOptions", "Figures", "draw_figures"]
