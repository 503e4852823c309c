"""harken demo: a simulated plant, a model per machine, scores, the official metric, a report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, line, progress, say


def demo(
    directory: Annotated[Path, typer.Argument(help="Output folder.")] = Path("demo"),
    false_alarms: Annotated[str, typer.Option(help="False-alarm rate of the thresholds.")] = "auto",
    seed: Annotated[int, typer.Option(help="Random seed of the plant.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run the detector on a simulated plant. Needs no data and no network; takes about a minute."""
    from harken.data.clips import clips_from_files
    from harken.data.folders import find_recordings
    from harken.evaluation.metrics import official_score, section_result
    from harken.monitor.detector import Detector
    from harken.monitor.report import ReportSection, write_report
    from harken.plant import list_machines, simulate

    begun = time.monotonic()
    plant = directory / f"plant-seed{seed}"
    if not plant.exists():
        say(f"simulating {len(list_machines())} machines in {plant}")
        with progress("simulating") as bar:
            # Written aside and renamed, so that a plant that is there is whole.
            building = directory / f".plant-seed{seed}.{time.time_ns()}.tmp"
            simulate(
                building,
                train_source=100,
                train_target=8,
                test_per_condition=15,
                supplemental=4,
                seconds=4.0,
                seed=seed,
                progress=bar,
            )
            building.rename(plant)
    sections, rows = [], []
    for machine in sorted(path.name for path in plant.iterdir()):
        with progress(f"listening to {machine}") as bar:
            detector = Detector.fit(
                plant / machine / "train",
                false_alarms=false_alarms,
                store=directory / "embeddings",
                progress=bar,
            )
        detector.save(directory / "models" / f"{machine}.harken")
        files = find_recordings([plant / machine / "test"], frozenset({".wav"}))
        clips = clips_from_files(files)
        verdicts = list(detector.score_many(files, store=directory / "embeddings"))
        truth = [clip.condition == "anomaly" for clip in clips]
        target = [clip.domain == "target" for clip in clips]
        result = section_result(truth, target, [float(verdict.score or 0.0) for verdict in verdicts])
        sections.append(
            ReportSection(machine, detector, verdicts, truth, result, normal_folder=plant / machine / "train")
        )
        alarms = [
            (bool(verdict.is_anomaly), bad, shifted)
            for verdict, bad, shifted in zip(verdicts, truth, target, strict=True)
        ]
        rows.append(
            {
                "machine": machine,
                "auc_source": result.auc_source,
                "auc_target": result.auc_target,
                "pauc": result.pauc,
                "faults_found": sum(alarm for alarm, bad, _ in alarms if bad),
                "faults": sum(truth),
                "false_alarms_source": sum(alarm for alarm, bad, shifted in alarms if not bad and not shifted),
                "false_alarms_target": sum(alarm for alarm, bad, shifted in alarms if not bad and shifted),
            }
        )
    score = official_score([section.result for section in sections if section.result is not None])
    report = directory / "report.html"
    lead = (
        f"Official score (harmonic mean of AUC source, AUC target and pAUC over all machines): "
        f"{score:.4f}. The plant is simulated: the numbers show that the tool works, not how well it would do on "
        "your machine."
    )
    write_report(report, "Harken demo: a simulated plant", sections, worst=3, lead=lead)
    if json:
        emit({"official_score": score, "machines": rows, "report": str(report)})
    else:
        line("machine      AUC source  AUC target  pAUC   faults found  false alarms (source, target)")
        for row in rows:
            line(
                f"{row['machine']:<12} {row['auc_source']:>10.3f} {row['auc_target']:>11.3f} {row['pauc']:>6.3f}"
                f" {row['faults_found']:>8}/{row['faults']:<5} {row['false_alarms_source']:>8},"
                f" {row['false_alarms_target']}"
            )
        line(f"official score {score:.4f}")
        line(f"report: {report}")
    say(f"done in {time.monotonic() - begun:.0f} s; next: harken fit YOUR_RECORDINGS -o my.harken")
