"""What only the command line reaches: the page of ``zoo serve`` and the studies of ``zoo study``."""
