"""The command line: output, exit codes, messages. Where the process itself is the point, the real program runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from command_line import HARKEN, called, harken, official_scores, pasted, program
from conftest import hum

GROUPS = ("data", "ensemble", "recipe", "weights")
VERBS = (
    *GROUPS, "cite", "compare", "demo", "doctor", "evaluate", "explain", "export", "fit", "generate", "package", "plan",
    "plot", "report", "run", "score", "separate", "simulate", "submit",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "normal").mkdir()
    for index in range(40):
        sf.write(folder / "normal" / f"{index:03d}.wav", hum(index), 16_000)
    sf.write(folder / "fine.wav", hum(702), 16_000)
    sf.write(folder / "fault.wav", hum(701, fault=True), 16_000)
    harken("fit", folder / "normal", "-o", folder / "m.harken", "--false-alarms", "3%")
    return folder


def test_fit_says_what_the_recordings_support(model: Path, tmp_path: Path) -> None:
    done = harken("fit", model / "normal", "-o", tmp_path / "m.harken", "--json")
    summary = json.loads(done.stdout)
    assert summary["recordings"] == 40
    assert summary["powerful"] is True
    assert 1 / 5_000 < summary["rate"] < 1 / 40
    assert summary["change_recordings"] < 30
    assert "the rarest that these recordings support" in done.stderr
    assert "falsely at most once in 7 days" in done.stderr
    weekly = harken("fit", model / "normal", "-o", tmp_path / "m.harken", "--false-alarms", "1/week")
    assert weekly.stdout == ""
    assert "40 recordings cannot keep 1/week by single recordings and still find most faults" in weekly.stderr
    # What it names instead is what `auto` sets.
    assert f"What they support is {re.search('1 in [0-9,]+ recordings', done.stderr)[0]}" in weekly.stderr
    snapshots = harken("fit", model / "normal", "-o", tmp_path / "m.harken", "--every", "10min")
    assert "one in" in snapshots.stderr
    harken("fit", model / "normal", "-o", tmp_path / "m.harken", "--every", "10 moons", code=2)


def test_the_alarm_of_a_model_can_be_changed(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.harken"
    shutil.copytree(model / "m.harken", copy)
    before = json.loads(harken("model", "show", copy, "--json").stdout)
    assert before["false_alarms"] == "3%"
    harken("model", "set-alarm", copy, "--false-alarms", "1/week", "--every", "10min")
    after = json.loads(harken("model", "show", copy, "--json").stdout)
    assert after["false_alarms"] == "1/week"
    assert after["interval_s"] == 600
    assert after["threshold"] > before["threshold"]
    assert "learned from 40 recordings" in harken("model", "show", copy).stdout
    manifest = (copy / "manifest.json").read_bytes()
    for option, value in (
        ("--false-alarms", "0"),
        ("--false-alarms", "nan"),
        ("--false-alarms", "1/fortnight"),
        ("--false-alarms", "10000/h"),
        ("--every", "10 moons"),
        ("--every", "1ms"),
    ):
        harken("model", "set-alarm", copy, option, value, code=2)
        assert (copy / "manifest.json").read_bytes() == manifest
    harken("model", "set-alarm", copy, "--false-alarms", "3%")
    assert sorted(file.name for file in copy.glob("*.safetensors")) == sorted(
        file.name for file in (model / "m.harken").glob("*.safetensors")
    )


def test_a_lasting_change_is_reported_once_and_across_calls(model: Path, tmp_path: Path) -> None:
    """With an alarm that no single recording reaches."""
    for index in range(30):
        tone = np.sin(2 * np.pi * 3000 * np.arange(16_000) / 16_000)
        sf.write(tmp_path / f"{index:02d}.wav", hum(800 + index) + (index >= 10) * 0.008 * tone, 16_000)
    files = sorted(tmp_path.glob("*.wav"))
    options = ("-m", model / "m.harken", "--false-alarms", "1e-9", "--json", "--fail-on-anomaly")
    records = [json.loads(line) for line in harken("score", *files, *options, code=1).stdout.splitlines()]
    assert {record["verdict"] for record in records if record["record"] == "recording"} <= {"normal", "suspect"}
    (change,) = [record for record in records if record["record"] == "change"]
    assert change["state"] == "began"
    assert Path(change["since"]).name == "10.wav"
    assert records[-1]["record"] == "summary"
    assert records[-1]["changed_since"] == change["since"]
    # The same in two calls that share a memory; a recording that is given twice counts once.
    memory = ("--memory", tmp_path / "memory.json")
    harken("score", *files[:12], *options, *memory, code=0)
    later = harken("score", *files[8:], *options, *memory, code=1)
    assert [json.loads(line) for line in later.stdout.splitlines() if '"change"' in line] == [change]
    harken("fit", *files[:10], "-o", tmp_path / "other.harken")
    done = harken("score", files[0], "-m", tmp_path / "other.harken", *memory, code=2)
    assert "memory of another model" in done.stderr


def test_a_model_is_checked_on_known_recordings(model: Path, tmp_path: Path) -> None:
    for index in range(15):
        for name, fault in (("fine", False), ("bad", True)):
            (tmp_path / name).mkdir(exist_ok=True)
            sf.write(tmp_path / name / f"{index:02d}.wav", hum(900 + index, fault=fault), 16_000)
    (tmp_path / "bad" / "broken.wav").write_bytes(b"RIFF")
    folders = ("--normal", tmp_path / "fine", "--faulty", tmp_path / "bad")
    done = harken("check", model / "m.harken", *folders, "--json")
    result = json.loads(done.stdout)
    assert (result["normal"], result["faulty"], result["not_judged"]) == (15, 15, 1)
    assert result["auc"] == 1.0
    assert result["at"][0]["found"] == 15
    assert result["at"][0]["false_alarms"] <= 3
    assert 1 < result["change_after"] <= 15
    assert "1 recording was not judged" in done.stderr
    assert result["missing"] is None
    harken("fit", tmp_path / "fine", "-o", tmp_path / "few.harken", "--false-alarms", "1 in 1000000000")
    done = harken("check", model / "m.harken", tmp_path / "few.harken", *folders)
    assert "few.harken: learned from 15 of these recordings, which count with their held-out scores" in done.stderr
    assert "m.harken: learned" not in done.stderr.replace("few.harken", "")
    table = done.stdout
    assert table.splitlines()[0].split() == ["m.harken", "few.harken"]
    assert "faults differ most near" in table
    assert "few.harken: 15 of 15 faults raise no alarm" in table
    assert "m.harken: 15" not in table.replace("few.harken", "")
    (tmp_path / "cut.wav").write_bytes(b"RIFF")
    harken(
        "check",
        model / "m.harken",
        "--normal",
        tmp_path / "bad" / "broken.wav",
        "--faulty",
        tmp_path / "cut.wav",
        code=2,
    )
    both = harken("check", model / "m.harken", "--normal", tmp_path, "--faulty", tmp_path / "bad", code=2)
    assert "is given as normal and as faulty, like 15 others" in both.stderr


def test_score_prints_data_to_stdout_and_words_to_stderr(model: Path) -> None:
    done = program("score", model / "fine.wav", model / "fault.wav", "-m", model / "m.harken", "--json")
    fine, fault, summary = map(json.loads, done.stdout.splitlines())
    assert fine["verdict"] == "normal"
    assert fault["verdict"] == "alarm"
    assert fine.keys() == fault.keys()
    assert (summary["normal"], summary["alarm"]) == (1, 1)
    assert fault["score"] > fine["score"]
    assert fault["p_value"] < fine["p_value"]
    assert fault["region"]["low_hz"] < 3_000 < fault["region"]["high_hz"]
    assert "2 recordings: 1 normal, 1 alarm" in done.stderr
    plain = harken("score", model / "fault.wav", "-m", model / "m.harken")
    assert plain.stdout.startswith("alarm ")
    assert "above all 40" in plain.stdout
    assert "kHz" in plain.stdout


def test_names_are_shown_on_one_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "two\nlines.wav").write_bytes((model / "fault.wav").read_bytes())
    (tmp_path / "no\nsound.wav").touch()
    done = harken("score", tmp_path, "-m", model / "m.harken")
    (line,) = done.stdout.splitlines()
    assert r"two\nlines.wav  " in line
    assert r"no\nsound.wav: the file is empty" in done.stderr


def test_exit_codes(model: Path, tmp_path: Path) -> None:
    options = ("-m", model / "m.harken", "--fail-on-anomaly")
    harken("score", model / "fine.wav", *options, code=0)
    program("score", model / "fault.wav", *options, code=1)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    harken("score", tmp_path / "broken.wav", *options, code=2)
    done = harken("score", model / "fine.wav", tmp_path / "broken.wav", *options, code=0)
    assert "not scored" in done.stderr
    harken("score", model / "fine.wav", tmp_path / "broken.wav", *options, "--strict", code=2)
    harken("score", model / "fine.wav", code=2)
    program("listen", code=2)


def test_a_reader_that_leaves_early_is_no_anomaly(model: Path) -> None:
    command = f"{HARKEN} score {model}/normal -m {model}/m.harken --json | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_explain_draws_a_picture(model: Path, tmp_path: Path) -> None:
    done = harken("explain", model / "fault.wav", "-m", model / "m.harken", "-o", tmp_path / "why.png", "--json")
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(done.stdout)["why"] in done.stderr


def test_a_report_is_one_file_with_everything_inside(model: Path, tmp_path: Path) -> None:
    report = tmp_path / "out" / "report.html"
    harken("score", model / "fine.wav", model / "fault.wav", "-m", model / "m.harken", "--report", report)
    page = report.read_text()
    assert page.count("data:image/svg+xml;base64,") == 1
    assert page.count("data:image/webp;base64,") == 6
    assert page.count("data:audio/flac;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "fault.wav" in page


def spoil(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.wav"
    sound, rate = hum(1), 16_000
    if kind == "unreadable":
        path.write_bytes(b"this is no audio")
    elif kind == "empty":
        path.touch()
    else:
        if kind == "silent":
            sound = np.zeros_like(sound)
        elif kind == "nan":
            sound[5] = np.nan
        elif kind == "clipped":
            sound = np.clip(sound * 30, -1, 1)
        elif kind == "wrong_rate":
            rate = 8_000
        elif kind == "wrong_channels":
            sound = np.stack([sound, sound * 0.9], axis=1)
        sf.write(path, sound, rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("kind", "message", "code"),
    [
        ("unreadable", "unreadable.wav: cannot be decoded as audio", 2),
        ("empty", "empty.wav: the file is empty", 2),
        ("silent", "silent.wav: is silent", 2),
        ("nan", "nan.wav: 1 sample is NaN or infinite", 2),
        ("clipped", "clipped.wav: is clipped", 0),
        ("wrong_rate", "wrong_rate.wav: was recorded at 8000 Hz: what the model listens to above 4000 Hz", 2),
        ("wrong_channels", "wrong_channels.wav: has 2 channels, not the expected 1", 2),
    ],
)
def test_bad_recordings(kind: str, message: str, code: int, model: Path, tmp_path: Path) -> None:
    done = harken("score", spoil(kind, tmp_path), "-m", model / "m.harken", code=code)
    assert message in done.stderr


def test_one_bad_clip_among_a_hundred(model: Path, tmp_path: Path) -> None:
    for index in range(99):
        sf.write(tmp_path / f"{index:03d}.wav", hum(index, seconds=0.5), 16_000)
    spoil("unreadable", tmp_path)
    done = harken("fit", tmp_path, "-o", tmp_path / "m.harken", "--json")
    assert json.loads(done.stdout)["recordings"] == 99
    assert "set aside" in done.stderr
    assert "unreadable.wav: cannot be decoded" in done.stderr


def test_bad_models_and_folders(model: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert "no audio in this folder" in harken("fit", tmp_path / "nothing", "-o", tmp_path / "m", code=2).stderr
    shutil.copytree(model / "m.harken", tmp_path / "flipped")
    file = next((tmp_path / "flipped").glob("detector*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(bytes(data))
    assert "is damaged" in harken("score", model / "fine.wav", "-m", tmp_path / "flipped", code=2).stderr
    shutil.copytree(model / "m.harken", tmp_path / "newer")
    file = tmp_path / "newer" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema": 99}))
    assert "newer Harken" in harken("score", model / "fine.wav", "-m", tmp_path / "newer", code=2).stderr
    harken("fit", model / "normal", "-o", tmp_path / "m", "--false-alarms", "sometimes", code=2)
    done = harken("fit", model / "normal", "-o", tmp_path / "m", "--detector", "nearest", code=2)
    assert "unknown detector 'nearest'" in done.stderr
    done = harken("fit", model / "normal", "-o", tmp_path / "m", "--set", "neigbours=3", code=2)
    assert "neighbours" in done.stderr
    done = harken("fit", model / "normal", "-o", tmp_path / "m", "--weights", model / "fine.wav", code=2)
    assert "spectral takes no weights" in done.stderr
    for setting in ("neighbours=0", "metric=manhattan", "neighbours=many"):
        done = harken("fit", model / "normal", "-o", tmp_path / "m", "--detector", "knn", "--set", setting, code=2)
        assert done.stderr.startswith(f"harken: {setting.partition('=')[0]}: Input should be ")
    assert not (tmp_path / "m").exists()


def test_simulate_fit_score(tmp_path: Path) -> None:
    options = ("--train-source", 12, "--train-target", 2, "--test", 2, "--supplemental", 1, "--seconds", 2)
    done = harken("simulate", tmp_path / "plant", "--machine", "fan", *options, "--json")
    assert json.loads(done.stdout)["machines"] == ["fan"]
    harken("fit", tmp_path / "plant" / "fan" / "train", "-o", tmp_path / "fan.harken")
    done = harken("score", tmp_path / "plant" / "fan" / "test", "-m", tmp_path / "fan.harken", "--json")
    assert len(done.stdout.splitlines()) == 9  # eight recordings and the summary


def test_doctor_and_weights(tmp_path: Path) -> None:
    findings = json.loads(harken("doctor", "--json").stdout)
    assert findings["encoders"] == [
        "beats", "dasheng", "dual_branch", "eat", "efficientat", "fisher", "log_mel", "spectral", "yamnet",
    ]  # fmt: skip
    listed = json.loads(harken("weights", "list", "--json").stdout)
    assert {entry["name"] for entry in listed} >= {"efficientat-mn04-as", "yamnet"}
    assert all(entry["licence"] for entry in listed)
    done = harken("weights", "add", tmp_path / "none.pt", code=2)
    assert "none.pt" in done.stderr


def test_an_encoder_without_its_weights_says_how_to_get_them(model: Path, tmp_path: Path) -> None:
    done = harken("fit", model / "normal", "-o", tmp_path / "m", "--encoder", "efficientat", code=2)
    assert "harken weights fetch efficientat-mn04-as" in done.stderr


def test_weights_add_fit_score_with_each_encoder(shared: Path, model: Path, tmp_path: Path) -> None:
    for encoder, file in (("efficientat", "mn04_as_mAP_432.pt"), ("yamnet", "yamnet_f32.npz")):
        harken("weights", "add", shared / "weights" / file)
        harken("fit", model / "normal", "-o", tmp_path / encoder, "--encoder", encoder, "--false-alarms", "10%")
        done = harken("score", model / "fine.wav", model / "fault.wav", "-m", tmp_path / encoder, "--json")
        fine, fault, _ = map(json.loads, done.stdout.splitlines())
        assert fault["score"] > fine["score"]
    harken("weights", "verify")


def test_every_command_of_the_documents_exists() -> None:
    """Commands of README and docs run with their verbs and options as written (`--help` appended)."""
    root = Path(__file__).parents[1]
    text = "\n".join(path.read_text() for path in [root / "README.md", *sorted((root / "docs").glob("*.md"))])
    commands = {
        command.split("`")[0].strip()
        for command in re.findall(rf"(?:^|`)harken ((?:{'|'.join(VERBS)}|--)[^\n`]*)", text, re.M)
    }
    assert len(commands) >= 20
    verbs = {" ".join(command.split()[: 2 if command.split()[0] in GROUPS else 1]) for command in commands}
    for verb in sorted(verbs):
        page = re.sub(r"\s+", " ", harken(*verb.split(), "--help").stdout)
        for command in commands:
            if command.startswith(verb):
                for option in re.findall(r"(--[a-z-]+)", command):
                    assert option in page, f"{option} of `harken {command}` is not an option of harken {verb}"


def test_the_readmes_main_commands_and_python(make_clips: Callable[..., Path], tmp_path: Path) -> None:
    """The commands under `Use` and the Python block, run as they stand in the README."""
    make_clips("normal", 20)
    make_clips("new", 2, first_seed=300)
    shutil.copy(tmp_path / "new" / "clip_000.wav", tmp_path / "new" / "clip.wav")
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    block = re.search(r"## Use\n\n```\n(.*?)```", readme, re.S)
    assert block is not None
    for line in block[1].strip().splitlines():
        name, *words = line.split()
        assert name == "harken"
        done = called(*words, folder=tmp_path)
        assert done.returncode in (0, 1), done.stderr
    bench = re.search(r"## Bench\n.*?```\n(.*?)```", readme, re.S)
    assert bench is not None
    (tmp_path / "meta.yaml").write_text(harken("submit", "--template").stdout)
    done = pasted(bench[1], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "submission.zip").is_file()
    assert len(official_scores(done.stdout)) == 2
    assert len(set(official_scores(done.stdout))) == 1
    python = re.search(r"```python\n(.*?)```", readme, re.S)
    assert python is not None
    done = subprocess.run([sys.executable, "-c", python[1]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
