"""Which MLflow experiment and project a command reads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from toxtrail.experiment import Experiment

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return Experiment(tmp_path)


def test_the_environment_takes_precedence_and_is_reported_once(experiment, monkeypatch, capsys):
    own = Experiment(experiment.root).config.tracking
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    assert experiment.config.tracking.experiment == "another"
    assert experiment.config.tracking.project == own.project
    for _ in range(2):
        experiment.warn_of_replaced_experiment()
    said = capsys.readouterr().err
    assert said.count("another") == 1
    assert own.experiment in said


@pytest.mark.parametrize("name", ["", "toxtrail"])
def test_an_environment_that_changes_nothing_is_not_reported(experiment, monkeypatch, capsys, name):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    assert experiment.config.tracking.experiment == "toxtrail"
    experiment.warn_of_replaced_experiment()
    assert capsys.readouterr().err == ""


def test_the_own_project_is_read_unless_others_are_selected(experiment, tmp_path_factory):
    own = experiment.config.tracking.project
    assert (experiment.project, experiment.reads_own_results) == (own, True)
    experiment.selected_project = own
    assert experiment.reads_own_results
    experiment.selected_project = "other-0000beef"
    assert (experiment.project, experiment.reads_own_results) == ("other-0000beef", False)
    experiment.selected_project, experiment.all_projects = None, True
    assert (experiment.project, experiment.reads_own_results) == (None, False)
    outside = Experiment(tmp_path_factory.mktemp("outside"))
    assert (outside.project, outside.reads_own_results) == (None, False)
