"""A score script for Azure's public inference server: azmlinfsrv --entry_script score.py"""

from penstock.server.azureml.score_script import init, run

__all__ = ["init", "run"]
