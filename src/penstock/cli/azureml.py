"""`penstock azureml`: serve what Azure Machine Learning has mounted."""

import os

from rich.console import Console

from penstock.cli.serve import run
from penstock.engine.log_format import set_up_logging
from penstock.server.azureml.environment import deployment_from


def azureml() -> None:
    """Serve the model that Azure Machine Learning mounts, as its environment variables say.

    It listens on port 5001 once the model is loaded. docs/azureml.md lists the variables; one named
    PENSTOCK_ and a flag of `penstock serve` sets that flag.
    """
    deployment = deployment_from(os.environ)
    set_up_logging(deployment.front.log_format, level=deployment.log_level)
    console = Console(stderr=True)
    for note in deployment.notes:
        console.print(note, highlight=False)
    run(deployment.engine, deployment.front, deployment.server, deployment.engine.model)
