"""A blind study: people judge the pictures of a run without knowing which method made them.

questions.py    what is asked, and what an attention check asks
design.py       which methods meet on which pair of images, on which side, in which form: balanced and drawn
make.py         the folder that judges are sent, and the key that stays here
answers.py      the key and the files of answers, read and checked
server.py       the same page served, answers posted
strengths.py    strengths of Bradley and Terry from choices, with intervals
clusters.py     intervals from answers that share judges and pairs of images
agreement.py    how far judges agree
score.py        from answers to numbers: who is kept, strengths, agreement, which metric chooses as people do
tables.py       those numbers as tables in every form, and the figure
"""

from __future__ import annotations

from zoo.apps.study.make import StudyOptions, make_study
from zoo.apps.study.score import Scored, score_study
from zoo.apps.study.tables import write_scores

__all__ = ["Scored", "StudyOptions", "make_study", "score_study", "write_scores"]
