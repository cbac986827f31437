"""The only door to MLflow: what a run leaves behind is written and read here, under the record's names."""
