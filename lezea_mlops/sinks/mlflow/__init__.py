"""The MLflow sink: runs that people look at in the MLflow UI."""

from lezea_mlops.sinks.mlflow.sink import MlflowSink

__all__ = ["MlflowSink"]
