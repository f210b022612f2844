"""One program per engine, run in its own virtual environment; they share `measuring`."""
