"""Several processes of komas on one machine: ``komas serve --workers N``."""
