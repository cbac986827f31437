"""imgcls: a workbench for image classification with the experiment tracker at its centre."""

import os

# Before anything imports MLflow: what a laboratory trains is nobody else's business unless it says so.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
