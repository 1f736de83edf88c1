"""MLflow: the training and the evaluation of one method are one run."""

import sys
from pathlib import Path

import mlflow
import pytest
from monai.bundle import ConfigWorkflow

CONFIGS = Path(__file__).parents[2] / "bundle" / "configs"


@pytest.fixture
def evaluate(tiny, dataset_dir, tmp_path, monkeypatch):
    """Evaluates the training of ``workflow`` on its validation split."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def run(**overrides) -> None:
        files = [str(CONFIGS / "inference.json"), str(CONFIGS / "evaluate.json"), str(tiny)]
        options = {"weights": str(tmp_path / "out" / "model.pt"), "output_dir": str(tmp_path / "evaluation")}
        options |= {"dataset_dir": str(dataset_dir), "split": "val", "steps": 1, "baselines": {}, **overrides}
        made = ConfigWorkflow(files, workflow_type="inference", logging_file=False, **options)
        made.initialize()
        made.run()

    return run


@pytest.mark.slow
def test_a_method_is_one_mlflow_run_with_its_budget_training_and_evaluation(
    workflow, evaluate, mlflow_database, tmp_path
):
    uri = mlflow_database(tmp_path / "sweep")
    tracking = {"tracking": str(CONFIGS / "mlflow.json"), "tracking_uri": uri, "experiment_name": "e"}
    client = mlflow.MlflowClient(uri)

    def run_of(name: str) -> mlflow.entities.Run:
        (run,) = client.search_runs([client.get_experiment_by_name("e").experiment_id], f"run_name = '{name}'")
        return run

    budget = {"batch_size": 2, "dataset_dir": "DATA"}
    workflow(**tracking, run_name="a", run_params=budget, close_run=False, max_epochs=1).run()
    begun = run_of("a")
    assert begun.info.status == "RUNNING" and "psnr3d_db" not in begun.data.metrics
    workflow(**tracking, run_name="a", run_params=budget, close_run=False, max_epochs=2).run()  # goes on
    evaluate(**tracking, run_name="a")
    run = run_of("a")
    assert run.info.run_id == begun.info.run_id and run.info.status == "FINISHED"
    assert run.data.params.items() >= {"batch_size": "2", "dataset_dir": "DATA"}.items()
    assert run.data.metrics.keys() >= {"mean_train_loss", "val_psnr3d", "psnr3d_db", "seconds"}
    assert [m.step for m in client.get_metric_history(run.info.run_id, "val_psnr3d")] == [1, 2]
