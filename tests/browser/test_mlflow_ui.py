"""Plain `mlflow ui` on a fresh sweep's store, as a user sees it."""

import json

from playwright.sync_api import expect


def test_two_runs_are_compared(swept, mlflow_ui, show):
    ids = [run.info.run_id for run in swept.of_kind("trial")][:2]
    page = show(
        f"{mlflow_ui}/#/compare-runs?runs={json.dumps(ids)}&experiments={json.dumps([swept.experiment.experiment_id])}"
    )
    expect(page.get_by_text("Comparing 2 Runs from 1 Experiment")).to_be_visible()
    for run_id in ids:
        expect(page.get_by_text(run_id).first).to_be_visible()
    expect(page.get_by_text("train.lr").first).to_be_visible()


def test_a_run_shows_its_curves(swept, mlflow_ui, show):
    winner = swept.winner
    page = show(f"{mlflow_ui}/#/experiments/{winner.info.experiment_id}/runs/{winner.info.run_id}/model-metrics")
    expect(page.locator(".js-plotly-plot .scatterlayer .trace").first).to_be_visible()


def test_the_report_lies_in_the_artifacts_with_its_pictures(swept, mlflow_ui, show):
    (evaluation,) = swept.of_kind("evaluation")
    page = show(
        f"{mlflow_ui}/#/experiments/{evaluation.info.experiment_id}/runs/{evaluation.info.run_id}"
        "/artifacts/report/report.html"
    )
    report = page.frame_locator("iframe").first
    expect(report.locator("h1").first).to_be_visible()
    pictures = report.locator("img")
    expect(pictures.first).to_be_attached()
    sizes = pictures.evaluate_all("images => images.map(image => image.naturalWidth)")
    assert sizes
    assert all(sizes)
