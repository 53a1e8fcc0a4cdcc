"""A study's results as tables in the forms of ``zoo report``, and as one figure.

study-scores         the score of every method in every question, with its interval
study-comparisons    every two methods in every question
study-agreement      how far the judges agree
study-metrics        how far the run's metrics choose as the judges do
study-judges         how every judge answered, and whether he counts; ids, never names
study-scores.pdf, .png
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.apps.study.score import Outcome, Scored, Strength, order
from zoo.bench.folder import write_text
from zoo.errors import StudyError, UnknownNameError
from zoo.report.files import FORMATS
from zoo.report.forms import MISSING, Entry, Form, Group, Heading, to_html, to_latex, to_markdown
from zoo.report.present import records_csv, records_json
from zoo.report.statistics import Interval, bounds
from zoo.words import counted

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Written:
    """A written score: its folder, the names of the files, the main table, and why a table is missing."""

    folder: Path
    files: tuple[str, ...]
    table: Form
    said: tuple[str, ...]


def write_scores(scored: Scored, out: Path, *, formats: Sequence[str] = FORMATS, width_mm: float = 174.0) -> Written:
    """Write the tables in ``formats`` and the figure into ``out``; StudyError where that cannot be."""
    for name in formats:
        if name not in FORMATS:
            raise UnknownNameError("format", name, FORMATS)
    from zoo.apps.study.figure import strengths_figure
    from zoo.report.figures import canvas

    said = []
    sheets = [_scores(scored), _comparisons(scored), _agreement(scored), _judges(scored)]
    if any(outcome.metrics for outcome in scored.outcomes):
        sheets.append(_metrics(scored))
    else:
        said.append("No study-metrics: --run names no run with metrics of the study's pictures.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{out} cannot be made ({error.strerror}): choose another --out.") from error
    files = []
    for form, records in sheets:
        texts = {
            "md": to_markdown(form),
            "csv": records_csv(records),
            "tex": to_latex(form),
            "json": records_json(form, records),
            "html": to_html(form),
        }
        for kind in formats:
            files.append(f"{form.name}.{kind}")
            write_text(out / files[-1], texts[kind])
    with canvas.settings():
        files += [path.name for path in canvas.save(strengths_figure(scored, width_mm), out, "study-scores")]
    return Written(out, tuple(files), sheets[0][0], tuple(said))


def _caption(scored: Scored, title: str) -> str:
    data = scored.key.data
    days = scored.days[0] if len(scored.days) == 1 else f"{scored.days[0]} to {scored.days[-1]}"
    size = f"size {data['size']}" if data["size"] else "sizes kept"
    parts = [
        f"{title}. Blind study {scored.key.study}",
        f"{len(scored.kept)} of {counted(len(scored.judges), 'judge')}",
        f"{counted(len(data['pairs']), 'pair')} of images at {size}",
        f"protocol {data['protocol']}",
        days,
    ]
    return "; ".join(parts)


def _excluded(scored: Scored) -> str:
    lost = len(scored.judges) - len(scored.kept)
    if scored.keep_all:
        return "All judges count, whatever their attention checks say."
    rule = f"fewer than {100 * scored.min_right:g} % of the attention checks right"
    return f"Judges who answered {rule} do not count: {lost} of {len(scored.judges)}."


def _number(value: float, digits: int = 2) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _spread(interval: Interval | None, digits: int = 2) -> str:
    return "" if interval is None else f"[{_number(interval.low, digits)}, {_number(interval.high, digits)}]"


def _scores(scored: Scored) -> tuple[Form, Records]:
    headings = [Heading("method", False)]
    for outcome in scored.outcomes:
        headings += [Heading(outcome.question), Heading(f"{outcome.question} chosen (%)")]
    rows = []
    for method in order(scored):
        cells = [Entry(method)]
        for outcome in scored.outcomes:
            own = next(one for one in outcome.strengths if one.method == method)
            cells.append(Entry(_number(own.score), _spread(own.interval), _mark(own, outcome)))
            cells.append(Entry(f"{100 * own.chosen / own.shown:.0f}"))
        rows.append(cells)
    choices = scored.key.data["choices"]
    said = [
        "Log strengths of the Bradley-Terry model (Hunter 2004), mean 0 over methods: a method whose score is larger "
        "by 1 is chosen of the two 2.7 times as often."
        + (f" The first of {choices} pictures is chosen: Plackett-Luce." if choices > 2 else ""),
        "Intervals at 95 %: clustered by judges and by pairs of images (Cameron, Gelbach and Miller 2011)."
        if any(one.interval for outcome in scored.outcomes for one in outcome.strengths)
        else "No intervals: fewer than three judges or pairs of images say nothing about others.",
        _excluded(scored),
        "Judgements: " + ", ".join(f"{one.question} {one.judgements}" for one in scored.outcomes) + ".",
    ]
    records = [
        {
            "question": outcome.question,
            "method": one.method,
            "score": one.score,
            **bounds(one.interval),
            "chosen": one.chosen,
            "shown": one.shown,
        }
        for outcome in scored.outcomes
        for one in outcome.strengths
    ]
    caption = _caption(scored, "What people chose")
    return Form("study-scores", caption, headings, [Group("", rows)], (), said), records


def _mark(own: Strength, outcome: Outcome) -> Any:
    distinct = sorted({one.score for one in outcome.strengths}, reverse=True)
    if own.score == distinct[0] and len(distinct) > 1:
        return "best"
    # The second of two is the last.
    return "second" if len(distinct) > 2 and own.score == distinct[1] else ""


def _comparisons(scored: Scored) -> tuple[Form, Records]:
    headings = [Heading("first", False), Heading("second", False), Heading("difference"), Heading("judgements")]
    headings += [Heading("first chosen (%)")]
    groups, records = [], []
    for outcome in scored.outcomes:
        rows = []
        for one in outcome.couples:
            certain = one.interval is not None and one.interval.excludes(0)
            share = f"{100 * one.won / one.judgements:.0f}" if one.judgements else MISSING
            shown = Entry(_number(one.difference), _spread(one.interval), "best" if certain else "")
            rows.append([Entry(one.first), Entry(one.second), shown, Entry(str(one.judgements)), Entry(share)])
            records.append(
                {
                    "question": outcome.question,
                    "first": one.first,
                    "second": one.second,
                    "difference": one.difference,
                    **bounds(one.interval),
                    "judgements": one.judgements,
                    "first_chosen": one.won,
                }
            )
        groups.append(Group(outcome.question, rows))
    said = [
        "Difference of the scores, first minus second, with its interval at 95 %; bold where that excludes 0, not "
        "corrected for the number of comparisons. Judgements are those that showed both and chose one of them."
    ]
    return Form("study-comparisons", _caption(scored, "Every two methods"), headings, groups, (), said), records


def _agreement(scored: Scored) -> tuple[Form, Records]:
    headings = [Heading("question", False), Heading("agreement (%)"), Heading("alpha"), Heading("comparisons")]
    headings += [Heading("answers")]
    rows, records = [], []
    for outcome in scored.outcomes:
        one = outcome.agreement
        if one is None:
            rows.append([Entry(outcome.question), *[Entry(MISSING)] * 2, Entry("0"), Entry("0")])
        else:
            cells = [Entry(outcome.question), Entry(f"{100 * one.observed:.0f}")]
            cells += [Entry(_number(one.alpha), _spread(one.interval))]
            rows.append([*cells, Entry(str(one.comparisons)), Entry(str(one.answers))])
        records.append(
            {
                "question": outcome.question,
                "agreement": one.observed if one else None,
                "alpha": one.alpha if one else None,
                **bounds(one.interval if one else None),
                "comparisons": one.comparisons if one else 0,
                "answers": one.answers if one else 0,
            }
        )
    chance = 100 / scored.key.data["choices"]
    said = [
        "Over comparisons that two or more judges answered: the share of pairs of answers that agree, and "
        f"Krippendorff's alpha with chance agreement {chance:.0f} %, since the pictures of one comparison are no "
        "categories of another. Its interval at 95 % is clustered by pairs of images and by judges."
    ]
    form = Form("study-agreement", _caption(scored, "Agreement of judges"), headings, [Group("", rows)], (), said)
    return form, records


def _metrics(scored: Scored) -> tuple[Form, Records]:
    headings = [Heading("metric", False), Heading("agrees (%)"), Heading("Kendall"), Heading("Spearman")]
    headings += [Heading("judgements")]
    groups, records = [], []
    for outcome in scored.outcomes:
        rows = []
        for one in sorted(outcome.metrics, key=lambda metric: -metric.share):
            percent = Interval(100 * one.interval.low, 100 * one.interval.high) if one.interval else None
            certain = percent is not None and percent.excludes(50)
            correlations = [Entry(MISSING if r is None else _number(r)) for r in (one.kendall, one.spearman)]
            share = Entry(f"{100 * one.share:.0f}", _spread(percent, 0), "best" if certain else "")
            rows.append([Entry(one.metric), share, *correlations, Entry(str(one.judgements))])
            record = {"question": outcome.question, "metric": one.metric, "agrees": one.share, **bounds(one.interval)}
            records.append({**record, "kendall": one.kendall, "spearman": one.spearman, "judgements": one.judgements})
        groups.append(Group(outcome.question, rows))
    agreements = [
        f"{outcome.question} {100 * outcome.agreement.observed:.0f} %"
        for outcome in scored.outcomes
        if outcome.agreement is not None
    ]
    said = [
        "Agrees: the share of judgements in which the metric, too, puts the chosen picture first, ties half; 50 % is "
        "chance, bold where the interval at 95 % (clustered by judges and by pairs of images) excludes it. Kendall and "
        "Spearman are over methods, of the metric's means and the scores, positive where the metric prefers what "
        "people prefer." + (f" Judges agree with each other in: {', '.join(agreements)}." if agreements else "")
    ]
    return Form("study-metrics", _caption(scored, "Metrics and people"), headings, groups, (), said), records


def _judges(scored: Scored) -> tuple[Form, Records]:
    names = ("judge", "form", "answered", "checks right", "repeats alike", "first place (%)", "seconds", "counts")
    headings = [Heading(name, name not in ("judge", "checks right", "repeats alike", "counts")) for name in names]
    rows = []
    for one in scored.judges:
        cells = [one.judge, str(one.form + 1), str(one.answered), f"{one.right} of {one.checks}"]
        cells += [f"{one.same} of {one.repeats}", MISSING if one.first is None else f"{100 * one.first:.0f}"]
        cells += [MISSING if one.seconds is None else f"{one.seconds:.1f}", "yes" if one.kept else "no"]
        rows.append([Entry(cell) for cell in cells])
    asked = max(one.asked for one in scored.judges)
    said = [
        _excluded(scored),
        f"A form asks up to {counted(asked, 'question')}. Repeats show the same pictures in another order. First "
        "place is the share of judgements in which the first picture shown was chosen; seconds are the median of "
        "an answer.",
    ]
    form = Form("study-judges", _caption(scored, "Judges"), headings, [Group("", rows)], (), said)
    return form, [{**asdict(one), "form": one.form + 1} for one in scored.judges]
