"""What a call of ``zoo stylize`` makes: its parts, and what of it is there already."""

from __future__ import annotations

import pytest
from command import run

from zoo.cli.jobs import missing, plan, shared_out
from zoo.errors import InputError


def jobs(folder="out"):
    return plan([f"{n}.png" for n in range(5)], ["a.png", "b.png"], "m", f"{folder}/", joined=False, folders=True)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_parts_make_every_picture_once_and_read_every_content_once(count):
    parts = [shared_out(jobs(), f"{number}/{count}") for number in range(1, count + 1)]
    assert sorted(job.output for part in parts for job in part) == sorted(job.output for job in jobs())
    contents = [{job.content for job in part} for part in parts]
    assert sum(map(len, contents)) == 5
    assert max(map(len, contents)) - min(map(len, contents)) <= 1


@pytest.mark.parametrize("part", ["0/2", "3/2", "1/0", "1", "1/2/3", "", "-1/2", "1/2.5", "９/9"])
def test_a_part_that_is_none_is_one_sentence(part):
    with pytest.raises(InputError, match="--part is K/N"):
        shared_out(jobs(), part)


def test_only_what_is_missing_is_made(tmp_path):
    (tmp_path / "2__b__m.png").write_bytes(b"made")
    assert {job.label for job in jobs(tmp_path)} - {job.label for job in missing(jobs(tmp_path))} == {"2__b__m"}


def test_a_call_whose_pictures_are_there_makes_none(tmp_path, capsys):
    target = tmp_path / "there.png"
    target.write_bytes(b"made")
    assert run("stylize", "--resume", "-o", str(target)) == 0
    assert "there already" in capsys.readouterr().err
    assert target.read_bytes() == b"made"
