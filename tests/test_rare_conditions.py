"""Conditions of few training clips: how many clips each gets, and the table that a person edits and gives back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conftest import SIZES
from harken.bench.executor import run_tasks
from harken.bench.graph import make_common, make_tasks, make_units
from harken.bench.plan import make_plan
from harken.bench.recipe import Recipe, load_recipe
from harken.bench.run import load_clips
from harken.bench.workspace import Object, Workspace
from harken.core.errors import HarkenError
from harken.data.clips import Clip
from harken.generation.conditions import (
    Condition,
    ConditionKey,
    normal_clips,
    rare_conditions,
    read_conditions,
    write_conditions,
)
from harken.plant.simulate import simulate

FAN = Clip("", Path("x.wav"), corpus="dcase2025", year=2025, split="train", machine="fan", section="00",
           domain="source", condition="normal")  # fmt: skip
RECIPE = """
name: rare
title: rare conditions
stages:
  conditions: {use: rare_conditions}
  embed: {use: embed, encoder: spectral}
  nearest: {use: detect, from: embed, detector: knn}
systems: {nearest: nearest}
"""


def clips(count: int, **fields: object) -> list[Clip]:
    start = "-".join(map(str, fields.values()))
    return [replace(FAN, clip_id=f"{start}-{row}", **fields) for row in range(count)]  # type: ignore[arg-type]


def generated(rows: list[Condition]) -> dict[str, int]:
    return {f"{row.key.domain} {dict(row.key.attributes)}": row.generate for row in rows}


def test_rare_conditions_are_filled_up_to_a_share_of_the_largest_by_a_factor_at_most() -> None:
    rows = [
        *clips(100, attributes={"spd": "1"}),
        *clips(60, attributes={"spd": "2"}),
        *clips(30, attributes={"spd": "3"}),
        *clips(2, attributes={"spd": "4"}, domain="target"),
        # of another machine, whose largest condition has 4
        *clips(4, machine="pump"),
        *clips(1, machine="pump", domain="target"),
    ]
    by_rule = generated(rare_conditions(rows, share=0.5, factor=10))
    assert by_rule["source {'spd': '1'}"] == by_rule["source {'spd': '2'}"] == 0
    assert by_rule["source {'spd': '3'}"] == 20, "30 + 20 = 0.5 * 100"
    assert by_rule["target {'spd': '4'}"] == 20, "10 times its clips"
    assert by_rule["source {}"] == 0
    assert by_rule["target {}"] == 1, "1 + 1 = 0.5 * 4"
    only_target = generated(rare_conditions(rows, share=0.5, factor=10, domains=["target"]))
    assert only_target["source {'spd': '3'}"] == 0
    assert only_target["target {'spd': '4'}"] == 20


def test_only_normal_recorded_training_clips_count() -> None:
    rows = [
        *clips(3, attributes={"spd": "1"}),
        *clips(3, split="test"),
        *clips(3, condition="anomaly"),
        *clips(3, condition="unknown"),
        *clips(3, kind="noise", split="supplemental"),
        *clips(3, kind="generated"),
    ]
    assert [len(found) for found in normal_clips(rows).values()] == [3]


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    odd = {"f-n": "a;b=c%3B", "°": ' x, "y" '}
    rows = rare_conditions([*clips(9), *clips(2, domain="target", attributes=odd)], share=1, factor=2)
    write_conditions(rows, tmp_path / "conditions.csv")
    assert read_conditions(tmp_path / "conditions.csv") == rows
    assert rows[1].key.attributes == tuple(sorted(odd.items()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: has no header"),
        ("machine,section,domain,attributes,generat\n", "unknown column 'generat'"),
        ("machine,section,domain,attributes\n", "no column 'generate'"),
        ("machine,section,domain,attributes,generate\nfan,00,source,spd=1\n", "line 2: has 4 cells"),
        ("machine,section,domain,attributes,generate\nfan,00,sourc,spd=1,2\n", "line 2: there is no domain 'sourc'"),
        ("machine,section,domain,attributes,generate\nfan,00,source,spd,2\n", "line 2: 'spd' are no attributes"),
        ("machine,section,domain,attributes,generate\nfan,00,source,,-2\n", "line 2: its generate is '-2'"),
        ("machine,section,domain,attributes,generate\nfan,00,source,,\n", "line 2: its generate is ''"),
        ("machine,section,domain,attributes,generate\nfan,00,source,,1\nfan,00,source,,2\n", "line 3: .*there twice"),
    ],
)
def test_what_is_wrong_with_an_edited_table_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "edited.csv"
    file.write_text(text)
    with pytest.raises(HarkenError, match=message):
        read_conditions(file)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant")
    simulate(root, machines=["fan", "valve"], hide_attributes=["valve"], **SIZES)  # type: ignore[arg-type]
    return root


def made(recipe: Recipe, plant: Path, workspace: Path) -> Object:
    clips, _ = load_clips(plant)
    tasks = make_tasks(recipe, make_units(clips), make_common(clips))
    tasks = {name: task for name, task in tasks.items() if task.stage == "conditions"}
    objects, failures = run_tasks(tasks, Workspace(workspace), workers=1)
    if failures:
        raise failures[0].error
    return next(iter(objects.values()))


def recipe(folder: Path, **changes: object) -> Recipe:
    file = folder / "rare.yaml"
    file.write_text(RECIPE)
    return load_recipe(str(file), changes={f"stages.conditions.{name}": value for name, value in changes.items()})


def test_an_edited_table_is_given_back_to_the_recipe(tmp_path: Path, plant: Path) -> None:
    table = made(recipe(tmp_path), plant, tmp_path / "work").folder / "conditions.csv"
    rows = read_conditions(table)
    assert {row.key.machine for row in rows} == {"fan", "valve"}
    assert any(row.generate and row.key.domain == "target" for row in rows)
    assert sum(row.clips for row in rows) == 2 * (SIZES["train_source"] + SIZES["train_target"])
    # A person leaves the fan out, and wants 7 of the valve's target domain.
    lines = [line for line in table.read_text().splitlines() if ",fan," not in line]
    edited = [line.rsplit(",", 1)[0] + (",7" if ",target," in line else ",0") for line in lines[1:]]
    mine = tmp_path / "mine.csv"
    mine.write_text("\n".join([lines[0], *edited, "dcase2025,Lathe,00,target,,0,0,4"]))
    again = made(recipe(tmp_path, table=str(mine)), plant, tmp_path / "work")
    assert {row.key.machine: row.generate for row in read_conditions(again.folder / "conditions.csv") if row.generate} \
        == {"valve": 7}  # fmt: skip
    assert "no training clips of dcase2025/Lathe" in (again.folder / "notes.json").read_text()
    # The plan counts them; the same table elsewhere gives the same object.
    moved = tmp_path / "moved.csv"
    mine.rename(moved)
    elsewhere = recipe(tmp_path, table=str(moved))
    assert made(elsewhere, plant, tmp_path / "work").key == again.key
    plan = make_plan(elsewhere, plant, tmp_path / "work")
    assert next(row["clips"] for row in plan["stages"] if row["stage"] == "conditions") == 7
    # Without it, the plan says so, and nothing runs.
    gone = recipe(tmp_path, table=str(mine))
    assert any("mine.csv" in text and "no such file" in text for text in make_plan(gone, plant, None)["missing"])
    with pytest.raises(HarkenError, match="no such file"):
        made(gone, plant, tmp_path / "work")
    # A condition that the machine does not have is named, with the nearest.
    moved.write_text(lines[0] + f"\n{rows[0].key.corpus},valve,07,target,,0,0,4\n")
    with pytest.raises(HarkenError, match=r"no normal training clips of .*valve section 07 target.*Did you mean"):
        made(elsewhere, plant, tmp_path / "work")


def test_a_key_reads_as_a_person_would_say_it() -> None:
    key = ConditionKey.of(replace(FAN, attributes={"spd": "28V", "mic": "1"}))
    assert str(key) == "dcase2025/fan section 00 source: mic=1;spd=28V"
